//! `disable_symlinks`: which links on the way to a file are followed.

use crate::{
    config::{Args, FromArgs},
    http::{
        exchange::Exchange,
        files::symlinks::{Allowed, Links},
        template::Template,
    },
    syntax::Fault,
};
use std::ops::RangeInclusive;

/// The value of `disable_symlinks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisableSymlinks {
    pub links: Links,
    /// `from=`: what stands at the beginning of a path and is trusted.
    pub from: Option<Template>,
}

impl DisableSymlinks {
    /// What holds for a path of a request (`ngx_http_set_disable_symlinks`).
    pub fn at(exchange: &Exchange, path: &[u8]) -> Allowed {
        let conf = &exchange.location.settings.core.disable_symlinks;
        let allowed = Allowed { links: conf.links, trusted: 0 };
        let Some(from) = &conf.from else { return allowed };
        let from = from.evaluate(exchange);
        let Some(rest) = path.strip_prefix(&*from).filter(|_| !from.is_empty()) else { return allowed };
        match (rest.first(), from.last()) {
            (None, _) => Allowed { links: Links::All, ..allowed },
            (Some(b'/'), _) => Allowed { trusted: from.len(), ..allowed },
            (Some(_), Some(b'/')) => Allowed { trusted: from.len() - 1, ..allowed },
            _ => allowed,
        }
    }
}

impl FromArgs for DisableSymlinks {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (mut links, mut from) = (None, None);
        for word in args.words() {
            match &word.value[..] {
                b"off" => links = Some(Links::All),
                b"if_not_owner" => links = Some(Links::SameOwner),
                b"on" => links = Some(Links::None),
                value => match value.strip_prefix(b"from=") {
                    Some(text) => from = Some(Template::compile_text(text, word, args.scope)?),
                    None => return Err(args.parameter(word)),
                },
            }
        }
        let at = args.statement.name.span;
        let Some(links) = links else {
            let text = "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter";
            return Err(Fault::at(at, text));
        };
        match (args.words(), &from) {
            ([first, second], None) => {
                let text = [b"duplicate parameters \"", &first.value[..], b" ", &second.value[..], b"\""].concat();
                Err(Fault::at(second.span, text))
            }
            (_, Some(_)) if links == Links::All => {
                Err(Fault::at(at, "\"from=\" cannot be used with \"off\" parameter"))
            }
            _ => Ok(Self { links, from }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_forbidden_and_try_files_goes_on() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("real")).unwrap();
        std::fs::write(folder.join("real/file"), "text").unwrap();
        std::fs::write(folder.join("real/index.html"), "index").unwrap();
        symlink("real", folder.join("linked")).unwrap();
        symlink("real/file", folder.join("link")).unwrap();
        symlink("file", folder.join("real/link")).unwrap();
        let root = folder.display();
        for (directives, path, expected) in [
            ("", "/link", 200),
            ("disable_symlinks on;", "/link", 403),
            ("disable_symlinks on;", "/linked/file", 404),
            ("disable_symlinks on;", "/real/file", 200),
            ("disable_symlinks on;", "/real/", 200),
            ("disable_symlinks on; index link;", "/real/", 403),
            ("disable_symlinks if_not_owner;", "/linked/file", 200),
            ("disable_symlinks on from=$document_root;", "/link", 403),
            ("disable_symlinks on from=$document_root/linked;", "/linked/file", 200),
            ("disable_symlinks on from=$document_root/linked/;", "/linked/file", 200),
            ("disable_symlinks on from=$document_root/linked;", "/linked/link", 403),
            ("disable_symlinks on from=$document_root/link;", "/link", 200),
            ("disable_symlinks on from=/elsewhere;", "/link", 403),
            ("disable_symlinks on; try_files /link /real/file =410;", "/none", 200),
            ("disable_symlinks on; try_files /link =410;", "/none", 410),
        ] {
            let answer = get(&format!("root {root}; {directives}"), path);
            assert_eq!(answer.status, expected, "{directives} {path}");
        }
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("disable_symlinks maybe;", "invalid parameter \"maybe\""),
            (
                "disable_symlinks from=/;",
                "\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter",
            ),
            ("disable_symlinks on off;", "duplicate parameters \"on off\""),
            ("disable_symlinks off from=/;", "\"from=\" cannot be used with \"off\" parameter"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
