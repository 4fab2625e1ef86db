//! The writing half: the heads hyper writes are swallowed, and ours go out in their place.

use super::{
    side::{Meter, Outgoing},
    wire::Wire,
};
use bytes::Buf;
use memchr::memchr;
use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// What hyper writes in front of an answer's head when a body is read that was announced by `Expect`.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What hyper ends a body with in the chunked coding.
const END: &[u8] = b"0\r\n\r\n";

/// Slices handed to one write in which a head is swapped; what does not fit follows with the next.
const SLICES: usize = 16;

/// Where the writing of the message under way is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Swap {
    /// hyper's head comes next.
    Head,
    /// So much is left of hyper's `100 Continue`; it is written, or swallowed if it was sent before.
    Continue { left: usize, swallow: bool },
    /// So much of hyper's head stands in front and is to be swallowed.
    Swallow { left: usize },
    /// A head came in parts: so many bytes of the empty line at its end were seen.
    Seek { seen: u8 },
    /// Everything passes.
    #[default]
    Body,
    /// So much is left of hyper's end of the body, in whose place ours goes out.
    End { left: usize },
}

impl Swap {
    /// Writes what hyper wants written, `parts`, and says how much of it is dealt with. `true` with it when this was the
    /// end of hyper's head.
    pub(super) fn poll_write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        out: &Outgoing,
        meter: &Meter,
    ) -> Poll<io::Result<(usize, bool)>> {
        loop {
            let Some(first) = parts.iter().position(|part| !part.is_empty()) else {
                return Poll::Ready(Ok((0, false)));
            };
            let parts = &parts[first..];
            match *self {
                Self::Head => *self = Self::recognise(&parts[0], out),
                Self::Continue { left, swallow: true } => {
                    let n = left.min(parts[0].len());
                    *self = Self::after_continue(left - n, true);
                    return Poll::Ready(Ok((n, false)));
                }
                Self::Continue { left, swallow: false } => {
                    ready!(poll_queued(wire, cx, out, meter))?;
                    let n = left.min(parts[0].len());
                    let n = ready!(wire.poll_write(cx, &[IoSlice::new(&parts[0][..n])], meter))?;
                    *self = Self::after_continue(left - n, false);
                    return Poll::Ready(Ok((n, false)));
                }
                Self::Seek { seen } => {
                    let (n, seen) = seek(&parts[0], seen);
                    if seen < 4 {
                        *self = Self::Seek { seen };
                        return Poll::Ready(Ok((n, false)));
                    }
                    *self = Self::Swallow { left: n };
                }
                Self::Swallow { left } => {
                    let n = ready!(poll_swapped(wire, cx, left, parts, out, meter))?;
                    *self = Self::Body;
                    return Poll::Ready(Ok((n, true)));
                }
                Self::Body if let Some(end) = out.end.take() => {
                    out.queue(end.into());
                    *self = Self::End { left: END.len() };
                }
                Self::End { left } => {
                    ready!(poll_queued(wire, cx, out, meter))?;
                    let n = left.min(parts[0].len());
                    *self = if n < left { Self::End { left: left - n } } else { Self::Body };
                    return Poll::Ready(Ok((n, false)));
                }
                Self::Body => {
                    // Anything queued goes first; nobody queues behind a head, so this is what a full socket left over.
                    ready!(poll_queued(wire, cx, out, meter))?;
                    return wire.poll_write(cx, parts, meter).map_ok(|n| (n, false));
                }
            }
        }
    }

    /// What stands in front where a head is due.
    fn recognise(front: &[u8], out: &Outgoing) -> Self {
        if front.starts_with(CONTINUE) {
            return Self::Continue { left: CONTINUE.len(), swallow: out.continued.replace(true) };
        }
        let Some(head) = out.head.take() else {
            // hyper speaks for itself: nobody gave a head.
            out.head_written.set(true);
            return Self::Body;
        };
        out.queue(head);
        out.head_written.set(true);
        match seek(front, 0) {
            (n, 4) => Self::Swallow { left: n },
            _ => Self::Seek { seen: 0 },
        }
    }

    fn after_continue(left: usize, swallow: bool) -> Self {
        if left == 0 { Self::Head } else { Self::Continue { left, swallow } }
    }
}

/// Walks to the end of a head, of whose last four bytes `seen` have been seen. How far that was, and how many now.
fn seek(bytes: &[u8], mut seen: u8) -> (usize, u8) {
    let mut at = 0;
    while at < bytes.len() {
        if seen == 0 {
            match memchr(b'\r', &bytes[at..]) {
                Some(found) => at += found,
                None => return (bytes.len(), 0),
            }
        }
        seen = match (seen, bytes[at]) {
            (0 | 2, b'\r') | (1 | 3, b'\n') => seen + 1,
            (_, b'\r') => 1,
            _ => 0,
        };
        at += 1;
        if seen == 4 {
            break;
        }
    }
    (at, seen)
}

/// Writes what is queued, our head at its end, and `parts` without the first `skip` bytes in one go. Says how much of
/// `parts` is dealt with: all of `skip` at least, for what is left of the queue stays there.
fn poll_swapped<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    cx: &mut Context<'_>,
    skip: usize,
    parts: &[IoSlice<'_>],
    out: &Outgoing,
    meter: &Meter,
) -> Poll<io::Result<usize>> {
    let mut queued = out.queued.take();
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    let mut add = |slice| {
        if count < SLICES {
            slices[count] = slice;
            count += 1;
        }
    };
    if !queued.is_empty() {
        add(IoSlice::new(&queued));
    }
    if skip < parts[0].len() {
        add(IoSlice::new(&parts[0][skip..]));
    }
    parts[1..].iter().filter(|part| !part.is_empty()).for_each(|part| add(IoSlice::new(part)));
    if count == 0 {
        return Poll::Ready(Ok(skip));
    }
    match wire.poll_write(cx, &slices[..count], meter) {
        Poll::Ready(Ok(n)) => {
            let ours = n.min(queued.len());
            queued.advance(ours);
            out.queued.set(queued);
            Poll::Ready(Ok(skip + n - ours))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => {
            out.queued.set(queued);
            Poll::Pending
        }
    }
}

/// Writes what is queued, all of it.
pub(super) fn poll_queued<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    cx: &mut Context<'_>,
    out: &Outgoing,
    meter: &Meter,
) -> Poll<io::Result<()>> {
    let mut queued = out.queued.take();
    while !queued.is_empty() {
        match wire.poll_write(cx, &[IoSlice::new(&queued)], meter) {
            Poll::Ready(Ok(n)) => queued.advance(n),
            other => {
                out.queued.set(queued);
                return other.map_ok(|_| ());
            }
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::pin::Pin;
    use tokio::io::ReadBuf;

    /// A stream that takes few bytes at a time, and nothing every other time.
    struct Narrow {
        out: Vec<u8>,
        width: usize,
        vectored: bool,
        blocked: bool,
    }

    impl AsyncRead for Narrow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.blocked = !self.blocked;
            if self.blocked {
                return Poll::Pending;
            }
            let parts = if self.vectored { parts } else { &parts[..1] };
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).take(self.width).collect();
            self.out.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes `parts` as hyper would, through a stream of that width, with `head` in place of hyper's.
    fn write(parts: &[&[u8]], head: &'static str, width: usize, vectored: bool, continued: bool) -> String {
        let mut wire = Wire::new(Narrow { out: Vec::new(), width, vectored, blocked: false });
        let (out, meter, mut swap) = (Outgoing::default(), Meter::default(), Swap::Head);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        out.head.set(Some(Bytes::from_static(head.as_bytes())));
        out.continued.set(continued);
        let mut left: Vec<&[u8]> = parts.to_vec();
        let mut swaps = 0;
        while left.iter().any(|part| !part.is_empty()) {
            let slices: Vec<_> = left.iter().map(|part| IoSlice::new(part)).collect();
            if let Poll::Ready(result) = swap.poll_write(&mut wire, cx, &slices, &out, &meter) {
                let (mut n, swapped) = result.expect("written");
                assert!(n > 0, "hyper would take nothing for an error");
                swaps += usize::from(swapped);
                for part in &mut left {
                    let here = n.min(part.len());
                    *part = &part[here..];
                    n -= here;
                }
            }
        }
        while poll_queued(&mut wire, cx, &out, &meter).is_pending() {}
        assert_eq!((swaps, meter.sent()), (1, wire.stream_ref().out.len() as u64));
        String::from_utf8(wire.into_parts().0.out).expect("text")
    }

    #[test]
    fn a_head_is_swapped_however_it_is_written() {
        let theirs = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: \ry\r\n\r\n";
        let ours = "HTTP/1.1 200 Fine\r\nServer: us\r\n\r\n";
        for width in [1, 2, 5, 30, 40, 1000] {
            for vectored in [false, true] {
                let text = write(&[theirs, b"he", b"", b"llo"], ours, width, vectored, false);
                assert_eq!(text, format!("{ours}hello"));
                let text = write(&[&[&theirs[..], b"hello"].concat()], ours, width, vectored, false);
                assert_eq!(text, format!("{ours}hello"));
                assert_eq!(write(&[theirs], ours, width, vectored, false), ours);
                assert_eq!(write(&[theirs, b"all"], "", width, vectored, false), "all");
                for cut in 1..theirs.len() {
                    let text = write(&[&theirs[..cut], &theirs[cut..], b"hello"], ours, width, vectored, false);
                    assert_eq!(text, format!("{ours}hello"), "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn hypers_continue_passes_unless_it_was_sent() {
        let theirs = [CONTINUE, b"HTTP/1.1 200 OK\r\n\r\n", b"body"].concat();
        let expected = "HTTP/1.1 100 Continue\r\n\r\nours\r\n\r\nbody";
        for width in [1, 7, 26, 1000] {
            assert_eq!(write(&[&theirs], "ours\r\n\r\n", width, true, false), expected);
            assert_eq!(write(&[&theirs], "ours\r\n\r\n", width, true, true), &expected[25..]);
        }
    }

    #[test]
    fn the_end_of_a_body_is_swapped_however_it_is_written() {
        let ours = "0\r\nA: b\r\n\r\n";
        for width in [1, 3, 1000] {
            for parts in [&[&b"0\r\n\r\n"[..]][..], &[b"0\r\n", b"", b"\r\n"]] {
                let mut wire = Wire::new(Narrow { out: Vec::new(), width, vectored: true, blocked: false });
                let (out, meter, mut swap) = (Outgoing::default(), Meter::default(), Swap::Body);
                let cx = &mut Context::from_waker(std::task::Waker::noop());
                out.end.set(Some(ours.as_bytes().into()));
                let mut left: Vec<&[u8]> = parts.to_vec();
                while left.iter().any(|part| !part.is_empty()) {
                    let slices: Vec<_> = left.iter().map(|part| IoSlice::new(part)).collect();
                    if let Poll::Ready(result) = swap.poll_write(&mut wire, cx, &slices, &out, &meter) {
                        let (n, _) = result.expect("written");
                        let at = left.iter().position(|part| !part.is_empty()).expect("a part");
                        left[at] = &left[at][n..];
                    }
                }
                assert!(matches!(swap, Swap::Body));
                assert_eq!(String::from_utf8(wire.into_parts().0.out).expect("text"), ours);
            }
        }
    }

    #[test]
    fn many_parts_go_out_in_order() {
        let parts: Vec<Vec<u8>> = (0..50).map(|i| format!("{i},").into_bytes()).collect();
        let mut all: Vec<&[u8]> = vec![b"GET / HTTP/1.1\r\n\r\n"];
        all.extend(parts.iter().map(Vec::as_slice));
        let body: String = (0..50).map(|i| format!("{i},")).collect();
        for width in [3, 10_000] {
            assert_eq!(write(&all, "PUT\r\n\r\n", width, true, false), format!("PUT\r\n\r\n{body}"));
        }
    }
}
