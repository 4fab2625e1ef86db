//! `split_clients`: a variable whose value falls to a part of all clients.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, HTTP, Handle, List, Module, registry::on_statement_line},
    http::{
        exchange::Exchange,
        template::Template,
        variables::{Computed, define_stored},
    },
    syntax::{Fault, Statement},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    splits: List<Arc<Split>>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("split_clients", HTTP, |conf| &mut conf.splits)];
}

impl Room for Conf {
    type State = ();

    fn computed(&self) -> Vec<(Handle, Computed)> {
        self.splits.iter().map(|split| (split.variable, Computed::Split(Arc::clone(split)))).collect()
    }
}

/// One `split_clients`.
#[derive(Debug)]
pub struct Split {
    variable: Handle,
    source: Template,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    /// The hashes below it; `None`: all that are left.
    below: Option<u32>,
    value: Bytes,
}

impl Split {
    /// Appends the value for a request; it always has one, be it empty.
    pub fn evaluate(&self, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
        let hash = murmur2(&self.source.evaluate(exchange));
        let part = self.parts.iter().find(|part| part.below.is_none_or(|below| hash < below));
        if let Some(part) = part {
            out.extend_from_slice(&part.value);
        }
        true
    }
}

impl FromArgs for Arc<Split> {
    const TAKES: RangeInclusive<usize> = 2..=2;
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let source = Template::compile(args.word(0), args.scope)?;
        let word = args.word(1);
        let Some(name) = word.value.strip_prefix(b"$").filter(|name| !name.is_empty()) else {
            return Err(Fault::at(word.span, [b"invalid variable name \"", &word.value[..], b"\""].concat()));
        };
        let variable = define_stored(args.scope, name, word.span)?;
        let (mut sum, mut last, mut parts) = (0, 0u32, Vec::new());
        for row in args.block() {
            let (share, value) = match row_of(row) {
                Ok(row) => row,
                Err(fault) => {
                    args.scope.fault(on_statement_line(fault, row));
                    continue;
                }
            };
            sum = if share == 0 { 10000 } else { sum + share };
            if sum > 10000 {
                return Err(Fault::at(args.statement.name.span, "percent total is greater than 100%"));
            }
            let below = (sum < 10000).then(|| {
                last = last.wrapping_add((share * u64::from(u32::MAX) / 10000) as u32);
                last
            });
            parts.push(Part { below, value });
        }
        Ok(Self::new(Split { variable, source, parts }))
    }
}

/// A row: hundredths of percents, 0 for the rest, and the value.
fn row_of(row: &Statement) -> Result<(u64, Bytes), Fault> {
    let [value] = &row.args[..] else {
        return Err(Fault::at(row.name.span, "invalid number of arguments in \"split_clients\" directive"));
    };
    let name = &row.name;
    let invalid = || Fault::at(name.span, [b"invalid percent value \"", &name.value[..], b"\""].concat());
    let share = match &name.value[..] {
        b"*" => 0,
        [number @ .., b'%'] => hundredths(number).filter(|share| *share > 0).ok_or_else(invalid)?,
        _ => return Err(invalid()),
    };
    Ok((share, Bytes::copy_from_slice(&value.value)))
}

/// A number with up to two digits behind its point, in hundredths (`ngx_atofp`).
fn hundredths(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || rest.len() > 2 || !digits(whole) || !digits(rest) {
        return None;
    }
    format!("{whole}{rest:0<2}").parse().ok().filter(|number| *number < 1 << 31)
}

/// MurmurHash2 of 32 bits without a seed, by Austin Appleby.
fn murmur2(text: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let mut pieces = text.chunks_exact(4);
    for piece in &mut pieces {
        let mut word = piece.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(FACTOR);
        word = (word ^ word >> 24).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ word;
    }
    let rest = pieces.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask_http, http_fault};

    #[test]
    fn a_client_has_the_value_of_its_part() {
        assert_eq!(murmur2(b""), 0);
        for (rows, value) in
            [("* all;", "all"), ("100% all;", "all"), ("99.99% most; * rest;", "most"), ("0.01% few;", "")]
        {
            let config = format!("split_clients $arg_a $v {{ {rows} }} server {{ location / {{ return 200 '$v'; }} }}");
            let answer = ask_http(&config, "GET /?a=something HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.text(), value, "{rows}");
        }
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("split_clients $host v { }", "invalid variable name \"v\""),
            ("split_clients $host $v { 1 a; }", "invalid percent value \"1\""),
            ("split_clients $host $v { 0% a; }", "invalid percent value \"0%\""),
            ("split_clients $host $v { 1.234% a; }", "invalid percent value \"1.234%\""),
            ("split_clients $host $v { 60% a; 50% b; }", "percent total is greater than 100%"),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
