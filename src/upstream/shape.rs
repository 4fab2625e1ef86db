//! What is done to an upstream's body on its way: a rate it is kept to, a part that is cut out of it.

use crate::http::body::BodyError;
use bytes::{Buf, Bytes};
use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// A rate and a part, each of which may be none.
#[derive(Default)]
pub(super) struct Shape {
    /// `_limit_rate`, bytes a second.
    pub(super) rate: Option<u64>,
    /// Bytes to leave out at the beginning.
    skip: u64,
    /// Bytes to hand out behind that.
    part: Option<u64>,
    /// Bytes that were let through by the rate.
    through: u64,
    started: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What came before its time.
    held: Bytes,
}

impl Shape {
    pub(super) fn cut(&mut self, range: &Range<u64>) {
        self.skip = range.start;
        self.part = Some(range.end - range.start);
    }

    /// Something came that was not handed out.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All of the part was handed out.
    pub(super) fn is_spent(&self) -> bool {
        self.part == Some(0)
    }

    /// The next piece of what `source` gives. Behind the part it is read to its end, so that its connection can serve
    /// others.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            if self.held.is_empty() {
                match ready!(source(cx)) {
                    Some(Ok(piece)) => self.held = piece,
                    other => return Poll::Ready(other),
                }
            }
            let piece = self.paced();
            let piece = self.part_of(piece);
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }

    /// As much of what is held as the rate allows by now: like nginx's, each second's share at the second's beginning
    /// (`ngx_event_pipe_read_upstream`).
    fn paced(&mut self) -> Bytes {
        let Some(rate) = self.rate else { return std::mem::take(&mut self.held) };
        let started = *self.started.get_or_insert_with(Instant::now);
        let seconds = started.elapsed().as_secs();
        let allowed = rate.saturating_mul(seconds + 1).saturating_sub(self.through);
        if allowed == 0 {
            let due = started + Duration::from_secs(self.through / rate);
            self.sleep = Some(Box::pin(tokio::time::sleep_until(due)));
            return Bytes::new();
        }
        let piece = self.held.split_to(usize::try_from(allowed).unwrap_or(usize::MAX).min(self.held.len()));
        self.through += piece.len() as u64;
        piece
    }

    fn part_of(&mut self, mut piece: Bytes) -> Bytes {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        piece.advance(skipped);
        self.skip -= skipped as u64;
        if let Some(left) = &mut self.part {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn pieces(shape: &mut Shape, pieces: &[&'static str]) -> String {
        let mut source = pieces.iter();
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let next =
                |_: &mut Context<'_>| Poll::Ready(source.next().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
            match shape.poll_next(&mut cx, next) {
                Poll::Ready(Some(piece)) => out.push(String::from_utf8(piece.unwrap().to_vec()).unwrap()),
                Poll::Ready(None) => return out.join("|"),
                Poll::Pending => return out.join("|") + "|…",
            }
        }
    }

    #[test]
    fn a_part_is_cut_out_across_pieces() {
        for (range, expected) in [(0..9, "abc|def|ghi"), (1..2, "b"), (2..7, "c|def|g"), (8..9, "i"), (3..6, "def")] {
            let mut shape = Shape::default();
            shape.cut(&range);
            assert_eq!(pieces(&mut shape, &["abc", "def", "ghi"]), expected, "{range:?}");
            assert!(shape.is_spent());
        }
    }

    #[tokio::test]
    async fn a_rate_lets_one_seconds_share_through_and_holds_the_rest() {
        let mut shape = Shape { rate: Some(4), ..Shape::default() };
        assert_eq!(pieces(&mut shape, &["abc", "def"]), "abc|d|…");
        assert!(shape.holds());
    }
}
