//! How a phase ends: the request goes on, or something else happens to it.

use super::response::Response;
use bytes::Bytes;
use std::ops::ControlFlow;

/// `Continue` is nginx's `NGX_DECLINED`: the next one in the page has its turn.
pub type Phase = ControlFlow<Break>;

/// What ends the row of phases.
#[derive(Debug)]
pub enum Break {
    /// This is the answer.
    Answer(Box<Response>),
    /// This status; `error_page` has its say, then a built-in page.
    Status(u16),
    /// Start again with another path.
    Redirect(Redirect),
    /// Close the connection without a word (`return 444`).
    Close,
}

/// Where an internal redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// A path and its arguments; `None` keeps nothing.
    Path { path: Bytes, args: Bytes },
    /// A named location, `@` included; path and arguments stay.
    Named(Bytes),
}

impl From<Response> for Break {
    fn from(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }
}

/// Ends the phases with an answer.
pub fn answer(response: Response) -> Phase {
    Phase::Break(response.into())
}

/// Ends the phases with a status.
pub fn status(status: u16) -> Phase {
    Phase::Break(Break::Status(status))
}
