//! `allow` and `deny`, by address; and which methods `limit_except` excepts.

use super::Room;
use crate::{
    config::{Args, Contexts, Directive, FromArgs, LEVELS, LIMIT_EXCEPT, Module, Slot},
    http::{exchange::Exchange, network::Network},
    syntax::Fault,
};
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub rules: Rules,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("allow", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.rules),
        Directive::new("deny", LEVELS.or(LIMIT_EXCEPT), |conf| &mut conf.rules),
    ];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if !this.rules.inherited && !this.rules.list.is_empty() {
            Arc::make_mut(this).rules.inherited = true;
        }
    }
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
    let rules = &exchange.location.settings.access.rules.list;
    match rules.iter().find(|rule| rule.of.contains(exchange.remote_address())) {
        None => Verdict::Unasked,
        Some(Rule { allow: true, .. }) => Verdict::Allowed,
        Some(Rule { allow: false, .. }) => Verdict::Denied,
    }
}

/// The rules of a level. Both directives fill one list, which one mention of either begins anew.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub list: Vec<Rule>,
    /// They are those of the level above.
    inherited: bool,
}

impl Slot for Rules {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let rule = Rule::from_args(args)?;
        if std::mem::take(&mut self.inherited) {
            self.list.clear();
        }
        self.list.push(rule);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        Rule::TAKES
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

#[cfg(test)]
mod tests {
    use crate::http::testing::get;

    #[test]
    fn the_first_rule_that_fits_decides_and_a_level_with_rules_hides_those_above() {
        for (rules, status) in [
            ("allow 127.0.0.1; deny all;", 404),
            ("deny 127.0.0.1; allow all;", 403),
            ("allow 10.0.0.0/8; deny all;", 403),
            ("deny all; location /x { allow 127.0.0.1; deny all; }", 404),
            ("deny all; location /x { }", 403),
            ("allow all; location /x { deny all; }", 403),
        ] {
            assert_eq!(get(&format!("location / {{ {rules} }}"), "/x").status, status, "{rules}");
        }
    }
}
