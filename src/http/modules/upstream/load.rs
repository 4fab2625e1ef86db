//! `load_check` and `agent_check`: how peers are asked how loaded they are. Ours; the agent's protocol is HAProxy's.

use crate::{
    config::{
        Args, FromArgs,
        values::{parse_number, parse_port, parse_time},
    },
    syntax::{Fault, Word},
    upstream::load::{Agent, Check, Member, OnFail},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, time::Duration};

impl FromArgs for Check {
    const TAKES: RangeInclusive<usize> = 0..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let mut check = Self {
            uri: Bytes::from_static(b"/"),
            interval: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            member: Member::default(),
            fails: 1,
            on_fail: OnFail::default(),
        };
        for word in args.words() {
            let invalid = || args.parameter(word);
            match named(word) {
                (b"uri", uri) if is_path(uri) => check.uri = Bytes::copy_from_slice(uri),
                (b"interval", time) => check.interval = positive(time).ok_or_else(invalid)?,
                (b"timeout", time) => check.timeout = positive(time).ok_or_else(invalid)?,
                (b"json", path) => {
                    let member = std::str::from_utf8(path).ok().and_then(Member::parse);
                    check.member = member.ok_or_else(invalid)?;
                }
                (b"fails", number) => {
                    let number = parse_number(number).and_then(|number| u32::try_from(number).ok());
                    check.fails = number.filter(|number| *number > 0).ok_or_else(invalid)?;
                }
                (b"on_fail", b"down") => check.on_fail = OnFail::Down,
                (b"on_fail", b"remove") => check.on_fail = OnFail::Remove,
                _ => return Err(invalid()),
            }
        }
        Ok(check)
    }
}

impl FromArgs for Agent {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (mut interval, mut timeout) = (Duration::from_secs(2), Duration::from_secs(5));
        let (mut port, mut send) = (None, Bytes::new());
        for word in args.words() {
            let invalid = || args.parameter(word);
            match named(word) {
                (b"port", number) => port = Some(parse_port(number).ok_or_else(invalid)?),
                (b"interval", time) => interval = positive(time).ok_or_else(invalid)?,
                (b"timeout", time) => timeout = positive(time).ok_or_else(invalid)?,
                (b"send", text) => send = Bytes::copy_from_slice(text),
                _ => return Err(invalid()),
            }
        }
        let none = || Fault::at(args.statement.name.span, "\"agent_check\" must have \"port\" parameter");
        Ok(Self { port: port.ok_or_else(none)?, interval, timeout, send })
    }
}

/// `load_header`: a field of answers.
#[derive(Clone, Debug)]
pub(super) struct LoadHeader(pub(super) Bytes);

impl FromArgs for LoadHeader {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        match !word.value.is_empty() && word.value.iter().all(token) {
            true => Ok(Self(Bytes::copy_from_slice(&word.value))),
            false => Err(Fault::at(word.span, "\"load_header\" must name a field")),
        }
    }
}

/// `name=value`; a word without `=` has an empty name, which no parameter has.
fn named(word: &Word) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', &word.value) {
        Some(at) => (&word.value[..at], &word.value[at + 1..]),
        None => (b"", &word.value),
    }
}

fn positive(time: &[u8]) -> Option<Duration> {
    parse_time(time, true).filter(|time| *time > 0).map(Duration::from_millis)
}

/// Whether it can stand in a request line.
fn is_path(uri: &[u8]) -> bool {
    uri.starts_with(b"/") && uri.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::http_fault;

    #[test]
    fn a_source_has_the_parameters_that_it_knows() {
        for (inside, expected) in [
            ("least_load; load_check;", ""),
            ("load_check uri=/status?all interval=3s timeout=500ms json=cpu.load fails=2 on_fail=remove;", ""),
            ("load_check uri=status;", "invalid parameter \"uri=status\""),
            ("load_check 'uri=/a b';", "invalid parameter \"uri=/a b\""),
            ("load_check interval=0;", "invalid parameter \"interval=0\""),
            ("load_check timeout=x;", "invalid parameter \"timeout=x\""),
            ("load_check json=a..b;", "invalid parameter \"json=a..b\""),
            ("load_check fails=0;", "invalid parameter \"fails=0\""),
            ("load_check on_fail=drop;", "invalid parameter \"on_fail=drop\""),
            ("load_check status;", "invalid parameter \"status\""),
            ("load_check; load_check;", "\"load_check\" directive is duplicate"),
            ("agent_check port=9999 interval=5s timeout=1s 'send=hello\\n';", ""),
            ("agent_check interval=5s;", "\"agent_check\" must have \"port\" parameter"),
            ("agent_check port=0;", "invalid parameter \"port=0\""),
            ("agent_check port=65536;", "invalid parameter \"port=65536\""),
            ("agent_check;", "invalid number of arguments in \"agent_check\" directive"),
            ("load_header X-Load;", ""),
            ("load_header;", "invalid number of arguments in \"load_header\" directive"),
            ("load_header '';", "\"load_header\" must name a field"),
            ("load_header 'X Load';", "\"load_header\" must name a field"),
            ("least_load 1;", "invalid parameter \"1\""),
        ] {
            assert_eq!(http_fault(&format!("upstream u {{ {inside} server 127.0.0.1:1; }}")), expected, "{inside}");
        }
    }
}
