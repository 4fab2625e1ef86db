//! Old browsers that nginx treats apart, by what `User-Agent` says (`ngx_http_process_user_agent`).

use super::exchange::Exchange;

/// What a client is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Some Internet Explorer, and not an Opera that says so.
    pub msie: bool,
    /// One before its version 7.
    pub msie6: bool,
    pub chrome: bool,
    pub safari: bool,
}

impl Agent {
    /// The client of a request.
    pub fn of(exchange: &Exchange) -> Self {
        exchange.field("user-agent").map_or_else(Self::default, Self::named)
    }

    /// By the value of `User-Agent`.
    pub fn named(agent: &[u8]) -> Self {
        let has = |text: &[u8]| memchr::memmem::find(agent, text).is_some();
        if has(b"Opera") {
            return Self::default();
        }
        let found = memchr::memmem::find(agent, b"MSIE ").map(|at| &agent[at + 5..]);
        if let Some(version) = found.filter(|version| version.len() > 2) {
            let msie6 = match version {
                [b'4' | b'5', b'.', ..] => true,
                // The second service pack mended it.
                [b'6', b'.', _, rest @ ..] => memchr::memmem::find(rest, b"SV1").is_none(),
                _ => false,
            };
            return Self { msie: true, msie6, ..Self::default() };
        }
        let chrome = !has(b"Gecko/") && has(b"Chrome/");
        let safari = !has(b"Gecko/") && !chrome && has(b"Safari/") && has(b"Mac OS X");
        Self { chrome, safari, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_their_names() {
        let msie = Agent { msie: true, ..Agent::default() };
        let msie6 = Agent { msie6: true, ..msie };
        for (text, agent) in [
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows)", msie6),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", msie6),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", msie),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows)", msie),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows) Opera 9", Agent::default()),
            ("MSIE 6.", Agent::default()),
            ("x Chrome/100 Safari/5", Agent { chrome: true, ..Agent::default() }),
            ("x (Mac OS X) Version/5 Safari/5", Agent { safari: true, ..Agent::default() }),
            ("x (Windows) Safari/5", Agent::default()),
            ("Gecko/2 Chrome/100", Agent::default()),
            ("curl/8", Agent::default()),
        ] {
            assert_eq!(Agent::named(text.as_bytes()), agent, "{text}");
        }
    }
}
