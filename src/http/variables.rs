//! Variables: what a name stands for. Each room lists its own; here is how they are found.

use super::{exchange::Exchange, modules};
use crate::{
    config::{Handle, Kind, Scope},
    syntax::{Fault, Stage},
};
use bytes::Bytes;
use std::{collections::HashMap, sync::LazyLock};

/// A variable that a room computes.
pub struct Variable {
    pub name: &'static str,
    /// Appends the value; false when the request has none (nginx's `not_found`).
    pub get: fn(&Exchange, &mut Vec<u8>) -> bool,
    /// What becomes of it when the configuration gives it a value of its own.
    pub change: Change,
}

/// Whether `set`, `map` and captures may name a room's variable (`NGX_HTTP_VAR_CHANGEABLE`).
#[derive(Clone, Copy)]
pub enum Change {
    /// They may not.
    Never,
    /// It has the value it was last given.
    Kept,
    /// `set` does this.
    By(fn(&mut Exchange, Bytes)),
}

impl Variable {
    /// A variable that can only be read.
    pub const fn new(name: &'static str, get: fn(&Exchange, &mut Vec<u8>) -> bool) -> Self {
        Self { name, get, change: Change::Never }
    }

    /// A variable that has another value once it is given one.
    pub const fn changeable(name: &'static str, get: fn(&Exchange, &mut Vec<u8>) -> bool) -> Self {
        Self { name, get, change: Change::Kept }
    }

    /// A variable that `set` does something with.
    pub const fn settable(
        name: &'static str,
        get: fn(&Exchange, &mut Vec<u8>) -> bool,
        set: fn(&mut Exchange, Bytes),
    ) -> Self {
        Self { name, get, change: Change::By(set) }
    }

    fn is_fixed(&self) -> bool {
        matches!(self.change, Change::Never)
    }
}

/// A family of variables whose names begin alike: `$http_…`.
pub struct Prefixed {
    pub prefix: &'static str,
    /// Appends the value of the member with the given rest of the name.
    pub get: fn(&Exchange, &[u8], &mut Vec<u8>) -> bool,
}

/// What a name stands for in one generation.
pub enum Definition {
    Builtin(&'static Variable),
    Prefixed(&'static Prefixed, Box<[u8]>),
    /// Named captures and their like: has the value it was last given.
    Stored,
    /// Of `set`: the same, and what it has before it is given one is warned about; but where it belongs to a family
    /// it has the family's value until then.
    Assigned(Option<(&'static Prefixed, Box<[u8]>)>),
    Computed(Computed),
}

/// Variables that configuration defines by a rule.
#[derive(Clone, Debug)]
pub enum Computed {
    Map(std::sync::Arc<modules::map::Map>),
    Geo(std::sync::Arc<modules::geo::Geo>),
    Split(std::sync::Arc<modules::split_clients::Split>),
}

impl Computed {
    /// Appends the value; false when there is none.
    pub fn evaluate(&self, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Map(map) => map.evaluate(exchange, out),
            Self::Geo(geo) => geo.evaluate(exchange, out),
            Self::Split(split) => split.evaluate(exchange, out),
        }
    }

    /// Whether the value must be computed anew each time.
    pub fn volatile(&self) -> bool {
        match self {
            Self::Map(map) => map.volatile,
            Self::Geo(geo) => geo.volatile,
            Self::Split(_) => false,
        }
    }
}

static BUILTIN: LazyLock<HashMap<&'static str, &'static Variable>> =
    LazyLock::new(|| modules::variables().map(|variable| (variable.name, variable)).collect());

/// A room's variable by name.
pub fn builtin(name: &[u8]) -> Option<&'static Variable> {
    BUILTIN.get(std::str::from_utf8(name).ok()?).copied()
}

/// The family a name belongs to, and the rest of the name.
pub fn family(name: &[u8]) -> Option<(&'static Prefixed, &[u8])> {
    modules::families().find_map(|family| name.strip_prefix(family.prefix.as_bytes()).map(|rest| (family, rest)))
}

/// Makes a name one that a rule or a capture defines.
///
/// # Errors
/// nginx's fault for a variable that belongs to a room and may not be changed.
pub fn define_stored(scope: &Scope<'_>, name: &[u8], at: crate::syntax::Span) -> Result<Handle, Fault> {
    changeable(name, at)?;
    Ok(scope.define(Kind::Variable, name, at).0)
}

/// Makes a name one that `set` gives values. What defines it otherwise goes before.
///
/// # Errors
/// As [`define_stored`].
pub fn define_assigned(scope: &Scope<'_>, name: &[u8], at: crate::syntax::Span) -> Result<Handle, Fault> {
    changeable(name, at)?;
    Ok(scope.assign(Kind::Variable, name, at))
}

/// Makes a name one that is given values, and of which nobody is surprised that it has none; unless it is a room's.
///
/// # Errors
/// As [`define_stored`].
pub fn define_given(scope: &Scope<'_>, name: &[u8], at: crate::syntax::Span) -> Result<Handle, Fault> {
    match builtin(&name.to_ascii_lowercase()) {
        Some(_) => define_assigned(scope, name, at),
        None => define_stored(scope, name, at),
    }
}

/// Refuses names that nothing but their room may give values (`ngx_http_add_variable`).
fn changeable(name: &[u8], at: crate::syntax::Span) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::at(at, "invalid variable name \"$\""));
    }
    if builtin(&name.to_ascii_lowercase()).is_some_and(Variable::is_fixed) {
        return Err(Fault::at(at, [b"the duplicate \"", name, b"\" variable"].concat()));
    }
    Ok(())
}

/// What every name of this reading stands for, in the order of the handles. A name that nothing
/// defines is a fault where it was first used.
pub fn resolve(scope: &Scope<'_>, computed: Vec<(Handle, Computed)>) -> Vec<Definition> {
    let mut computed: HashMap<_, _> = computed.into_iter().collect();
    let define = |(at, named): (usize, crate::config::scope::Named)| {
        let handle = Handle(u32::try_from(at).unwrap_or(u32::MAX));
        if let Some(computed) = computed.remove(&handle) {
            return Definition::Computed(computed);
        }
        if named.defined.is_some() {
            // Captures take the place of what a room says.
            return Definition::Stored;
        }
        if let Some(variable) = builtin(&named.name) {
            return Definition::Builtin(variable);
        }
        let family = family(&named.name).map(|(family, rest)| (family, Box::from(rest)));
        if named.assigned.is_some() {
            return Definition::Assigned(family);
        }
        if let Some((family, rest)) = family {
            return Definition::Prefixed(family, rest);
        }
        let fault = Fault::at(named.first_use, [b"unknown \"", &named.name[..], b"\" variable"].concat());
        let known = BUILTIN.keys().copied();
        let near = crate::config::render::nearest(&String::from_utf8_lossy(&named.name), known);
        let fault = fault.unnamed().when(Stage::Settling);
        scope.fault(match near {
            Some(near) => fault.help(format!("did you mean `${near}`?")),
            None => fault,
        });
        Definition::Stored
    };
    scope.names(Kind::Variable).into_iter().enumerate().map(define).collect()
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get, http_fault};

    #[test]
    fn only_variables_that_rooms_let_go_can_be_given_values() {
        for name in [
            "args",
            "limit_rate",
            "invalid_referer",
            "msie",
            "modern_browser",
            "ancient_browser",
            "uid_reset",
            "proxy_host",
            "proxy_port",
            "http_own",
            "sent_http_own",
            "cookie_a",
            "arg_a",
            "upstream_http_own",
            "own",
        ] {
            assert_eq!(fault(&format!("set ${name} x;")), "", "{name}");
            assert_eq!(fault(&format!("auth_request_set ${name} x;")), "", "{name}");
            assert_eq!(http_fault(&format!("map $uri ${name} {{ default x; }}")), "", "{name}");
            assert_eq!(fault(&format!("if ($uri ~ (?<{name}>x)) {{ }}")), "", "{name}");
        }
        for name in [
            "uri",
            "HOST",
            "http_user_agent",
            "http_referer",
            "http_via",
            "http_cookie",
            "sent_http_link",
            "sent_http_content_type",
            "upstream_addr",
            "proxy_add_x_forwarded_for",
            "uid_got",
            "slice_range",
            "gzip_ratio",
            "request_id",
        ] {
            let message = format!("the duplicate \"{name}\" variable");
            assert_eq!(fault(&format!("set ${name} x;")), message);
            assert_eq!(fault(&format!("auth_request_set ${name} x;")), message);
            assert_eq!(http_fault(&format!("map $uri ${name} {{ default x; }}")), message);
            assert_eq!(http_fault(&format!("geo ${name} {{ default x; }}")), message);
            assert_eq!(http_fault(&format!("split_clients $uri ${name} {{ * x; }}")), message);
        }
        assert_eq!(fault("set $ x;"), "invalid variable name \"$\"");
        assert_eq!(fault("set x x;"), "invalid variable name \"x\"");
    }

    #[test]
    fn a_value_that_was_given_stays_and_others_come_from_the_room() {
        for (directives, said) in [
            ("set $msie x; return 200 $msie;", "x"),
            ("if ($arg_no) { set $msie x; } return 200 [$msie];", "[]"),
            ("valid_referers a; set $invalid_referer no; return 200 $invalid_referer;", "no"),
            ("valid_referers a; return 200 $invalid_referer;", "1"),
            ("set $was $arg_a; set $arg_a set; return 200 $was$arg_a;", "1set"),
            ("if ($arg_no) { set $arg_a set; } return 200 $arg_a;", "1"),
            ("if ($uri ~ (?<arg_a>/)) { } return 200 $arg_a;", "/"),
            ("if ($uri ~ (?<arg_a>x)) { } return 200 [$arg_a];", "[]"),
        ] {
            assert_eq!(get(&format!("location / {{ {directives} }}"), "/?a=1").text(), said, "{directives}");
        }
    }
}
