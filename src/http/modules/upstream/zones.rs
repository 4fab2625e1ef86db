//! `zone` of an upstream: what is shared by the workers of nginx, and by our threads in any case. What may be wrong with it
//! is told nevertheless, and names can be looked up at run time only where it stands.

use crate::{
    config::{Args, FromArgs, Kind, Scope, Slot, values::parse_size},
    http::limit_zone::other_use,
    syntax::{Fault, Line, Span},
};
use std::ops::RangeInclusive;

/// A zone that a directive mentions.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    pub(super) name: Vec<u8>,
    /// Bytes; 0 where none are written.
    pub(super) size: usize,
    /// Where its name stands.
    pub(super) span: Span,
    /// Where the directive ends.
    pub(super) end: Span,
    /// It holds sessions of `sticky learn`, which one upstream has for itself.
    pub(super) sessions: bool,
}

/// The zones an upstream mentions; the last one counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Zones(pub(super) Vec<Zone>);

impl Slot for Zones {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        self.0.push(Zone::from_args(args)?);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=2
    }
}

impl FromArgs for Zone {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value.is_empty() {
            return Err(Fault::at(word.span, "invalid zone name \"\""));
        }
        let size = match args.words().get(1) {
            None => 0,
            Some(size) => match parse_size(&size.value) {
                None => return Err(Fault::at(size.span, [b"invalid zone size \"", &size.value[..], b"\""].concat())),
                Some(bytes) if bytes < 8 * 4096 => {
                    let text = [b"zone \"", &word.value[..], b"\" is too small"].concat();
                    return Err(Fault::at(size.span, text));
                }
                Some(bytes) => bytes,
            },
        };
        Ok(Self { name: word.value.clone(), size, span: word.span, end: args.statement.end, sessions: false })
    }
}

impl Zone {
    fn fault(&self, text: impl Into<Vec<u8>>) -> Fault {
        Fault { line: Line::Of(self.end), ..Fault::at(self.span, text) }
    }
}

/// Whether all mentions of a zone mean the same (`ngx_shared_memory_add`).
pub(super) fn check<'z>(zones: impl Iterator<Item = (&'z str, &'z Zone)>, scope: &Scope<'_>) {
    let mut known: Vec<(&str, Zone)> = Vec::new();
    let limits = scope.names(Kind::Zone);
    for (upstream, zone) in zones {
        let name = String::from_utf8_lossy(&zone.name);
        let earlier = known.iter_mut().find(|(_, earlier)| earlier.name == zone.name);
        let otherwise = scope.first_use(Kind::Cache, &zone.name).is_some()
            || limits.iter().any(|limit| limit.name == zone.name)
            || earlier.as_ref().is_some_and(|(_, earlier)| earlier.sessions != zone.sessions);
        if otherwise {
            scope.fault(zone.fault(other_use(&zone.name)));
            continue;
        }
        let Some((owner, earlier)) = earlier else {
            known.push((upstream, zone.clone()));
            continue;
        };
        if zone.size != 0 && earlier.size != 0 && zone.size != earlier.size {
            let text = format!(
                "the size {} of shared memory zone \"{name}\" conflicts with already declared size {}",
                zone.size, earlier.size
            );
            scope.fault(zone.fault(text).also(earlier.span, "declared here"));
        } else if zone.sessions {
            let text = format!("sticky zone \"{name}\" is already used in upstream \"{owner}\"");
            scope.fault(zone.fault(text));
        }
        earlier.size = earlier.size.max(zone.size);
    }
    for (_, zone) in known.iter().filter(|(_, zone)| zone.size == 0) {
        let text = [b"zero size shared memory zone \"", &zone.name[..], b"\""].concat();
        scope.fault(Fault::at(zone.span, text).unnamed().when(crate::syntax::Stage::Settling));
    }
}
