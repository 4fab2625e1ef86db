//! The settings of every request: where files are, how long to wait, how much to take, how to redirect.

mod place;
mod symlinks;
mod timing;
mod types;
mod values;
mod variables;

pub use place::{Alias, Place};
pub use symlinks::DisableSymlinks;
pub use timing::{Browsers, KeepaliveTimeout};
pub use types::Types;
pub use values::{Buffers, IfModifiedSince, InFileOnly, Lingering, Satisfy, ServerTokens};
pub use variables::{argument, basic_credentials, by_variable_name, decode_base64, number, put, request_id, request_length, request_port};

use super::Room;
use crate::{
    config::{
        Contexts, Directive, HTTP, LEVELS, LEVELS_IF, LOCATION, Module, SERVER, Scope,
        values::{Given, Mask, Msec, Offset, Size, TempPath},
    },
    http::{
        template::{AnyOf, SizeTemplate},
        variables::{Prefixed, Variable},
    },
    syntax::Fault,
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Conf {
    pub place: Place,
    pub types: Types,
    pub default_type: Bytes,
    pub disable_symlinks: DisableSymlinks,
    pub internal: Given,
    pub satisfy: Satisfy,
    // the request
    pub client_header_timeout: Msec,
    pub client_header_buffer_size: Size,
    pub large_client_header_buffers: Buffers,
    pub max_headers: usize,
    pub ignore_invalid_headers: bool,
    pub underscores_in_headers: bool,
    pub merge_slashes: bool,
    pub client_max_body_size: Offset,
    pub client_body_buffer_size: Size,
    pub client_body_timeout: Msec,
    pub client_body_temp_path: Option<TempPath>,
    pub client_body_in_file_only: InFileOnly,
    pub client_body_early_read: AnyOf,
    // the connection
    pub send_timeout: Msec,
    pub keepalive_timeout: KeepaliveTimeout,
    pub keepalive_min_timeout: Msec,
    pub keepalive_requests: usize,
    pub keepalive_time: Msec,
    pub keepalive_disable: Mask<Browsers>,
    pub lingering_close: Lingering,
    pub lingering_time: Msec,
    pub lingering_timeout: Msec,
    pub reset_timedout_connection: bool,
    // the answer
    pub server_tokens: ServerTokens,
    pub absolute_redirect: bool,
    pub port_in_redirect: bool,
    pub server_name_in_redirect: bool,
    pub if_modified_since: IfModifiedSince,
    pub etag: bool,
    pub max_ranges: Option<usize>,
    pub chunked_transfer_encoding: bool,
    pub limit_rate: Option<SizeTemplate>,
    pub limit_rate_after: Option<SizeTemplate>,
    pub msie_padding: bool,
    pub msie_refresh: bool,
    pub log_not_found: bool,
    pub log_subrequest: bool,
    pub subrequest_output_buffer_size: Size,
    pub postpone_output: Size,
    /// Files go to sockets without being read.
    pub sendfile: bool,
    pub early_hints: AnyOf,
    /// A path or a named location that is gone through behind an answer.
    pub post_action: Option<Bytes>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            place: Place::default(),
            types: Types::default(),
            default_type: Bytes::from_static(b"text/plain"),
            disable_symlinks: DisableSymlinks::default(),
            internal: Given(false),
            satisfy: Satisfy::All,
            client_header_timeout: Msec::seconds(60),
            client_header_buffer_size: Size(1024),
            large_client_header_buffers: Buffers { count: 4, size: 8192 },
            max_headers: 1000,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            merge_slashes: true,
            client_max_body_size: Offset(1 << 20),
            client_body_buffer_size: Size(16 << 10),
            client_body_timeout: Msec::seconds(60),
            client_body_temp_path: None,
            client_body_in_file_only: InFileOnly::Off,
            client_body_early_read: AnyOf::default(),
            send_timeout: Msec::seconds(60),
            keepalive_timeout: KeepaliveTimeout::default(),
            keepalive_min_timeout: Msec::seconds(0),
            keepalive_requests: 1000,
            keepalive_time: Msec::seconds(3600),
            keepalive_disable: Mask::default(),
            lingering_close: Lingering::On,
            lingering_time: Msec::seconds(30),
            lingering_timeout: Msec::seconds(5),
            reset_timedout_connection: false,
            server_tokens: ServerTokens::On,
            absolute_redirect: true,
            port_in_redirect: true,
            server_name_in_redirect: false,
            if_modified_since: IfModifiedSince::Exact,
            etag: true,
            max_ranges: None,
            chunked_transfer_encoding: true,
            limit_rate: None,
            limit_rate_after: None,
            msie_padding: true,
            msie_refresh: false,
            log_not_found: true,
            log_subrequest: false,
            subrequest_output_buffer_size: Size(4096),
            postpone_output: Size(1460),
            sendfile: false,
            early_hints: AnyOf::default(),
            post_action: None,
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("root", LEVELS_IF, |conf| conf.place.slot()),
        Directive::new("alias", LOCATION, |conf| conf.place.slot()),
        Directive::new("types", LEVELS, |conf| &mut conf.types),
        Directive::new("default_type", LEVELS, |conf| &mut conf.default_type),
        Directive::new("disable_symlinks", LEVELS, |conf| &mut conf.disable_symlinks),
        Directive::new("internal", LOCATION, |conf| &mut conf.internal),
        Directive::new("satisfy", LEVELS, |conf| &mut conf.satisfy),
        Directive::new("client_header_timeout", HTTP.or(SERVER), |conf| &mut conf.client_header_timeout),
        Directive::new("client_header_buffer_size", HTTP.or(SERVER), |conf| &mut conf.client_header_buffer_size),
        Directive::new("large_client_header_buffers", HTTP.or(SERVER), |conf| &mut conf.large_client_header_buffers),
        Directive::new("max_headers", HTTP.or(SERVER), |conf| &mut conf.max_headers),
        Directive::new("ignore_invalid_headers", HTTP.or(SERVER), |conf| &mut conf.ignore_invalid_headers),
        Directive::new("underscores_in_headers", HTTP.or(SERVER), |conf| &mut conf.underscores_in_headers),
        Directive::new("merge_slashes", HTTP.or(SERVER), |conf| &mut conf.merge_slashes),
        Directive::new("client_max_body_size", LEVELS, |conf| &mut conf.client_max_body_size),
        Directive::new("client_body_buffer_size", LEVELS, |conf| &mut conf.client_body_buffer_size),
        Directive::new("client_body_timeout", LEVELS, |conf| &mut conf.client_body_timeout),
        Directive::new("client_body_temp_path", LEVELS, |conf| &mut conf.client_body_temp_path),
        Directive::new("client_body_in_file_only", LEVELS, |conf| &mut conf.client_body_in_file_only),
        Directive::new("client_body_early_read", HTTP.or(SERVER), |conf| &mut conf.client_body_early_read),
        Directive::new("send_timeout", LEVELS, |conf| &mut conf.send_timeout),
        Directive::new("keepalive_timeout", LEVELS, |conf| &mut conf.keepalive_timeout),
        Directive::new("keepalive_min_timeout", LEVELS, |conf| &mut conf.keepalive_min_timeout),
        Directive::new("keepalive_requests", LEVELS, |conf| &mut conf.keepalive_requests),
        Directive::new("keepalive_time", LEVELS, |conf| &mut conf.keepalive_time),
        Directive::new("keepalive_disable", LEVELS, |conf| &mut conf.keepalive_disable),
        Directive::new("lingering_close", LEVELS, |conf| &mut conf.lingering_close),
        Directive::new("lingering_time", LEVELS, |conf| &mut conf.lingering_time),
        Directive::new("lingering_timeout", LEVELS, |conf| &mut conf.lingering_timeout),
        Directive::new("reset_timedout_connection", LEVELS, |conf| &mut conf.reset_timedout_connection),
        Directive::new("server_tokens", LEVELS, |conf| &mut conf.server_tokens),
        Directive::new("absolute_redirect", LEVELS, |conf| &mut conf.absolute_redirect),
        Directive::new("port_in_redirect", LEVELS, |conf| &mut conf.port_in_redirect),
        Directive::new("server_name_in_redirect", LEVELS, |conf| &mut conf.server_name_in_redirect),
        Directive::new("if_modified_since", LEVELS, |conf| &mut conf.if_modified_since),
        Directive::new("etag", LEVELS, |conf| &mut conf.etag),
        Directive::new("max_ranges", LEVELS, |conf| &mut conf.max_ranges),
        Directive::new("sendfile", LEVELS_IF, |conf| &mut conf.sendfile),
        Directive::new("chunked_transfer_encoding", LEVELS, |conf| &mut conf.chunked_transfer_encoding),
        Directive::new("limit_rate", LEVELS_IF, |conf| &mut conf.limit_rate),
        Directive::new("limit_rate_after", LEVELS_IF, |conf| &mut conf.limit_rate_after),
        Directive::new("msie_padding", LEVELS, |conf| &mut conf.msie_padding),
        Directive::new("msie_refresh", LEVELS, |conf| &mut conf.msie_refresh),
        Directive::new("log_not_found", LEVELS, |conf| &mut conf.log_not_found),
        Directive::new("log_subrequest", LEVELS, |conf| &mut conf.log_subrequest),
        Directive::new("subrequest_output_buffer_size", LEVELS, |conf| &mut conf.subrequest_output_buffer_size),
        Directive::new("postpone_output", LEVELS, |conf| &mut conf.postpone_output),
        Directive::new("early_hints", LEVELS, |conf| &mut conf.early_hints),
        Directive::new("post_action", LEVELS_IF, |conf| &mut conf.post_action),
    ];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if this.internal.0 || this.place.here.is_some() {
            let this = Arc::make_mut(this);
            this.place.enter();
            this.internal = Given(false);
        }
    }

    fn settle(&mut self, scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        self.place.settle(scope);
        Ok(())
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = variables::VARIABLES;
    const FAMILIES: &'static [Prefixed] = variables::FAMILIES;
    type State = State;
}

/// What core remembers about a request.
#[derive(Debug, Default)]
pub struct State {
    /// `$limit_rate`, when `set` or an upstream changed it.
    pub limit_rate: Option<u64>,
    /// `$request_id`, once it was asked for.
    pub request_id: std::cell::OnceCell<[u8; 32]>,
}
