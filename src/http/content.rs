//! Who answers in a location: the content handlers, a closed set.

use super::{
    exchange::Exchange,
    modules::{Settings, index, proxy, static_files, stub_status, uwsgi},
    phase::{Break, Phase},
};

/// The content handler of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `index`, then files.
    Files,
    Proxy,
    Uwsgi,
    StubStatus,
}

impl Content {
    /// The handler that a location's settings ask for.
    pub fn of(settings: &Settings) -> Self {
        if settings.proxy.pass.is_some() {
            Self::Proxy
        } else if settings.uwsgi.pass.is_some() {
            Self::Uwsgi
        } else if settings.stub_status.enabled.0 {
            Self::StubStatus
        } else {
            Self::Files
        }
    }

    /// Whether a location `/name/` with this handler sends `/name` to itself.
    pub fn redirects_slash(self) -> bool {
        matches!(self, Self::Proxy | Self::Uwsgi)
    }
}

/// The content phase.
pub async fn answer(exchange: &mut Exchange) -> Phase {
    match exchange.location.content {
        Content::Proxy => proxy::content(exchange).await,
        Content::Uwsgi => uwsgi::content(exchange).await,
        Content::StubStatus => stub_status::content(exchange).await,
        Content::Files => {
            index::content(exchange).await?;
            static_files::content(exchange).await?;
            Phase::Break(Break::Status(if exchange.path.ends_with(b"/") { 403 } else { 404 }))
        }
    }
}
