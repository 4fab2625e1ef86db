//! The document that describes the API: `openapi.yaml`, beside the versions.

use crate::http::response::Response;

const DOCUMENT: &str = include_str!("openapi.yaml");

/// The document for an API below a path; changes are left out of it where the API may not be written to.
pub(super) fn response(path: &str, write: bool) -> Response {
    Response::with_body(200, &b"application/yaml"[..], text(path, write))
}

fn text(path: &str, write: bool) -> String {
    let mut kept = true;
    let wanted = |line: &&str| {
        match line.trim() {
            "# if write=on" => kept = write,
            "# end" => kept = true,
            _ => return kept,
        }
        false
    };
    let lines: String = DOCUMENT.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect();
    lines.replace("{{location}}", &path.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::get;

    #[test]
    fn changes_are_described_where_they_can_be_made() {
        for (conf, changes) in [("api write=on;", true), ("api;", false)] {
            let answer = get(&format!("location /api {{ {conf} }}"), "/api/openapi.yaml");
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/yaml")));
            let text = answer.text();
            for word in ["    post:", "    patch:", "    delete:", "ServerChange"] {
                assert_eq!(text.contains(word), changes, "{conf} {word}");
            }
            assert!(text.contains("  - url: '/api/9'\n"), "{text}");
            assert!(text.contains("    get:") && !text.contains("# if ") && !text.contains("# end"));
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        for write in [true, false] {
            let text = text("/api", write);
            for (at, _) in text.match_indices("#/components/") {
                let name: Vec<_> = text[at + 2..].split('\'').next().unwrap().split('/').collect();
                let [components, kind, name] = name[..] else { panic!("{name:?}") };
                assert!(text.contains(&format!("\n{components}:\n")) && text.contains(&format!("\n  {kind}:\n")));
                assert!(text.contains(&format!("\n    {name}:\n")), "{kind}/{name}");
            }
        }
    }
}
