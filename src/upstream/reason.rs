//! Why an attempt came to nothing, in one word: the same in `$upstream_failure_reason`, in logs, in the API, in metrics, and
//! behind `Proxy-Status`.

use super::{Failure, failure::cases};

/// The reasons. Their words are promises: scripts and alerts read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nobody listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// Its name is nobody's.
    Unresolved,
    /// TLS could not be agreed on.
    Tls,
    /// No connection in time.
    TimeoutConnect,
    /// No answer in time.
    TimeoutRead,
    /// It did not take the request in time.
    TimeoutWrite,
    /// A kept connection had died before it was used again.
    ResetOnReused,
    /// The connection broke.
    Reset,
    /// The connection ended before the answer did.
    ClosedEarly,
    /// The head of its answer is longer than `proxy_buffer_size`.
    HeaderTooBig,
    /// Its answer breaks the rules of the protocol.
    InvalidHeader,
    /// Its answer held what `fastcgi_catch_stderr` looks for.
    CaughtStderr,
    /// Nobody can be asked.
    NoLivePeers,
    /// The queue has no more places.
    QueueFull,
    /// The wait in the queue was too long.
    QueueTimeout,
    /// Our own end of the connection could not be set up (`proxy_bind`).
    Local,
    /// The client left, or its body did not come.
    Client,
    /// Another peer was asked because of the status.
    Http403,
    Http404,
    Http429,
    Http500,
    Http502,
    Http503,
    Http504,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 25] = [
        Self::Refused,
        Self::Unreachable,
        Self::Unresolved,
        Self::Tls,
        Self::TimeoutConnect,
        Self::TimeoutRead,
        Self::TimeoutWrite,
        Self::ResetOnReused,
        Self::Reset,
        Self::ClosedEarly,
        Self::HeaderTooBig,
        Self::InvalidHeader,
        Self::CaughtStderr,
        Self::NoLivePeers,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Local,
        Self::Client,
        Self::Http403,
        Self::Http404,
        Self::Http429,
        Self::Http500,
        Self::Http502,
        Self::Http503,
        Self::Http504,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
            Self::Tls => "tls",
            Self::TimeoutConnect => "timeout_connect",
            Self::TimeoutRead => "timeout_read",
            Self::TimeoutWrite => "timeout_write",
            Self::ResetOnReused => "reset_on_reused",
            Self::Reset => "reset",
            Self::ClosedEarly => "closed_early",
            Self::HeaderTooBig => "header_too_big",
            Self::InvalidHeader => "invalid_header",
            Self::CaughtStderr => "caught_stderr",
            Self::NoLivePeers => "no_live_peers",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Local => "local",
            Self::Client => "client",
            Self::Http403 => "http_403",
            Self::Http404 => "http_404",
            Self::Http429 => "http_429",
            Self::Http500 => "http_500",
            Self::Http502 => "http_502",
            Self::Http503 => "http_503",
            Self::Http504 => "http_504",
        }
    }

    /// Why an attempt failed; `reused` if it was over a kept connection.
    pub fn of(failure: &Failure, reused: bool) -> Self {
        match failure {
            Failure::Connect(_, error) => match error.raw_os_error() {
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => Self::Unreachable,
                Some(libc::ETIMEDOUT) => Self::TimeoutConnect,
                // So is a unix socket that is not there.
                _ => Self::Refused,
            },
            Failure::ConnectTimeout => Self::TimeoutConnect,
            Failure::Timeout => Self::TimeoutRead,
            Failure::SendTimeout => Self::TimeoutWrite,
            Failure::Io(..) | Failure::Closed if reused => Self::ResetOnReused,
            Failure::Io(..) => Self::Reset,
            Failure::Closed => Self::ClosedEarly,
            Failure::TooBig => Self::HeaderTooBig,
            Failure::Invalid(_) => Self::InvalidHeader,
            Failure::Caught => Self::CaughtStderr,
            Failure::Client(_) => Self::Client,
            Failure::Local(_) => Self::Local,
        }
    }

    /// Why the next peer is asked though this one answered: the case of `proxy_next_upstream`.
    pub fn of_case(case: u32) -> Option<Self> {
        Some(match case {
            cases::HTTP_403 => Self::Http403,
            cases::HTTP_404 => Self::Http404,
            cases::HTTP_429 => Self::Http429,
            cases::HTTP_500 => Self::Http500,
            cases::HTTP_502 => Self::Http502,
            cases::HTTP_503 => Self::Http503,
            cases::HTTP_504 => Self::Http504,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn every_reason_has_its_place_and_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn a_failure_has_one_reason() {
        let connect = |errno| Failure::Connect(String::new(), Error::from_raw_os_error(errno));
        for (failure, reused, word) in [
            (connect(libc::ECONNREFUSED), false, "refused"),
            (connect(libc::ENOENT), false, "refused"),
            (connect(libc::EHOSTUNREACH), false, "unreachable"),
            (Failure::ConnectTimeout, false, "timeout_connect"),
            (Failure::Timeout, false, "timeout_read"),
            (Failure::SendTimeout, false, "timeout_write"),
            (Failure::Closed, false, "closed_early"),
            (Failure::Closed, true, "reset_on_reused"),
            (Failure::Io("recv()", String::new()), false, "reset"),
            (Failure::Io("writev()", String::new()), true, "reset_on_reused"),
            (Failure::TooBig, true, "header_too_big"),
            (Failure::Invalid(String::new()), false, "invalid_header"),
        ] {
            assert_eq!(Reason::of(&failure, reused).word(), word, "{failure:?}");
        }
    }
}
