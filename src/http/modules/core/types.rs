//! `types`: which file name extension is of which media type.

use crate::{
    config::{Args, FromArgs},
    syntax::{Fault, Line},
};
use bytes::Bytes;
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

/// Extensions, in lower case, to types.
#[derive(Clone, Debug)]
pub struct Types(Arc<HashMap<Box<[u8]>, Bytes>>);

impl Default for Types {
    /// What nginx knows without a `types` block.
    fn default() -> Self {
        let builtin: [(&[u8], &'static [u8]); 3] =
            [(b"html", b"text/html"), (b"gif", b"image/gif"), (b"jpg", b"image/jpeg")];
        let builtin = builtin.map(|(extension, media)| (extension.into(), Bytes::from_static(media)));
        Self(Arc::new(builtin.into_iter().collect()))
    }
}

impl Types {
    /// The type of a path by its extension, in any case.
    pub fn of_path(&self, path: &[u8]) -> Option<&Bytes> {
        let name = &path[memchr::memrchr(b'/', path).map_or(0, |at| at + 1)..];
        let dot = memchr::memrchr(b'.', name).filter(|at| *at > 0 || name.len() > 1)?;
        let extension = &name[dot + 1..];
        match extension.iter().any(u8::is_ascii_uppercase) {
            true => self.0.get(&extension.to_ascii_lowercase()[..]),
            false => self.0.get(extension),
        }
    }
}

impl FromArgs for Types {
    const TAKES: RangeInclusive<usize> = 0..=0;
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let mut types: HashMap<Box<[u8]>, Bytes> = HashMap::new();
        for row in args.block() {
            let media = Bytes::copy_from_slice(&row.name.value);
            for extension in &row.args {
                let earlier = types.insert(extension.value.to_ascii_lowercase().into(), media.clone());
                if let Some(old) = earlier {
                    let text = [
                        b"duplicate extension \"",
                        &extension.value[..],
                        b"\", content type: \"",
                        &media,
                        b"\", previous content type: \"",
                        &old,
                        b"\"",
                    ];
                    let mut fault = Fault::at(extension.span, text.concat()).warn();
                    fault.line = Line::Of(row.end);
                    args.scope.fault(fault);
                }
            }
        }
        Ok(Self(Arc::new(types)))
    }
}
