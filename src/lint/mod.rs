//! `--lint`: what a configuration says that is legal and may not be meant. Nothing here changes what it does.

mod vars;

use crate::{
    config::{Contexts, HTTP, LOCATION, MAIN, SERVER, known},
    syntax::{Block, Fault, Severity, Statement, Word},
};
use std::collections::BTreeSet;
use vars::Tainted;

/// Looks at a whole configuration. `built` are the directives that do something here.
pub(crate) fn findings(root: &Block, fragment: bool, built: &BTreeSet<String>) -> Vec<Fault> {
    let mut look = Look { tainted: Tainted::of(root), built, found: Vec::new() };
    look.block(&root.statements, if fragment { HTTP } else { MAIN }, &[]);
    look.found
}

struct Look<'l> {
    tainted: Tainted,
    built: &'l BTreeSet<String>,
    found: Vec<Fault>,
}

/// Directives that hide what is said by the same ones above, each time somebody is surprised.
const HIDING: [&str; 2] = ["add_header", "proxy_set_header"];

impl Look<'_> {
    /// A block in its context; `above` are the blocks around it, the outermost first.
    fn block(&mut self, statements: &[Statement], here: Contexts, above: &[&[Statement]]) {
        for statement in statements {
            self.without_effect(statement, here);
            self.goes_anywhere(statement);
            self.splits_lines(statement);
            if let Some(block) = &statement.block {
                self.leads_out(statement, block);
                let around: Vec<&[Statement]> = above.iter().copied().chain([statements]).collect();
                match &statement.name.value[..] {
                    b"http" => self.block(&block.statements, HTTP, &[]),
                    b"server" if here == HTTP => self.block(&block.statements, SERVER, &around),
                    b"location" => self.block(&block.statements, LOCATION, &around),
                    b"if" | b"limit_except" => self.block(&block.statements, here, &around),
                    _ => {}
                }
            }
        }
        self.hides(statements, above);
    }

    fn warn(&mut self, at: &Word, text: String, help: &str) {
        self.found.push(Fault::at(at.span, text).warn().help(help));
    }

    /// Directives that nginx knows and that have nothing to do here.
    fn without_effect(&mut self, statement: &Statement, here: Contexts) {
        let name = statement.name.text();
        let harmless = known::check(statement, here).is_ok_and(|row| row.harmless) && !self.built.contains(&*name);
        if harmless {
            let text = format!("\"{name}\" has no effect here");
            self.found.push(Fault { severity: Severity::Notice, ..Fault::at(statement.name.span, text) });
        }
    }

    /// Requests that are passed wherever a client says.
    fn goes_anywhere(&mut self, statement: &Statement) {
        let name = statement.name.text();
        let Some(to) = statement.args.first().filter(|_| name.ends_with("_pass")) else { return };
        let authority = match memchr::memmem::find(&to.value, b"://") {
            Some(at) => &to.value[at + 3..],
            None => &to.value[..],
        };
        let authority = vars::before_path(authority);
        if let Some(variable) = self.tainted.first_in(authority) {
            let text = format!("\"{name}\" goes wherever \"${variable}\" says, which is for clients to choose");
            self.warn(to, text, "let a `map` with the servers that are allowed choose, or name them in an `upstream`");
        }
    }

    /// Answers into which a client may write fields of its own: in `$uri` a `%0a` is a line feed.
    fn splits_lines(&mut self, statement: &Statement) {
        let name = statement.name.text();
        let values = match &*name {
            "return" if statement.args.len() == 2 && statement.args[0].value.starts_with(b"3") => &statement.args[1..],
            "add_header" | "add_trailer" => statement.args.get(1..2).unwrap_or_default(),
            _ => return,
        };
        for value in values {
            let decoded =
                vars::names(&value.value).into_iter().find(|name| matches!(&name[..], "uri" | "document_uri"));
            if let Some(variable) = decoded {
                let text = format!("\"{name}\" with \"${variable}\" lets clients write lines into the answer's head");
                self.warn(value, text, "`$request_uri` is as the client sent it, and has no line feeds");
            }
        }
    }

    /// `location /i { alias /data/; }` gives `/i../` what stands beside the folder.
    fn leads_out(&mut self, location: &Statement, block: &Block) {
        let (b"location", [prefix]) = (&location.name.value[..], &location.args[..]) else { return };
        let alias = block.statements.iter().find(|statement| statement.name.value == b"alias");
        let Some(to) = alias.and_then(|alias| alias.args.first()) else { return };
        let open = prefix.value.starts_with(b"/") && !prefix.value.ends_with(b"/") && to.value.ends_with(b"/");
        if open {
            let text = format!("location \"{}\" leads out of the folder of its \"alias\" by \"..\"", prefix.text());
            self.warn(prefix, text, &format!("end it with a slash: `location {}/`", prefix.text()));
        }
    }

    /// Fields that a level forgets because it says one of its own.
    fn hides(&mut self, statements: &[Statement], above: &[&[Statement]]) {
        for name in HIDING {
            let is = |statement: &&Statement| statement.name.value == name.as_bytes();
            let Some(own) = statements.iter().find(is) else { continue };
            // Whoever says the same again has seen to it.
            let said = |field: &Statement| {
                let first = field.args.first().map(|word| word.value.to_ascii_lowercase());
                statements
                    .iter()
                    .filter(is)
                    .any(|own| own.args.first().map(|word| word.value.to_ascii_lowercase()) == first)
            };
            let around = above.iter().rev().find(|block| block.iter().any(|statement| is(&statement)));
            let hidden: Vec<&Statement> =
                around.map(|block| block.iter().filter(is).filter(|field| !said(field)).collect()).unwrap_or_default();
            let merges = statements.iter().chain(above.iter().copied().flatten()).any(|statement| {
                statement.name.value == b"add_header_inherit"
                    && statement.args.first().is_some_and(|word| word.value == b"merge")
            });
            if let Some(first) = hidden.first().filter(|_| !merges) {
                let text = format!("\"{name}\" hides {} of the level above", hidden.len());
                let fault = Fault::at(own.name.span, text).warn().also(first.name.span, "hidden");
                let help = match name {
                    "add_header" => "say it again here, or `add_header_inherit merge;`",
                    _ => "say it again here",
                };
                self.found.push(fault.help(help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::parse;

    fn found(http: &str) -> Vec<String> {
        let text = format!("http {{ {http} }}");
        let root = parse(0, text.as_bytes(), &mut Vec::new());
        let built = ["add_header", "proxy_pass", "alias", "return"].map(str::to_owned).into();
        let texts = findings(&root, false, &built);
        texts.into_iter().map(|fault| String::from_utf8(fault.message).unwrap()).collect()
    }

    #[test]
    fn a_server_that_clients_choose_is_told() {
        let told = |location: &str, variable: &str| {
            let text = format!("\"proxy_pass\" goes wherever \"${variable}\" says, which is for clients to choose");
            assert_eq!(found(&format!("server {{ {location} }}")), [text], "{location}");
        };
        told("location / { proxy_pass http://$arg_to; }", "arg_to");
        told("location / { proxy_pass $scheme://$http_host$request_uri; }", "http_host");
        told("location ~ ^/(.*)/ { proxy_pass http://$1/; }", "1");
        told("location ~ ^/(?<host>.*)/ { proxy_pass http://$host; }", "host");
        told("set $to $cookie_to; set $there ${to}; location / { proxy_pass http://$there; }", "there");
        for fine in [
            "location / { proxy_pass http://app$request_uri; }",
            "location / { set $app 10.0.0.1; proxy_pass http://$app$uri; }",
            "location / { proxy_pass http://$server_name; }",
        ] {
            assert_eq!(found(&format!("server {{ {fine} }}")), [""; 0], "{fine}");
        }
        let mapped = "map $arg_to $app { default a; b b; } server { location / { proxy_pass http://$app; } }";
        assert_eq!(found(mapped), [""; 0]);
        let echoed = "map $arg_to $app { default a; ~^(.*)$ $1; } server { location / { proxy_pass http://$app; } }";
        assert_eq!(found(echoed).len(), 1);
    }

    #[test]
    fn an_alias_that_can_be_left_is_told() {
        let text = "location \"/i\" leads out of the folder of its \"alias\" by \"..\"";
        assert_eq!(found("server { location /i { alias /data/images/; } }"), [text]);
        for fine in ["/i/ { alias /data/; }", "/i { alias /data; }", "= /i { alias /data/; }", "~ /i { alias /data/; }"]
        {
            assert_eq!(found(&format!("server {{ location {fine} }}")), [""; 0], "{fine}");
        }
    }

    #[test]
    fn heads_that_clients_can_write_into_are_told() {
        assert_eq!(
            found("server { return 301 https://a$uri; add_header X-Path $document_uri; }"),
            [
                "\"return\" with \"$uri\" lets clients write lines into the answer's head",
                "\"add_header\" with \"$document_uri\" lets clients write lines into the answer's head",
            ]
        );
        assert_eq!(found("server { return 301 https://a$request_uri; } server { return 200 $uri; }"), [""; 0]);
    }

    #[test]
    fn fields_that_a_level_hides_are_told_unless_they_are_said_again() {
        let server = "add_header A a; add_header B b; ";
        let of = |location: &str| found(&format!("{server} server {{ location / {{ {location} }} }}"));
        assert_eq!(of("add_header C c;"), ["\"add_header\" hides 2 of the level above"]);
        assert_eq!(of("add_header a c;"), ["\"add_header\" hides 1 of the level above"]);
        assert_eq!(of("add_header A a; add_header B b; add_header C c;"), [""; 0]);
        assert_eq!(of("add_header_inherit merge; add_header C c;"), [""; 0]);
        assert_eq!(of(""), [""; 0]);
    }

    #[test]
    fn what_has_no_effect_is_told() {
        assert_eq!(found("tcp_nopush on; server { }"), ["\"tcp_nopush\" has no effect here"]);
    }
}
