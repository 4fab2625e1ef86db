//! `listen` and `server_name`: which requests a server answers.

mod listen;

pub use listen::{Listen, SoKeepalive, SocketOptions};

use super::Room;
use crate::{
    http::{level::define_groups, names::ServerName},
    config::{Args, Directive, FromArgs, List, Module, SERVER},
    syntax::{Fault, Span},
};
use bytes::Bytes;
use std::ops::RangeInclusive;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub listen: List<Vec<Listen>>,
    pub names: List<Names>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("listen", SERVER, |conf| &mut conf.listen),
        Directive::new("server_name", SERVER, |conf| &mut conf.names),
    ];
}

impl Room for Conf {
    type State = ();
}

/// The names of one `server_name`, as written.
#[derive(Clone, Debug)]
pub struct Names(pub Vec<(Bytes, Span)>);

impl FromArgs for Names {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let mut names = Vec::new();
        for word in args.words() {
            if ServerName::is_suspicious(&word.value) {
                let text = [b"server name \"", &word.value[..], b"\" has suspicious symbols"].concat();
                args.scope.fault(Fault::at(word.span, text).warn());
            }
            let name = ServerName::parse(&word.value, args.scope.surroundings.host_name.as_bytes());
            if let ServerName::Regex(regex) = name.map_err(|error| Fault::at(word.span, error.to_string()))? {
                define_groups(&regex, word.span, args.scope)?;
            }
            names.push((Bytes::copy_from_slice(&word.value), word.span));
        }
        Ok(Self(names))
    }
}
