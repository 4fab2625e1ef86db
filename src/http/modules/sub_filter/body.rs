//! A body in which words are replaced while it is sent.

use crate::http::body::{Body, BodyError};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Words to look for, in lower case.
#[derive(Debug)]
pub struct Words {
    list: Vec<Bytes>,
    /// Length of the shortest.
    shortest: usize,
    /// By the byte at the end of a window as long as the shortest word: how far the window may go on.
    skip: [u8; 256],
}

/// What is found first in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Word {
        start: usize,
        word: usize,
    },
    /// What stands from here on may become a word.
    Maybe(usize),
    Nothing,
}

impl Words {
    /// Of words that are not empty. `None` if there are none.
    pub fn new(words: Vec<Bytes>) -> Option<Self> {
        let shortest = words.iter().map(Bytes::len).min()?;
        let mut skip = [u8::try_from(shortest).unwrap_or(u8::MAX); 256];
        for word in &words {
            for (behind, byte) in word[..shortest].iter().rev().enumerate().take(usize::from(u8::MAX)) {
                let skip = &mut skip[usize::from(*byte)];
                *skip = (*skip).min(u8::try_from(behind).unwrap_or(u8::MAX));
            }
        }
        Some(Self { list: words, shortest, skip })
    }

    /// The leftmost word, of several there the one that was named first (`ngx_http_sub_parse`). What may become an
    /// earlier one holds up a later one.
    fn find(&self, text: &[u8], used: &[bool]) -> Found {
        let mut start = 0;
        while let Some(last) = text.get(start + self.shortest - 1) {
            match self.skip[usize::from(last.to_ascii_lowercase())] {
                0 => match self.at(text, start, used) {
                    Found::Nothing => start += 1,
                    found => return found,
                },
                skip => start += usize::from(skip),
            }
        }
        while start < text.len() {
            match self.at(text, start, used) {
                Found::Nothing => start += 1,
                found => return found,
            }
        }
        Found::Nothing
    }

    fn at(&self, text: &[u8], start: usize, used: &[bool]) -> Found {
        let text = &text[start..];
        for (word, pattern) in self.list.iter().enumerate().filter(|(word, _)| !used[*word]) {
            let length = pattern.len().min(text.len());
            if text[..length].eq_ignore_ascii_case(&pattern[..length]) {
                return if length == pattern.len() { Found::Word { start, word } } else { Found::Maybe(start) };
            }
        }
        Found::Nothing
    }
}

/// Another body with words replaced (`ngx_http_sub_body_filter`).
pub struct SubBody {
    inner: Body,
    words: Arc<Words>,
    /// What takes the place of each word.
    values: Vec<Bytes>,
    /// Each word is replaced but once.
    once: bool,
    /// The words that are not looked for any more.
    used: Vec<bool>,
    /// Taken from the inner body and not yet gone through.
    input: Bytes,
    /// What may become a word when more has come.
    held: Bytes,
    /// Ready to be handed on.
    output: VecDeque<Bytes>,
    over: bool,
}

impl SubBody {
    /// With what takes the place of each word, and whether each is replaced but once.
    pub fn new(inner: Body, words: Arc<Words>, values: Vec<Bytes>, once: bool) -> Self {
        let used = vec![false; values.len()];
        let (input, held, output) = (Bytes::new(), Bytes::new(), VecDeque::new());
        Self { inner, words, values, once, used, input, held, output, over: false }
    }

    /// The body in which words are replaced.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.output.is_empty() && self.held.is_empty() && self.input.is_empty() && (self.over || self.inner.is_empty())
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(piece) = self.output.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            if self.input.is_empty() {
                match ready!(self.inner.poll_next(cx)) {
                    Some(Ok(piece)) => self.take(piece),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        self.over = true;
                        let rest = std::mem::take(&mut self.held);
                        self.give(rest);
                        continue;
                    }
                }
            }
            self.step();
        }
    }

    /// Puts a new piece behind what was held back.
    fn take(&mut self, piece: Bytes) {
        let held = std::mem::take(&mut self.held);
        self.input = match held.is_empty() {
            true => piece,
            false => {
                let mut joined = BytesMut::with_capacity(held.len() + piece.len());
                joined.extend_from_slice(&held);
                joined.extend_from_slice(&piece);
                joined.freeze()
            }
        };
    }

    /// Goes on to the next word, or to the end of the input.
    fn step(&mut self) {
        if self.once && self.used.iter().all(|used| *used) {
            let rest = std::mem::take(&mut self.input);
            self.give(rest);
            return;
        }
        match self.words.find(&self.input, &self.used) {
            Found::Word { start, word } => {
                let before = self.input.split_to(start);
                self.input.advance(self.words.list[word].len());
                self.used[word] = self.once;
                self.give(before);
                self.give(self.values[word].clone());
            }
            Found::Maybe(start) => {
                self.held = self.input.split_off(start);
                let before = std::mem::take(&mut self.input);
                self.give(before);
            }
            Found::Nothing => {
                let rest = std::mem::take(&mut self.input);
                self.give(rest);
            }
        }
    }

    fn give(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.output.push_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// What becomes of a text, however it is cut into pieces.
    fn replaced(pairs: &[(&'static str, &'static str)], once: bool, text: &str) -> String {
        let mut whole = None;
        for size in 1..=text.len() {
            let words =
                Words::new(pairs.iter().map(|(word, _)| Bytes::from_static(word.as_bytes())).collect()).unwrap();
            let values = pairs.iter().map(|(_, value)| Bytes::from_static(value.as_bytes())).collect();
            let pieces = text.as_bytes().chunks(size).map(|piece| Body::from(Bytes::copy_from_slice(piece))).collect();
            let mut body = SubBody::new(Body::parts(pieces), Arc::new(words), values, once);
            let mut out = Vec::new();
            while let Poll::Ready(Some(piece)) = body.poll_next(&mut Context::from_waker(Waker::noop())) {
                out.extend_from_slice(&piece.unwrap());
            }
            assert!(body.is_empty());
            let out = String::from_utf8(out).unwrap();
            assert_eq!(*whole.get_or_insert(out.clone()), out, "{text} in pieces of {size}");
        }
        whole.unwrap()
    }

    #[test]
    fn words_are_replaced_wherever_the_text_is_cut() {
        for (pairs, once, text, expected) in [
            (&[("foo", "bar")][..], false, "a foo FOO foofo", "a bar bar barfo"),
            (&[("foo", "bar")], true, "foo foo", "bar foo"),
            (&[("aab", "X")], false, "aaab aaaab", "aX aaX"),
            (&[("ab", "1"), ("abc", "2")], false, "abcabc", "1c1c"),
            (&[("abc", "2"), ("ab", "1")], false, "abcabd", "21d"),
            (&[("a", "1"), ("b", "2")], true, "abab", "12ab"),
            (&[("x", "")], false, "xaxbx", "ab"),
            (&[("longer word", "L"), ("er", "E")], false, "longer wort longer", "longE wort longer"),
            (&[("none", "X")], false, "nothing here non", "nothing here non"),
        ] {
            assert_eq!(replaced(pairs, once, text), expected, "{text}");
        }
    }
}
