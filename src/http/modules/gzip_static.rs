//! `gzip_static`: a file that was packed beforehand, beside the one that is asked for.

use super::{Room, gzip};
use crate::{
    config::{Directive, LEVELS, Module},
    http::{
        exchange::Exchange,
        packing::beforehand::{self, Enabled},
        phase::Phase,
        response::Response,
    },
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: Enabled,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("gzip_static", LEVELS, |conf| &mut conf.enabled)];
}

impl Room for Conf {
    type State = ();
}

/// Answers with the packed file, if there is one and the client takes it (`ngx_http_gzip_static_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let enabled = exchange.location.settings.gzip_static.enabled;
    beforehand::content(exchange, enabled, ".gz", "gzip", |exchange| gzip::accepted(exchange, &Response::default()))
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault};
    use std::fs;

    #[test]
    fn the_packed_file_goes_to_those_who_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("both.css", "plain");
        write("both.css.gz", "packed");
        write("plain.css", "plain");
        write("packed.css.gz", "packed");
        fs::create_dir(folder.path().join("dir.css.gz")).unwrap();
        write("dir.css", "plain");
        let gzip = "Accept-Encoding: gzip\r\n";
        for (mode, path, fields, status, text, vary) in [
            ("on", "/both.css", gzip, 200, "packed", true),
            ("on", "/both.css", "", 200, "plain", true),
            ("on", "/plain.css", gzip, 200, "plain", false),
            ("on", "/packed.css", gzip, 200, "packed", true),
            ("on", "/packed.css", "", 404, "", true),
            ("on", "/dir.css", gzip, 200, "plain", true),
            ("on", "/both.css", "Accept-Encoding: gzip\r\nVia: x\r\n", 200, "plain", true),
            ("always", "/both.css", "", 200, "packed", false),
            ("always", "/plain.css", "", 200, "plain", false),
            ("off", "/both.css", gzip, 200, "plain", false),
        ] {
            let server = format!(
                "root {}; types {{ text/css css; }} gzip_static {mode}; gzip_vary on;",
                folder.path().display()
            );
            let answer = ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
            let what = format!("{mode} {path} {fields}");
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(answer.header("vary").is_some(), vary, "{what}");
            if status == 200 {
                assert_eq!(answer.text(), text, "{what}");
                assert_eq!(answer.header("content-type"), Some("text/css"), "{what}");
                assert_eq!(answer.header("content-encoding"), (text == "packed").then_some("gzip"), "{what}");
            }
        }
        let server = format!("root {}; gzip_static on;", folder.path().display());
        let part = ask(&server, &format!("GET /both.css HTTP/1.1\r\nHost: x\r\n{gzip}Range: bytes=1-2\r\n\r\n"));
        assert_eq!((part.status, part.text().as_str()), (206, "ac"));
        assert_eq!(fault("gzip_static maybe;"), "invalid value \"maybe\"");
    }
}
