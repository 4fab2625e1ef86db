//! `mirror`: sends a copy of each request elsewhere, and forgets the answer.

use super::Room;
use crate::{
    config::{Args, Directive, LEVELS, Module, Slot},
    http::{
        body::RequestBody,
        exchange::Exchange,
        phase::{Break, Phase},
        subrequest,
    },
    syntax::Fault,
    upstream::pass,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub to: Mirrors,
    /// The copies have the request's body.
    pub request_body: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self { to: Mirrors::default(), request_body: true }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("mirror", LEVELS, |conf| &mut conf.to),
        Directive::new("mirror_request_body", LEVELS, |conf| &mut conf.request_body),
    ];
}

impl Room for Conf {
    type State = ();
}

/// The precontent phase: sends the copies off (`ngx_http_mirror_handler`).
pub async fn precontent(exchange: &mut Exchange) -> Phase {
    if exchange.location.settings.mirror.to.paths.is_empty() || exchange.depth > 0 {
        return Phase::Continue(());
    }
    let conf = Arc::clone(&exchange.location.settings.mirror);
    if conf.request_body {
        Box::pin(pass::read_body(exchange, false)).await?;
    }
    for path in &conf.to.paths {
        let body = if conf.request_body { exchange.body.share() } else { RequestBody::default() };
        let Some(mut copy) = subrequest::begin(exchange, path, &exchange.args, body) else {
            return Phase::Break(Break::Status(500));
        };
        copy.method = exchange.method;
        copy.head.method = exchange.head.method.clone();
        tokio::task::spawn_local(async move {
            // Nobody waits for the answer: its head is all that is read of it.
            drop(subrequest::answer(copy).await);
        });
    }
    Phase::Continue(())
}

/// Where the copies go. One mention hides those of the level above.
#[derive(Clone, Debug, Default)]
pub struct Mirrors {
    pub paths: Vec<Bytes>,
    /// `off` was said at this level.
    off: bool,
}

impl Slot for Mirrors {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let word = args.word(0);
        let off = word.value == b"off";
        if !args.first && (off || self.off) {
            return Err(args.directive(word, "is duplicate"));
        }
        if args.first {
            *self = Self { paths: Vec::new(), off };
        }
        if !off {
            self.paths.push(Bytes::copy_from_slice(&word.value));
        }
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{conf, fault, get};

    #[test]
    fn a_request_is_answered_whatever_its_copies_come_to() {
        let server =
            "location / { mirror /m; mirror /n; try_files /none @in; } location @in { mirror off; return 200 in; }
                      location /m { return 500; }";
        assert_eq!(get(server, "/x").text(), "in");
    }

    #[test]
    fn mirrors_add_up_and_off_stands_alone() {
        assert_eq!(conf("mirror /a; mirror /b;").mirror.to.paths, ["/a", "/b"]);
        assert!(conf("mirror off;").mirror.to.paths.is_empty());
        for text in ["mirror /a; mirror off;", "mirror off; mirror /a;", "mirror off; mirror off;"] {
            assert_eq!(fault(text), "\"mirror\" directive is duplicate", "{text}");
        }
    }
}
