//! Who answers in a location: the content handlers, a closed set.

use super::{
    exchange::Exchange,
    files,
    modules::{Settings, autoindex, dav, empty_gif, gzip_static, index, proxy, random_index, static_files, stub_status, uwsgi},
    phase::{Break, Phase},
};
use crate::observe::error_log::Level;

/// The content handler of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `index`, then `autoindex`, then files.
    Files,
    Proxy,
    Uwsgi,
    StubStatus,
    EmptyGif,
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
        } else if settings.empty_gif.enabled.0 {
            Self::EmptyGif
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
        Content::EmptyGif => empty_gif::content(exchange).await,
        Content::Files => {
            random_index::content(exchange).await?;
            index::content(exchange).await?;
            autoindex::content(exchange).await?;
            dav::content(exchange).await?;
            gzip_static::content(exchange).await?;
            static_files::content(exchange).await?;
            Phase::Break(Break::Status(nobody(exchange)))
        }
    }
}

/// The status where no handler wants the request (`ngx_http_core_content_phase`).
fn nobody(exchange: &Exchange) -> u16 {
    if !exchange.path.ends_with(b"/") {
        return 404;
    }
    if let Some(path) = files::path(exchange, &exchange.path) {
        let text = format!("directory index of \"{}\" is forbidden", String::from_utf8_lossy(&path));
        exchange.log(Level::Err, &text);
    }
    403
}
