//! `sticky`: requests that belong together go to the same peer (`ngx_http_upstream_sticky_module`).

mod sessions;

pub use sessions::{Lesson, Sessions};

use crate::{
    config::Handle,
    http::{dates::cookie_time, exchange::Exchange, template::Template},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// How a request's peer is known.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The first of these that has a value names the peer, or with `learn` the session.
    pub lookup: Vec<Handle>,
    pub kind: Kind,
}

/// The three kinds of `sticky`.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `cookie`: we set one.
    Cookie(Cookie),
    /// `route`: the application names its route itself.
    Route,
    /// `learn`: what the application names its sessions is remembered.
    Learn(Learn),
}

/// The cookie of `sticky cookie`.
#[derive(Clone, Debug, Default)]
pub struct Cookie {
    pub name: Vec<u8>,
    pub domain: Option<Template>,
    pub path: Vec<u8>,
    pub expires: Option<Expires>,
    pub httponly: bool,
    pub secure: bool,
    pub samesite: Option<Template>,
}

/// `expires=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// `max`.
    Max,
    /// After so many seconds.
    After(u64),
}

/// The parameters of `sticky learn`.
#[derive(Clone, Debug)]
pub struct Learn {
    /// The first of these that has a value names the session that begins.
    pub create: Vec<Handle>,
    /// `header`: a session begins when the head of the answer is here, not when all of it is.
    pub at_header: bool,
    pub sessions: Arc<Sessions>,
}

impl Sticky {
    /// What the request says of its peer or session; empty where it says nothing.
    pub fn of(&self, exchange: &Exchange) -> Bytes {
        first(exchange, &self.lookup)
    }

    /// Where sessions are remembered.
    pub fn sessions(&self) -> Option<&Arc<Sessions>> {
        match &self.kind {
            Kind::Learn(learn) => Some(&learn.sessions),
            Kind::Cookie(_) | Kind::Route => None,
        }
    }

    /// The `Set-Cookie` that leads back to a peer (`ngx_http_upstream_sticky_cookie_insert`).
    pub fn cookie(&self, exchange: &Exchange, sid: &[u8]) -> Option<Bytes> {
        match &self.kind {
            Kind::Cookie(cookie) => Some(cookie.spell(exchange, sid)),
            Kind::Route | Kind::Learn(_) => None,
        }
    }

    /// What an answer teaches of its session, if the peer serves it well (`ngx_http_upstream_sticky_learn_peer`).
    /// `known` is the session that the request named.
    pub fn lesson(&self, exchange: &Exchange, known: &Bytes) -> Option<Box<Lesson>> {
        let Kind::Learn(learn) = &self.kind else { return None };
        let created = first(exchange, &learn.create);
        let begins = !created.is_empty();
        let session = if begins { created } else { known.clone() };
        (!session.is_empty()).then(|| Box::new(Lesson::new(&learn.sessions, &session, begins, learn.at_header)))
    }
}

fn first(exchange: &Exchange, variables: &[Handle]) -> Bytes {
    let values = variables.iter().filter_map(|handle| exchange.variable_bytes(*handle));
    values.into_iter().find(|value| !value.is_empty()).unwrap_or_default()
}

impl Cookie {
    fn spell(&self, exchange: &Exchange, sid: &[u8]) -> Bytes {
        let mut out = [&self.name[..], b"=", sid].concat();
        match self.expires {
            None => {}
            Some(Expires::Max) => out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000"),
            Some(Expires::After(seconds)) => {
                let now = exchange.connection.worker.clock.now().as_secs();
                let then = i64::try_from(now.saturating_add(seconds)).unwrap_or(i64::MAX);
                let text = format!("; expires={}; max-age={seconds}", cookie_time(then));
                out.extend_from_slice(text.as_bytes());
            }
        }
        let domain = self.domain.as_ref().map(|domain| domain.evaluate(exchange)).unwrap_or_default();
        if !domain.is_empty() {
            out.extend_from_slice(b"; domain=");
            out.extend_from_slice(&domain);
        }
        if self.httponly {
            out.extend_from_slice(b"; httponly");
        }
        if self.secure {
            out.extend_from_slice(b"; secure");
        }
        let samesite = self.samesite.as_ref().map(|samesite| samesite.evaluate(exchange)).unwrap_or_default();
        if !samesite.is_empty() {
            out.extend_from_slice(b"; samesite=");
            out.extend_from_slice(if is_samesite(&samesite) { &samesite } else { b"strict" });
        }
        if !self.path.is_empty() {
            out.extend_from_slice(b"; path=");
            out.extend_from_slice(&self.path);
        }
        out.into()
    }
}

/// Whether a value of `samesite` is one.
pub fn is_samesite(value: &[u8]) -> bool {
    ["strict", "lax", "none"].iter().any(|known| known.as_bytes().eq_ignore_ascii_case(value))
}

/// `timeout=` of `learn` where none is written.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(600);
