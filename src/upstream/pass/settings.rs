//! The settings that `proxy_`, `uwsgi_` and their kin share: declared once by suffix, registered under
//! each room's prefix.

use super::super::{
    failure::cases,
    local::{Bind, Options},
    spool::Bounds,
};
use crate::{
    config::{
        Args, Contexts, Directive, FromArgs, HTTP, LEVELS, Leveled, List, Scope,
        values::{Access, Choices, Mask, Msec, Size, TempPath},
    },
    http::{
        exchange::Exchange,
        modules::core::Buffers,
        template::{SizeTemplate, Template},
    },
    syntax::Fault,
};
use bytes::Bytes;
use std::sync::Arc;

/// How requests are passed on.
#[derive(Clone, Debug)]
pub struct Passing {
    pub connect_timeout: Msec,
    pub send_timeout: Msec,
    pub read_timeout: Msec,
    pub next_upstream: Mask<Next>,
    /// 0 is no limit.
    pub next_upstream_tries: usize,
    /// Zero is no limit.
    pub next_upstream_timeout: Msec,
    /// Bounds the head of an answer.
    pub buffer_size: Size,
    pub buffering: bool,
    pub buffers: Buffers,
    pub busy_buffers_size: Option<Size>,
    pub max_temp_file_size: Option<Size>,
    pub temp_file_write_size: Option<Size>,
    pub temp_path: Option<TempPath>,
    /// How much of an answer is kept where, which follows from the five above.
    pub bounds: Option<Arc<Bounds>>,
    pub store: Leveled<Store>,
    pub store_access: Access,
    /// Fields behind the body of an answer go on to the client.
    pub pass_trailers: bool,
    pub request_buffering: bool,
    pub intercept_errors: bool,
    pub hide_header: List<Bytes>,
    pub pass_header: List<Bytes>,
    pub ignore_headers: Mask<Steering>,
    pub pass_request_headers: bool,
    pub pass_request_body: bool,
    pub socket_keepalive: bool,
    /// Bytes; 0 leaves it to the kernel.
    pub socket_rcvbuf: Size,
    /// Bytes; 0 leaves it to the kernel.
    pub socket_sndbuf: Size,
    pub bind: Bind,
    /// Bytes a second that are read of an answer, where it is buffered; 0 is no limit.
    pub limit_rate: Option<SizeTemplate>,
    /// The request goes on though its client has left.
    pub ignore_client_abort: bool,
    /// Ranges of an answer are served whether or not its upstream serves them.
    pub force_ranges: bool,
}

impl Default for Passing {
    fn default() -> Self {
        Self {
            connect_timeout: Msec::seconds(60),
            send_timeout: Msec::seconds(60),
            read_timeout: Msec::seconds(60),
            next_upstream: Mask::default(),
            next_upstream_tries: 0,
            next_upstream_timeout: Msec::seconds(0),
            buffer_size: Size(4096),
            buffering: true,
            buffers: Buffers { count: 8, size: 4096 },
            busy_buffers_size: None,
            max_temp_file_size: None,
            temp_file_write_size: None,
            temp_path: None,
            bounds: None,
            store: Leveled::default(),
            store_access: Access::default(),
            pass_trailers: false,
            request_buffering: true,
            intercept_errors: false,
            hide_header: List::default(),
            pass_header: List::default(),
            ignore_headers: Mask::default(),
            pass_request_headers: true,
            pass_request_body: true,
            socket_keepalive: false,
            socket_rcvbuf: Size(0),
            socket_sndbuf: Size(0),
            bind: Bind::Off,
            limit_rate: None,
            ignore_client_abort: false,
            force_ranges: false,
        }
    }
}

impl Passing {
    /// Settles how much is kept where, if the sizes of a level go together; `prefix` is that of the room.
    ///
    /// # Errors
    /// nginx's fault (`ngx_http_proxy_merge_loc_conf` and its kin).
    pub fn settle(&mut self, prefix: &str, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        // nginx settles what a server or a location has, not what http says for them.
        if level == HTTP {
            return Ok(());
        }
        let Buffers { count, size: each } = self.buffers;
        let size = self.buffer_size.0.max(each);
        let most = format!("the maximum of the value of \"{prefix}_buffer_size\" and one of the \"{prefix}_buffers\"");
        let busy = self.busy_buffers_size.map_or(2 * size, |busy| busy.0);
        let text = if count < 2 {
            format!("there must be at least 2 \"{prefix}_buffers\"")
        } else if busy < size {
            format!("\"{prefix}_busy_buffers_size\" must be equal to or greater than {most}")
        } else if busy > (count - 1).saturating_mul(each) {
            let all = format!("the size of all \"{prefix}_buffers\" minus one buffer");
            format!("\"{prefix}_busy_buffers_size\" must be less than {all}")
        } else if self.temp_file_write_size.is_some_and(|write| write.0 < size) {
            format!("\"{prefix}_temp_file_write_size\" must be equal to or greater than {most}")
        } else if self.max_temp_file_size.is_some_and(|file| file.0 != 0 && file.0 < size) {
            let or = "to disable temporary files usage or must be equal to or greater than";
            format!("\"{prefix}_max_temp_file_size\" must be equal to zero {or} {most}")
        } else {
            let folder = self.temp_path.get_or_insert_with(|| TempPath::built_in(prefix, scope)).clone();
            let bounds = Bounds {
                piece: each,
                memory: count.saturating_mul(each),
                file: self.max_temp_file_size.map_or(1 << 30, |file| file.0 as u64),
                write: self.temp_file_write_size.map_or(2 * size, |write| write.0),
                aside: false,
                folder,
            };
            if self.bounds.as_deref() != Some(&bounds) {
                self.bounds = Some(Arc::new(bounds));
            }
            return Ok(());
        };
        Err(scope.settling(text))
    }

    /// How this request's connections are opened.
    pub fn connecting(&self, exchange: &Exchange) -> Options {
        Options {
            timeout: self.connect_timeout.0,
            keepalive: self.socket_keepalive,
            receive_buffer: self.socket_rcvbuf.0,
            send_buffer: self.socket_sndbuf.0,
            local: self.bind.of(exchange),
        }
    }
}

/// The rows, by suffix.
pub const DIRECTIVES: &[Directive<Passing>] = &[
    Directive::new("_connect_timeout", LEVELS, |passing: &mut Passing| &mut passing.connect_timeout),
    Directive::new("_send_timeout", LEVELS, |passing| &mut passing.send_timeout),
    Directive::new("_read_timeout", LEVELS, |passing| &mut passing.read_timeout),
    Directive::new("_next_upstream", LEVELS, |passing| &mut passing.next_upstream),
    Directive::new("_next_upstream_tries", LEVELS, |passing| &mut passing.next_upstream_tries),
    Directive::new("_next_upstream_timeout", LEVELS, |passing| &mut passing.next_upstream_timeout),
    Directive::new("_buffer_size", LEVELS, |passing| &mut passing.buffer_size),
    Directive::new("_buffering", LEVELS, |passing| &mut passing.buffering),
    Directive::new("_buffers", LEVELS, |passing| &mut passing.buffers),
    Directive::new("_busy_buffers_size", LEVELS, |passing| &mut passing.busy_buffers_size),
    Directive::new("_max_temp_file_size", LEVELS, |passing| &mut passing.max_temp_file_size),
    Directive::new("_temp_file_write_size", LEVELS, |passing| &mut passing.temp_file_write_size),
    Directive::new("_temp_path", LEVELS, |passing| &mut passing.temp_path),
    Directive::new("_store", LEVELS, |passing| &mut passing.store),
    Directive::new("_store_access", LEVELS, |passing| &mut passing.store_access),
    Directive::new("_request_buffering", LEVELS, |passing| &mut passing.request_buffering),
    Directive::new("_intercept_errors", LEVELS, |passing| &mut passing.intercept_errors),
    Directive::new("_hide_header", LEVELS, |passing| &mut passing.hide_header),
    Directive::new("_pass_header", LEVELS, |passing| &mut passing.pass_header),
    Directive::new("_ignore_headers", LEVELS, |passing| &mut passing.ignore_headers),
    Directive::new("_pass_request_headers", LEVELS, |passing| &mut passing.pass_request_headers),
    Directive::new("_pass_request_body", LEVELS, |passing| &mut passing.pass_request_body),
    Directive::new("_socket_keepalive", LEVELS, |passing| &mut passing.socket_keepalive),
    Directive::new("_socket_rcvbuf", LEVELS, |passing| &mut passing.socket_rcvbuf),
    Directive::new("_socket_sndbuf", LEVELS, |passing| &mut passing.socket_sndbuf),
    Directive::new("_bind", LEVELS, |passing| &mut passing.bind),
    Directive::new("_limit_rate", LEVELS, |passing| &mut passing.limit_rate),
    Directive::new("_ignore_client_abort", LEVELS, |passing| &mut passing.ignore_client_abort),
    Directive::new("_force_ranges", LEVELS, |passing| &mut passing.force_ranges),
];

/// `_store`: whether answers are kept as files, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Store {
    #[default]
    Off,
    /// Where `root` or `alias` would look for them.
    Place,
    Path(Template),
}

impl FromArgs for Store {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        match &word.value[..] {
            b"off" => Ok(Self::Off),
            b"on" => Ok(Self::Place),
            b"" => Err(Fault::at(word.span, "empty path")),
            _ => Template::compile(word, args.scope).map(Self::Path),
        }
    }
}

/// The cases of `_next_upstream` and `_cache_use_stale`, by their words.
pub const CASES: &[(&str, u32)] = &[
    ("error", cases::ERROR),
    ("timeout", cases::TIMEOUT),
    ("invalid_header", cases::INVALID_HEADER),
    ("non_idempotent", cases::NON_IDEMPOTENT),
    ("http_500", cases::HTTP_500),
    ("http_502", cases::HTTP_502),
    ("http_503", cases::HTTP_503),
    ("http_504", cases::HTTP_504),
    ("http_403", cases::HTTP_403),
    ("http_404", cases::HTTP_404),
    ("http_429", cases::HTTP_429),
    ("updating", cases::UPDATING),
    ("off", cases::OFF),
];

/// `_next_upstream`: the cases in which another peer is asked.
pub struct Next;

impl Choices for Next {
    const CHOICES: &'static [(&'static str, u32)] = CASES;
    const DEFAULT: u32 = cases::ERROR | cases::TIMEOUT;
    const OFF: u32 = cases::OFF;
}

/// `_ignore_headers`: fields of an answer that steer nothing.
pub struct Steering;

impl Steering {
    pub const REDIRECT: u32 = 1;
    pub const EXPIRES: u32 = 2;
    pub const X_EXPIRES: u32 = 4;
    pub const CACHE_CONTROL: u32 = 8;
    pub const SET_COOKIE: u32 = 16;
    pub const LIMIT_RATE: u32 = 32;
    pub const BUFFERING: u32 = 64;
    pub const CHARSET: u32 = 128;
    pub const VARY: u32 = 256;
}

impl Choices for Steering {
    const CHOICES: &'static [(&'static str, u32)] = &[
        ("X-Accel-Redirect", Self::REDIRECT),
        ("X-Accel-Expires", Self::X_EXPIRES),
        ("X-Accel-Limit-Rate", Self::LIMIT_RATE),
        ("X-Accel-Buffering", Self::BUFFERING),
        ("X-Accel-Charset", Self::CHARSET),
        ("Expires", Self::EXPIRES),
        ("Cache-Control", Self::CACHE_CONTROL),
        ("Set-Cookie", Self::SET_COOKIE),
        ("Vary", Self::VARY),
    ];
    const DEFAULT: u32 = 0;
}
