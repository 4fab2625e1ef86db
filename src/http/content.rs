//! Who answers in a location: the content handlers, a closed set.

use super::{
    exchange::Exchange,
    files,
    modules::{
        Settings, api, autoindex, brotli, dashboard, dav, empty_gif, fastcgi, gzip_static, index, memcached, metrics,
        proxy, random_index, scgi, static_files, stub_status, tunnel, upstream_register, uwsgi, zstd,
    },
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
    Fastcgi,
    Scgi,
    Memcached,
    StubStatus,
    Api,
    UpstreamRegister,
    Tunnel,
    Dashboard,
    Metrics,
    EmptyGif,
}

impl Content {
    /// The handler that a location's settings ask for.
    pub fn of(settings: &Settings) -> Self {
        if settings.proxy.pass.is_some() {
            Self::Proxy
        } else if settings.uwsgi.pass.is_some() {
            Self::Uwsgi
        } else if settings.fastcgi.pass.is_some() {
            Self::Fastcgi
        } else if settings.scgi.pass.is_some() {
            Self::Scgi
        } else if settings.memcached.pass.is_some() {
            Self::Memcached
        } else if settings.tunnel.pass.is_some() {
            Self::Tunnel
        } else if settings.stub_status.enabled.0 {
            Self::StubStatus
        } else if settings.api.api.is_some() {
            Self::Api
        } else if settings.upstream_register.register.is_some() {
            Self::UpstreamRegister
        } else if settings.dashboard.page.is_some() {
            Self::Dashboard
        } else if settings.metrics.enabled.0 {
            Self::Metrics
        } else if settings.empty_gif.enabled.0 {
            Self::EmptyGif
        } else {
            Self::Files
        }
    }

    /// Whether a location `/name/` with this handler sends `/name` to itself.
    pub fn redirects_slash(self) -> bool {
        matches!(self, Self::Proxy | Self::Uwsgi | Self::Fastcgi | Self::Scgi | Self::Memcached)
    }
}

/// The content phase.
pub async fn answer(exchange: &mut Exchange) -> Phase {
    match exchange.location.content {
        Content::Proxy => proxy::content(exchange).await,
        Content::Uwsgi => uwsgi::content(exchange).await,
        Content::Fastcgi => fastcgi::content(exchange).await,
        Content::Scgi => scgi::content(exchange).await,
        Content::Memcached => memcached::content(exchange).await,
        Content::Tunnel => tunnel::content(exchange).await,
        Content::StubStatus => stub_status::content(exchange).await,
        Content::Api => Box::pin(api::content(exchange)).await,
        Content::UpstreamRegister => upstream_register::content(exchange).await,
        Content::Dashboard => dashboard::content(exchange).await,
        Content::Metrics => Box::pin(metrics::content(exchange)).await,
        Content::EmptyGif => empty_gif::content(exchange).await,
        Content::Files => {
            random_index::content(exchange).await?;
            index::content(exchange).await?;
            autoindex::content(exchange).await?;
            dav::content(exchange).await?;
            brotli::content(exchange).await?;
            zstd::content(exchange).await?;
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
