//! `ssi`: carries out the directives in the text of an answer: `<!--#include virtual="/path" -->` and their like.

mod command;
mod condition;
mod page;
mod parse;
mod text;

#[cfg(test)]
mod tests;

pub use condition::split as split_condition;
pub use page::SsiBody;
pub use parse::{Parser, Token};
pub use text::split as split_text;

use super::Room;
use crate::{
    config::{Directive, LEVELS, LEVELS_IF, Module, values::Size},
    http::{
        body::Body,
        content::Content,
        exchange::Exchange,
        media_types::MediaTypes,
        response::{self, Response},
        strftime::{Moment, strftime},
        variables::Variable,
    },
};
use bytes::Bytes;
use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
};

/// The format of dates until `timefmt` says another.
const TIME_FORMAT: &[u8] = b"%A, %d-%b-%Y %H:%M:%S %Z";

/// A date is shorter than this (`NGX_HTTP_SSI_DATE_LEN`).
const DATE_LENGTH: usize = 2048;

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    /// Errors leave nothing in the page.
    pub silent_errors: bool,
    /// Said for nginx's buffers, of which there are none here.
    pub ignore_recycled_buffers: bool,
    /// Likewise: what of a file is sent by the system itself.
    pub min_file_chunk: Size,
    /// The longest value of a parameter.
    pub value_length: Size,
    pub types: MediaTypes,
    /// The answer keeps its date, and its tag as a weak one.
    pub last_modified: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            enabled: false,
            silent_errors: false,
            ignore_recycled_buffers: false,
            min_file_chunk: Size(1024),
            value_length: Size(255),
            types: MediaTypes::of(&["text/html"]),
            last_modified: false,
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("ssi", LEVELS_IF, |conf| &mut conf.enabled),
        Directive::new("ssi_silent_errors", LEVELS, |conf| &mut conf.silent_errors),
        Directive::new("ssi_ignore_recycled_buffers", LEVELS, |conf| &mut conf.ignore_recycled_buffers),
        Directive::new("ssi_min_file_chunk", LEVELS, |conf| &mut conf.min_file_chunk),
        Directive::new("ssi_value_length", LEVELS, |conf| &mut conf.value_length),
        Directive::new("ssi_types", LEVELS, |conf| &mut conf.types),
        Directive::new("ssi_last_modified", LEVELS, |conf| &mut conf.last_modified),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("date_local", |exchange, out| date(exchange, Moment::local, out)),
        Variable::new("date_gmt", |exchange, out| date(exchange, Moment::utc, out)),
    ];
    type State = State;
}

/// Has the directives of an answer carried out, if it is of a type for that (`ngx_http_ssi_header_filter`).
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.ssi;
    if !conf.enabled
        || response.content_length == Some(0)
        || !conf.types.contains(response.content_type.as_deref().unwrap_or_default())
    {
        return;
    }
    let doing = doing(exchange, response);
    let main = exchange.depth == 0;
    if main {
        response.forget_length();
        response.rewritten(conf.last_modified);
    }
    exchange.state.ssi.begin();
    if main && response.bodyless(exchange) {
        return;
    }
    let mut page = exchange.twin();
    page.sent.status = response.status;
    page.sent.text = response::preview(exchange, response);
    let inner = std::mem::take(&mut response.body);
    response.body = Body::Ssi(Box::new(SsiBody::new(inner, page, response.content_type.clone(), doing)));
}

/// What nginx says it is doing when it logs something about the body of an answer.
pub fn doing(exchange: &Exchange, response: &Response) -> &'static str {
    match exchange.location.content {
        Content::Files if response.last_modified.is_some() => " while sending response to client",
        content if content.redirects_slash() => " while reading upstream",
        _ => "",
    }
}

/// `$date_local`, `$date_gmt`: now, as `timefmt` says (`ngx_http_ssi_date_gmt_local_variable`).
fn date(exchange: &Exchange, moment: fn(i64) -> Moment, out: &mut Vec<u8>) -> bool {
    let now = i64::try_from(exchange.connection.worker.clock.now().as_secs()).unwrap_or(i64::MAX);
    let own = exchange.state.ssi.own.get().and_then(|own| own.borrow().clone());
    let text = match own.as_deref().unwrap_or(TIME_FORMAT) {
        // The same for both.
        b"%s" => now.to_string().into_bytes(),
        format => strftime(format, &moment(now)),
    };
    out.extend_from_slice(&text);
    !text.is_empty() && text.len() < DATE_LENGTH
}

/// What is remembered about a request and its pages.
#[derive(Default)]
pub struct State {
    common: OnceCell<Rc<RefCell<Common>>>,
    /// `timefmt`, once a page is being made of the answer.
    own: OnceCell<Rc<RefCell<Option<Bytes>>>>,
}

/// What the pages of a request and of its subrequests have in common.
#[derive(Default)]
struct Common {
    /// By names in lower case.
    variables: Vec<(Vec<u8>, Bytes)>,
    /// Texts to stand in for others.
    blocks: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the last expression that matched has captured, the whole first.
    groups: Vec<Bytes>,
}

impl State {
    /// For a subrequest.
    #[must_use]
    pub fn below(&self) -> Self {
        Self { common: Rc::clone(self.common()).into(), own: OnceCell::new() }
    }

    /// For what is made of the same request's answer.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { common: Rc::clone(self.common()).into(), own: self.own.clone() }
    }

    fn begin(&self) {
        self.own.get_or_init(Rc::default);
    }

    fn set_timefmt(&self, format: Bytes) {
        *self.own.get_or_init(Rc::default).borrow_mut() = Some(format);
    }

    fn common(&self) -> &Rc<RefCell<Common>> {
        self.common.get_or_init(Rc::default)
    }
}
