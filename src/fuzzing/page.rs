//! Pages with directives in them.

use super::paced;
use crate::http::{
    modules::ssi::{Parser, Token, split_condition, split_text},
    strftime::{Moment, strftime},
};
use bytes::Bytes;

/// A page is the same texts and directives however it is cut; nothing is added to its texts; and a directive that is
/// written again is the same one. Whatever its values are, they can be read as texts, conditions and formats.
pub(super) fn ssi(data: &[u8]) {
    let (step, page) = paced(data);
    for longest in [255, 3] {
        let whole = tokens(page, page.len().max(1), longest);
        assert_eq!(whole, tokens(page, step, longest), "in pieces of {step}");
        let texts = whole.iter().map(|piece| if let Piece::Token(Token::Text(text)) = piece { text.len() } else { 0 });
        assert!(texts.sum::<usize>() <= page.len(), "more text than there was");
        for piece in &whole {
            let Piece::Token(Token::Directive(directive)) = piece else { continue };
            let mut written = Vec::new();
            directive.write(&mut written);
            let plain = directive.params.iter().all(|(_, value)| !value.contains(&b'"'));
            if plain {
                let again = tokens(&written, written.len(), longest);
                assert_eq!(
                    again,
                    std::slice::from_ref(piece),
                    "written again as {:?}",
                    String::from_utf8_lossy(&written)
                );
            }
            directive.params.iter().for_each(|(_, value)| read(value));
        }
    }
    read(page);
}

/// What comes of a page, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Complaint(String),
}

/// A page that arrives in pieces, its texts joined.
fn tokens(page: &[u8], step: usize, longest: usize) -> Vec<Piece> {
    let mut parser = Parser::new(longest);
    let mut out: Vec<Piece> = Vec::new();
    for piece in page.chunks(step) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            let token = parser.next(&mut input);
            out.extend(parser.complaint().map(Piece::Complaint));
            match (token, out.last_mut()) {
                (None, _) => break,
                (Some(Token::Text(text)), Some(Piece::Token(Token::Text(before)))) => {
                    *before = [&before[..], &text].concat().into();
                }
                (Some(token), _) => out.push(Piece::Token(token)),
            }
        }
        assert!(input.is_empty(), "something was left");
    }
    out
}

/// A value, as everything it may be.
fn read(value: &[u8]) {
    let _ = split_text(value);
    if let Ok(condition) = split_condition(value) {
        let right = condition.right.map_or(0, |right| right.text.len());
        assert!(condition.left.len() + right <= value.len(), "more than there was");
    }
    for moment in [Moment::utc(0), Moment::local(1_796_130_309)] {
        strftime(value, &moment);
    }
}
