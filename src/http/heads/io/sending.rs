//! An answer on its way: our head, and the body behind it as it is framed.

use super::{pace::Pace, queue::Queue};
use crate::http::{body::FileBody, heads::Framing};
use bytes::Bytes;
use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

/// So much may wait to be written until no more of a body is asked for. Bytes.
const ENOUGH: usize = 64 << 10;

/// The body of an answer: what a connection asks of it.
pub trait Pieces {
    /// The next piece; `None` at the end, `Some(Err(()))` if the rest cannot be had.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>>;

    /// A stretch of a file that comes next, where that is to go from the file to the socket by itself (`sendfile`).
    fn take_file(&mut self) -> Option<FileBody> {
        None
    }

    /// The file that was taken has ended there, before it should have.
    fn file_ended(&mut self, _at: u64) {}

    /// The lines of the fields that follow behind a body in the chunked coding, once it has ended.
    fn trailers(&mut self) -> Bytes {
        Bytes::new()
    }
}

/// What is left to be sent of an answer.
pub struct Sending<B> {
    pub(super) queue: Queue,
    /// What comes behind the queue.
    file: Option<FileBody>,
    /// `None` once all of it is in the queue. It is dropped as soon as it has ended: that tells whoever made it.
    body: Option<B>,
    framing: Framing,
    cut: bool,
    pace: Option<Box<Pace>>,
}

impl<B: Pieces> Sending<B> {
    /// A head, which may be empty (HTTP/0.9), and the body behind it.
    pub fn new(head: Bytes, body: B, framing: Framing) -> Self {
        let body = Some(body).filter(|_| framing != Framing::None);
        Self { queue: Queue::new(head), file: None, body, framing, cut: false, pace: None }
    }

    /// The same, kept to a rate.
    pub fn paced(self, pace: Option<Box<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// The body ended before it should have, so the connection has to end.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// One write of what is queued: as much of it as may go now. It is as slow as the rate, or the client.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let allowed = match &mut self.pace {
            None => u64::MAX,
            Some(pace) => ready!(pace.poll_allowed(cx)),
        };
        let n = ready!(self.queue.slices(allowed, |slices| write(cx, slices)))?;
        if let Some(pace) = &mut self.pace {
            pace.spend(n as u64);
        }
        self.queue.advance(n);
        Poll::Ready(Ok(()))
    }

    /// A file comes next.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// One part of a file, as much as may go now; `send` says how much went.
    pub(super) fn poll_file(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        send: impl FnOnce(&mut Context<'_>, &FileBody, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let Some(file) = &mut self.file else { return Poll::Ready(Ok(())) };
        let allowed = match &mut self.pace {
            None => u64::MAX,
            Some(pace) => ready!(pace.poll_allowed(cx)),
        };
        let most = usize::try_from(file.left.min(allowed)).unwrap_or(usize::MAX).min(most);
        let n = ready!(send(cx, file, most))? as u64;
        if let Some(pace) = &mut self.pace {
            pace.spend(n);
        }
        file.offset += n;
        file.left -= n.min(file.left);
        // It has become shorter.
        if n == 0 {
            self.cut = true;
            if let Some(mut body) = self.body.take() {
                body.file_ended(file.offset);
            }
        }
        if self.cut || file.left == 0 {
            self.file = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues what there is of the body, as far as one write goes. Pending when more is to come.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = self.body.as_mut().filter(|_| self.file.is_none()) {
            if self.framing == Framing::Length(0) {
                self.body = None;
                break;
            }
            if !self.queue.has_room() || self.queue.length() > ENOUGH {
                break;
            }
            if let Framing::Length(left) = &mut self.framing
                && let Some(mut file) = body.take_file()
            {
                file.left = file.left.min(*left);
                *left -= file.left;
                self.file = Some(file);
                break;
            }
            match ready!(body.poll_piece(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => self.push(piece),
                Some(Err(())) => {
                    self.cut = true;
                    self.body = None;
                }
                None => {
                    self.end();
                    self.body = None;
                }
            }
        }
        Poll::Ready(())
    }

    /// Queues a piece with what belongs around it.
    fn push(&mut self, mut piece: Bytes) {
        match &mut self.framing {
            Framing::Length(left) => {
                // What was announced is all that the client takes for this answer.
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                self.queue.push(piece);
            }
            Framing::Chunked => self.queue.push_chunk(piece),
            Framing::Close | Framing::None => self.queue.push(piece),
        }
    }

    /// Queues what stands behind the last piece.
    fn end(&mut self) {
        match self.framing {
            Framing::Length(left) => self.cut = left > 0,
            Framing::Chunked => {
                let trailers = self.body.as_mut().map(Pieces::trailers).unwrap_or_default();
                self.queue.push_last_chunk(&trailers);
            }
            Framing::Close | Framing::None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces that are there at once, and how they end.
    struct Given(std::vec::IntoIter<Result<&'static [u8], ()>>, &'static [u8]);

    impl Pieces for Given {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
            Poll::Ready(self.0.next().map(|piece| piece.map(Bytes::from_static)))
        }

        fn trailers(&mut self) -> Bytes {
            Bytes::from_static(self.1)
        }
    }

    /// What goes out, written `width` bytes at a time, and whether it was cut.
    fn sent(
        framing: Framing,
        pieces: Vec<Result<&'static [u8], ()>>,
        trailers: &'static [u8],
        width: usize,
    ) -> (String, bool) {
        let mut sending = Sending::new(Bytes::from_static(b"HEAD\n"), Given(pieces.into_iter(), trailers), framing);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        loop {
            assert!(sending.poll_fill(cx).is_ready());
            if sending.queue.is_empty() {
                return (String::from_utf8(out).expect("text"), sending.is_cut());
            }
            let all: Vec<u8> =
                sending.queue.slices(u64::MAX, |slices| slices.iter().flat_map(|slice| slice.to_vec()).collect());
            let n = width.min(all.len());
            out.extend_from_slice(&all[..n]);
            sending.queue.advance(n);
        }
    }

    #[test]
    fn bodies_are_framed_however_little_is_written_at_once() {
        let many = || (0..40).map(|_| Ok(&b"0123456789abcdef"[..])).collect::<Vec<_>>();
        for width in [1, 2, 3, 7, 40, 10_000] {
            let (text, cut) = sent(Framing::Length(7), vec![Ok(b"one"), Ok(b""), Ok(b"two"), Ok(b"!")], b"", width);
            assert_eq!((&text[..], cut), ("HEAD\nonetwo!", false));
            let (text, cut) = sent(Framing::Chunked, vec![Ok(b"one"), Ok(b"0123456789a")], b"", width);
            assert_eq!((&text[..], cut), ("HEAD\n3\r\none\r\nb\r\n0123456789a\r\n0\r\n\r\n", false));
            let (text, _) = sent(Framing::Chunked, Vec::new(), b"A: b\r\n", width);
            assert_eq!(text, "HEAD\n0\r\nA: b\r\n\r\n");
            assert_eq!(sent(Framing::Close, vec![Ok(b"all")], b"", width), ("HEAD\nall".into(), false));
            assert_eq!(sent(Framing::None, vec![Ok(b"not this")], b"", width), ("HEAD\n".into(), false));
            let (text, _) = sent(Framing::Length(640), many(), b"", width);
            assert_eq!(text.len(), 645);
            let (text, _) = sent(Framing::Chunked, many(), b"", width);
            assert_eq!(text.matches("10\r\n0123456789abcdef\r\n").count(), 40);
        }
    }

    #[test]
    fn a_body_is_never_longer_than_announced_and_a_shorter_one_is_cut() {
        assert_eq!(sent(Framing::Length(2), vec![Ok(b"four")], b"", 100), ("HEAD\nfo".into(), false));
        assert_eq!(sent(Framing::Length(0), vec![Ok(b"four")], b"", 100), ("HEAD\n".into(), false));
        assert_eq!(sent(Framing::Length(5), vec![Ok(b"four")], b"", 100), ("HEAD\nfour".into(), true));
        assert_eq!(sent(Framing::Length(5), vec![Ok(b"fo"), Err(())], b"", 100), ("HEAD\nfo".into(), true));
        // The end that would make it look whole is missing.
        assert_eq!(sent(Framing::Chunked, vec![Ok(b"fo"), Err(())], b"", 100), ("HEAD\n2\r\nfo\r\n".into(), true));
        assert_eq!(sent(Framing::Close, vec![Err(())], b"", 100), ("HEAD\n".into(), true));
    }
}
