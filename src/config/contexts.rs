//! Where a directive may stand.

/// A set of contexts, named as nginx's documentation names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u32);

pub const MAIN: Contexts = Contexts(1);
pub const EVENTS: Contexts = Contexts(1 << 1);
pub const HTTP: Contexts = Contexts(1 << 2);
pub const SERVER: Contexts = Contexts(1 << 3);
pub const LOCATION: Contexts = Contexts(1 << 4);
pub const UPSTREAM: Contexts = Contexts(1 << 5);
pub const IF_IN_SERVER: Contexts = Contexts(1 << 6);
pub const IF_IN_LOCATION: Contexts = Contexts(1 << 7);
pub const LIMIT_EXCEPT: Contexts = Contexts(1 << 8);
pub const STREAM: Contexts = Contexts(1 << 9);
pub const STREAM_SERVER: Contexts = Contexts(1 << 10);
pub const STREAM_UPSTREAM: Contexts = Contexts(1 << 11);
pub const MAIL: Contexts = Contexts(1 << 12);
pub const MAIL_SERVER: Contexts = Contexts(1 << 13);
/// Legal everywhere: `include`.
pub const ANY: Contexts = Contexts((1 << 14) - 1);

/// `http`, `server` and `location`: what most directives of http allow.
pub const LEVELS: Contexts = HTTP.or(SERVER).or(LOCATION);
/// The above and `if` in `location`.
pub const LEVELS_IF: Contexts = LEVELS.or(IF_IN_LOCATION);
/// Where the rewrite module's directives stand.
pub const REWRITE: Contexts = SERVER.or(LOCATION).or(IF_IN_SERVER).or(IF_IN_LOCATION);

const NAMES: [(Contexts, &str); 14] = [
    (MAIN, "main"),
    (EVENTS, "events"),
    (HTTP, "http"),
    (SERVER, "server"),
    (LOCATION, "location"),
    (UPSTREAM, "upstream"),
    (IF_IN_SERVER, "if-in-server"),
    (IF_IN_LOCATION, "if-in-location"),
    (LIMIT_EXCEPT, "limit_except"),
    (STREAM, "stream"),
    (STREAM_SERVER, "stream-server"),
    (STREAM_UPSTREAM, "stream-upstream"),
    (MAIL, "mail"),
    (MAIL_SERVER, "mail-server"),
];

impl Contexts {
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of these contexts is `here`.
    pub const fn allow(self, here: Self) -> bool {
        self.0 & here.0 != 0
    }

    /// Reads the comma-separated names of the directive table; unknown names are ignored.
    pub fn parse(names: &str) -> Self {
        if names == "any" {
            return ANY;
        }
        let find = |name: &str| NAMES.iter().find(|(_, known)| *known == name);
        names.split(',').filter_map(find).fold(Self(0), |all, (context, _)| all.or(*context))
    }

    /// The names, as they stand in help texts and in DIRECTIVES.md.
    pub fn names(self) -> String {
        let names = NAMES.iter().filter(|(context, _)| self.allow(*context)).map(|(_, name)| *name);
        names.collect::<Vec<_>>().join(", ")
    }
}
