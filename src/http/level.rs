//! Levels: http, server, location. Each starts as a copy of the one above; a block's own directives
//! are read before the levels inside it, so that a level also inherits what its parent says further down.

use super::{
    content::Content,
    exchange::Method,
    location_tree::{Entry, Pattern, Tree},
    modules::{self, Settings},
    regex::Regex,
    variables,
};
use crate::{
    config::{
        Contexts, HTTP, IF_IN_LOCATION, IF_IN_SERVER, LIMIT_EXCEPT, LOCATION, Registry, SERVER, Scope, known,
        registry::on_statement_line,
    },
    syntax::{Block, Fault, Span, Statement},
};
use bytes::Bytes;
use std::{cell::Cell, sync::Arc};

/// One `server` block.
pub struct Server {
    /// `$server_name`: the first name, as written.
    pub name: Bytes,
    /// The server's own level: what applies while no location was found.
    pub base: Arc<Location>,
    pub locations: Tree<Arc<Location>>,
    /// `CONNECT` is answered: a level of it has `tunnel_pass`.
    pub allow_connect: bool,
    pub span: Span,
}

/// One `location` block, or the level of a server, an `if`, a `limit_except`.
pub struct Location {
    /// As written, without its modifier; empty for a server's level.
    pub name: Bytes,
    /// A regular expression chose it.
    pub regex: bool,
    pub named: bool,
    pub exact: bool,
    pub settings: Settings,
    /// Who answers here.
    pub content: Content,
    /// The levels of its `if` blocks, in the order they are written.
    pub ifs: Vec<Arc<Location>>,
    /// The level for methods that `limit_except` does not except.
    pub limit_except: Option<LimitExcept>,
    pub span: Span,
}

/// `limit_except`: the level of the methods it does not name.
pub struct LimitExcept {
    methods: Vec<Method>,
    pub level: Arc<Location>,
}

impl LimitExcept {
    /// Whether a method is excepted. `GET` brings `HEAD` with it.
    pub fn allows(&self, method: Method) -> bool {
        self.methods.contains(&method) || method == Method::Head && self.methods.contains(&Method::Get)
    }
}

/// Everything read from `http {}`.
pub struct Levels {
    /// The http level's own settings.
    pub settings: Settings,
    pub servers: Vec<Arc<Server>>,
}

/// Reads an `http` block. What is wrong with it is left in the scope.
pub fn read(block: &Block, above: Settings, scope: &Scope<'_>) -> Levels {
    scope.close_at(block.close);
    let reader = Reader { registry: modules::registry(), scope, tunnels: Cell::new(false) };
    let (settings, inner) = reader.level(&block.statements, HTTP, &above);
    let servers = inner.iter().filter_map(|statement| reader.server(statement, &settings));
    let servers = servers.map(Arc::new).collect();
    Levels { settings, servers }
}

struct Reader<'r> {
    registry: Registry<Settings>,
    scope: &'r Scope<'r>,
    /// A level of the present server has `tunnel_pass`.
    tunnels: Cell<bool>,
}

/// The location around the one that is being read.
struct Outer<'o> {
    pattern: &'o Pattern,
    location: &'o Location,
}

impl Reader<'_> {
    fn server(&self, statement: &Statement, above: &Settings) -> Option<Server> {
        let block = statement.block.as_ref()?;
        self.tunnels.set(false);
        let (settings, inner) = self.scope.inside(statement, || self.level(&block.statements, SERVER, above));
        let (entries, ifs) = self.inner(&inner, SERVER, &settings, None);
        let (locations, duplicates) = Tree::build(entries);
        for duplicate in duplicates {
            let text = [b"duplicate location \"", &duplicate.name[..], b"\""].concat();
            self.scope.fault(Fault::at(duplicate.value.span, text));
        }
        let name = settings.server.names.first().and_then(|names| names.0.first());
        let name = name.map(|(name, _)| name.slice(usize::from(name.starts_with(b"."))..)).unwrap_or_default();
        let base = Location { ifs, ..Location::plain(Bytes::new(), settings) };
        let allow_connect = self.tunnels.get();
        Some(Server { name, base: Arc::new(base), locations, allow_connect, span: statement.name.span })
    }

    /// Reads a block's own directives; the statements that open levels come back unread.
    fn level<'s>(&self, block: &'s [Statement], here: Contexts, above: &Settings) -> (Settings, Vec<&'s Statement>) {
        let inner: Vec<_> = block.iter().filter(|statement| opens(statement, here)).collect();
        // An `if` is both: a step of the rewrite script in its place, and a level.
        let own = block.iter().filter(|statement| !opens(statement, here) || statement.name.value == b"if");
        let inherited = above.enter(here);
        let mut settings = inherited.clone();
        self.registry.apply_all(own, here, &mut settings, self.scope);
        // The outermost level settles everything: what nothing mentions, too, may be derived.
        let settled = if here == HTTP { Settings::default() } else { inherited };
        settings.settle(&settled, self.scope, here);
        self.tunnels.set(self.tunnels.get() || settings.tunnel.pass.is_some());
        let well_formed = |statement: &&Statement| match known::check(statement, here) {
            Ok(_) => true,
            Err(known::Unknown::Shape(fault)) if statement.name.value != b"if" => {
                self.scope.fault(on_statement_line(fault, statement));
                false
            }
            Err(_) => false,
        };
        (settings, inner.into_iter().filter(well_formed).collect())
    }

    /// Reads the levels inside a level, in order.
    fn inner(
        &self,
        statements: &[&Statement],
        here: Contexts,
        settings: &Settings,
        outer: Option<&Outer<'_>>,
    ) -> (Vec<Entry<Arc<Location>>>, Vec<Arc<Location>>) {
        let (mut entries, mut ifs) = (Vec::new(), Vec::new());
        for statement in statements {
            match &statement.name.value[..] {
                b"if" => {
                    let context = if here == SERVER { IF_IN_SERVER } else { IF_IN_LOCATION };
                    ifs.push(Arc::new(self.pseudo(statement, context, settings, outer)));
                }
                b"location" => match self.location(statement, settings, outer) {
                    Ok(entry) => entries.push(entry),
                    Err(fault) => self.scope.fault(on_statement_line(fault, statement)),
                },
                _ => {}
            }
        }
        (entries, ifs)
    }

    fn location(
        &self,
        statement: &Statement,
        above: &Settings,
        outer: Option<&Outer<'_>>,
    ) -> Result<Entry<Arc<Location>>, Fault> {
        let words: Vec<_> = statement.args.iter().map(|word| &word.value[..]).collect();
        let span = statement.args.last().map_or(statement.name.span, |word| word.span);
        let pattern = Pattern::parse(&words).map_err(|error| Fault::at(span, error.to_string()))?;
        if let Some(outer) = outer {
            pattern.check_inside(outer.pattern).map_err(|error| Fault::at(span, error.to_string()))?;
        }
        if let Pattern::Regex(regex) = &pattern {
            define_groups(regex, span, self.scope)?;
        }
        let statements = statement.block.as_ref().map_or(&[][..], |block| &block.statements);
        let (settings, inner) = self.scope.inside(statement, || self.level(statements, LOCATION, above));
        let mut location = Location {
            regex: matches!(pattern, Pattern::Regex(_)),
            named: matches!(pattern, Pattern::Named(_)),
            exact: matches!(pattern, Pattern::Exact(_)),
            span,
            ..Location::plain(Bytes::copy_from_slice(pattern.name()), settings.clone())
        };
        let outer = Outer { pattern: &pattern, location: &location };
        let (nested, ifs) = self.inner(&inner, LOCATION, &settings, Some(&outer));
        let except = inner.iter().find(|statement| statement.name.value == b"limit_except");
        let except = except.map(|statement| {
            let level = Arc::new(self.pseudo(statement, LIMIT_EXCEPT, &settings, Some(&outer)));
            LimitExcept { methods: methods(statement, self.scope), level }
        });
        location.limit_except = except;
        location.ifs = ifs;
        let auto_redirect = location.content.redirects_slash() && pattern.name().ends_with(b"/");
        Ok(Entry { pattern, value: Arc::new(location), nested, auto_redirect })
    }

    /// The level of an `if` or a `limit_except`, which shares name and place with its location.
    fn pseudo(&self, statement: &Statement, here: Contexts, above: &Settings, outer: Option<&Outer<'_>>) -> Location {
        let statements = statement.block.as_ref().map_or(&[][..], |block| &block.statements);
        let (settings, _) = self.scope.inside(statement, || self.level(statements, here, above));
        let outer = outer.map(|outer| outer.location);
        Location {
            regex: outer.is_some_and(|outer| outer.regex),
            named: outer.is_some_and(|outer| outer.named),
            exact: outer.is_some_and(|outer| outer.exact),
            ..Location::plain(outer.map(|outer| outer.name.clone()).unwrap_or_default(), settings)
        }
    }
}

impl Location {
    fn plain(name: Bytes, settings: Settings) -> Self {
        let content = Content::of(&settings);
        Self {
            name,
            regex: false,
            named: false,
            exact: false,
            settings,
            content,
            ifs: Vec::new(),
            limit_except: None,
            span: Span::default(),
        }
    }
}

/// Makes the named groups of an expression variables.
///
/// # Errors
/// nginx's fault for a name that belongs to a room's variable.
pub fn define_groups(regex: &Regex, at: Span, scope: &Scope<'_>) -> Result<(), Fault> {
    regex.names().try_for_each(|(name, _)| variables::define_stored(scope, name.as_bytes(), at).map(drop))
}

fn methods(statement: &Statement, scope: &Scope<'_>) -> Vec<Method> {
    let method = |word: &crate::syntax::Word| {
        let method = Method::of(&word.value.to_ascii_uppercase());
        if !matches!(method, Method::Trace | Method::Connect | Method::Other) {
            return Some(method);
        }
        let text = [b"invalid method \"", &word.value[..], b"\""].concat();
        scope.fault(on_statement_line(Fault::at(word.span, text), statement));
        None
    };
    statement.args.iter().filter_map(method).collect()
}

fn opens(statement: &Statement, here: Contexts) -> bool {
    match &statement.name.value[..] {
        b"server" => here == HTTP,
        b"location" | b"if" => here == SERVER || here == LOCATION,
        b"limit_except" => here == LOCATION,
        _ => false,
    }
}
