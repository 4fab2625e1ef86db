//! `allow` and `deny`, by address; and which methods `limit_except` excepts.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, LIMIT_EXCEPT, List, Module},
    http::{exchange::Exchange, network::Network},
    syntax::Fault,
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub rules: List<Rule>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("allow", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.rules),
        Directive::new("deny", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.rules),
    ];
}

impl Room for Conf {
    type State = ();
}

/// What the rules say of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule speaks of it.
    Unasked,
    Allowed,
    Denied,
}

/// The access phase: the first rule that fits decides.
pub fn check(exchange: &Exchange) -> Verdict {
    let rules = &exchange.location.settings.access.rules;
    match rules.iter().find(|rule| rule.of.contains(exchange.connection.remote_ip_address())) {
        None => Verdict::Unasked,
        Some(Rule { allow: true, .. }) => Verdict::Allowed,
        Some(Rule { allow: false, .. }) => Verdict::Denied,
    }
}

/// One `allow` or `deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub of: Network,
}

impl FromArgs for Rule {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let of = Network::parse(&word.value).ok_or_else(|| args.parameter(word))?;
        if of.has_host_bits() {
            let text = [b"low address bits of ", &word.value[..], b" are meaningless"].concat();
            args.scope.fault(Fault::at(word.span, text).warn());
        }
        Ok(Self { allow: args.statement.name.value == b"allow", of })
    }
}
