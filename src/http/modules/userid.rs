//! `userid`: a cookie that tells clients apart.

use super::{
    Room,
    core::{decode_base64, put},
};
use crate::{
    config::{
        Args, Directive, FromArgs, LEVELS, Module,
        values::{Choices, Mask, choose, parse_time},
    },
    http::{dates, exchange::Exchange, response::Response, variables::Variable},
    observe::error_log::Level,
    syntax::Fault,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use std::{
    cell::RefCell,
    io::Write,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::SystemTime,
};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: Enabled,
    /// The first of an id's four numbers; the server's address without it.
    pub service: Option<usize>,
    pub name: Bytes,
    pub domain: Domain,
    pub path: Bytes,
    pub expires: Expires,
    pub flags: Mask<Flags>,
    pub p3p: P3p,
    pub mark: Mark,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            enabled: Enabled::Off,
            service: None,
            name: Bytes::from_static(b"uid"),
            domain: Domain::default(),
            path: Bytes::from_static(b"/"),
            expires: Expires::Session,
            flags: Mask::default(),
            p3p: P3p::default(),
            mark: Mark::default(),
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("userid", LEVELS, |conf| &mut conf.enabled),
        Directive::new("userid_service", LEVELS, |conf| &mut conf.service),
        Directive::new("userid_name", LEVELS, |conf| &mut conf.name),
        Directive::new("userid_domain", LEVELS, |conf| &mut conf.domain),
        Directive::new("userid_path", LEVELS, |conf| &mut conf.path),
        Directive::new("userid_expires", LEVELS, |conf| &mut conf.expires),
        Directive::new("userid_flags", LEVELS, |conf| &mut conf.flags),
        Directive::new("userid_p3p", LEVELS, |conf| &mut conf.p3p),
        Directive::new("userid_mark", LEVELS, |conf| &mut conf.mark),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] =
        &[Variable::new("uid_got", got), Variable::new("uid_set", set), Variable::changeable("uid_reset", |_, _| true)];
    type State = State;
}

/// What a request and its subrequests know of the client's id.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Looked for once.
    ids: Rc<RefCell<Option<Ids>>>,
    /// The settings of the client's own request, in one of its subrequests.
    main: Option<Arc<Conf>>,
}

impl State {
    /// For a subrequest: what the client's own request knows, and its settings.
    #[must_use]
    pub fn inside(&self, settings: &Arc<Conf>) -> Self {
        Self { ids: Rc::clone(&self.ids), main: Some(Arc::clone(self.main.as_ref().unwrap_or(settings))) }
    }
}

/// An id: four numbers, in the machine's order.
type Id = [u32; 4];

/// The ids of one request; an id whose last number is 0 is none.
#[derive(Clone, Debug, Default)]
struct Ids {
    got: Id,
    set: Id,
    /// The cookie as the client sent it.
    cookie: Bytes,
    /// `$uid_reset` wants a new one.
    reset: bool,
}

/// Sends an id to a client that has none (`ngx_http_userid_filter`).
pub fn filter(exchange: &Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.userid;
    if !conf.enabled.sends() {
        return;
    }
    let ids = ids(exchange, conf, true);
    if ids.set[3] == 0 {
        return;
    }
    let now = exchange.connection.worker.clock.now().as_secs();
    response.push(&b"Set-Cookie"[..], cookie(conf, &ids, i64::try_from(now).unwrap_or(i64::MAX)));
    if !conf.p3p.0.is_empty() {
        response.push(&b"P3P"[..], conf.p3p.0.clone());
    }
}

/// The value of `Set-Cookie` (`ngx_http_userid_set_uid`).
fn cookie(conf: &Conf, ids: &Ids, now: i64) -> Vec<u8> {
    let mut out = [&conf.name[..], b"="].concat();
    if ids.got[3] == 0 || ids.reset {
        let mut text = STANDARD.encode(bytes(&ids.set)).into_bytes();
        if let (Some(mark), [.., place, _]) = (conf.mark.0, &mut text[..]) {
            *place = mark;
        }
        out.extend_from_slice(&text);
    } else {
        out.extend_from_slice(&ids.cookie[..ENCODED]);
        out.extend([conf.mark.0.unwrap_or(0), b'=']);
    }
    match conf.expires {
        Expires::Session => {}
        Expires::Max => out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
        Expires::After(seconds) => {
            out.extend_from_slice(b"; expires=");
            out.extend_from_slice(dates::cookie_time(now.saturating_add_unsigned(seconds)).as_bytes());
        }
    }
    if !conf.domain.0.is_empty() {
        out.extend_from_slice(b"; domain=");
        out.extend_from_slice(&conf.domain.0);
    }
    out.extend_from_slice(b"; path=");
    out.extend_from_slice(&conf.path);
    for (flag, text) in [
        (SECURE, "; secure"),
        (HTTPONLY, "; httponly"),
        (STRICT, "; samesite=strict"),
        (LAX, "; samesite=lax"),
        (NONE, "; samesite=none"),
    ] {
        if conf.flags.has(flag) {
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// `$uid_got`: the id that the client sent.
fn got(exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let conf = settings(exchange);
    conf.enabled != Enabled::Off && write(conf, &ids(exchange, conf, false).got, out)
}

/// `$uid_set`: the id that it is sent.
fn set(exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let conf = settings(exchange);
    conf.enabled.sends() && write(conf, &ids(exchange, conf, true).set, out)
}

fn settings(exchange: &Exchange) -> &Conf {
    exchange.state.userid.main.as_ref().unwrap_or(&exchange.location.settings.userid)
}

/// `uid=00001111222233334444555566667777`
fn write(conf: &Conf, id: &Id, out: &mut Vec<u8>) -> bool {
    let [a, b, c, d] = id;
    *d != 0 && put(out, &conf.name) && write!(out, "={a:08X}{b:08X}{c:08X}{d:08X}").is_ok()
}

/// What is known of the ids; with `make` the client gets a new one if it needs it.
fn ids(exchange: &Exchange, conf: &Conf, make: bool) -> Ids {
    let known = exchange.state.userid.ids.borrow().clone();
    let mut ids = known.unwrap_or_else(|| read(exchange, conf));
    if make && ids.set[3] == 0 {
        renew(exchange, conf, &mut ids);
    }
    *exchange.state.userid.ids.borrow_mut() = Some(ids.clone());
    ids
}

/// Length of an id in a cookie, without what fills it up.
const ENCODED: usize = 22;

/// The id that the client sent (`ngx_http_userid_get_uid`).
fn read(exchange: &Exchange, conf: &Conf) -> Ids {
    let Some((line, cookie)) =
        exchange.head.fields.get_all("cookie").find_map(|line| Some((line, find(line, &conf.name)?)))
    else {
        return Ids::default();
    };
    let mut ids = Ids { cookie: Bytes::copy_from_slice(cookie), ..Ids::default() };
    let complain = |what| {
        let line = String::from_utf8_lossy(line);
        exchange.log(Level::Err, &format!("client sent {what} userid cookie \"{line}\""));
    };
    match cookie.get(..ENCODED).map(decode_base64) {
        None => complain("too short"),
        Some(Some(id)) => {
            for (number, bytes) in ids.got.iter_mut().zip(id.as_chunks().0) {
                *number = u32::from_ne_bytes(*bytes);
            }
        }
        Some(None) => complain("invalid"),
    }
    ids
}

/// The value of a cookie in a `Cookie` field (`ngx_http_parse_multi_header_lines`).
fn find<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let pair = spaceless(pair);
        let (start, rest) = pair.split_at_checked(name.len())?;
        let value = spaceless(rest).strip_prefix(b"=").filter(|_| start.eq_ignore_ascii_case(name))?;
        Some(spaceless(value))
    })
}

fn spaceless(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| **byte == b' ').count()..]
}

/// Gives the client a new id, or its own once more where that lacks the mark (`ngx_http_userid_create_uid`).
fn renew(exchange: &Exchange, conf: &Conf, ids: &mut Ids) {
    if ids.got[3] != 0 {
        let reset = exchange.http.variable_names.get(&b"uid_reset"[..]);
        let reset = reset.and_then(|handle| exchange.variable_bytes(*handle)).unwrap_or_default();
        if matches!(&reset[..], b"" | b"0") {
            let marked = conf.mark.0.is_none_or(|mark| ids.cookie.get(ENCODED..ENCODED + 2) == Some(&[mark, b'=']));
            if !marked {
                ids.set = ids.got;
            }
            return;
        }
        ids.reset = true;
        if reset == "log" {
            let mut text = b"userid cookie \"".to_vec();
            write(conf, &ids.got, &mut text);
            exchange.log(Level::Notice, &format!("{}\" was reset", String::from_utf8_lossy(&text)));
        }
    }
    ids.set = new_id(exchange, conf);
}

/// An id that no other client has, on any server.
fn new_id(exchange: &Exchange, conf: &Conf) -> Id {
    static FIRST: AtomicU32 = AtomicU32::new(1);
    static SECOND: AtomicU32 = AtomicU32::new(LEAST);
    /// Where the numbers of the second version begin, and begin anew.
    const LEAST: u32 = 0x0303_0302;
    let now = exchange.connection.worker.clock.now().as_secs();
    let now = u32::try_from(now & u64::from(u32::MAX)).unwrap_or_default();
    let service = conf.service.map(|service| u32::try_from(service & u32::MAX as usize).unwrap_or_default());
    if conf.enabled == Enabled::V1 {
        return [service.unwrap_or_default(), now, start_value(), FIRST.fetch_add(0x100, Relaxed)];
    }
    let next = |number: u32| number.checked_add(0x100).unwrap_or(LEAST);
    let number = SECOND.fetch_update(Relaxed, Relaxed, |number| Some(next(number))).unwrap_or(LEAST);
    let server = match (service, exchange.connection.local_ip().parse()) {
        (Some(service), _) => service.to_be(),
        (None, Ok(IpAddr::V4(ip))) => u32::from_ne_bytes(ip.octets()),
        (None, Ok(IpAddr::V6(ip))) => {
            let [.., a, b, c, d] = ip.octets();
            u32::from_ne_bytes([a, b, c, d])
        }
        (None, Err(_)) => 0,
    };
    [server, now.to_be(), start_value().to_be(), number.to_be()]
}

/// Differs from process to process (`ngx_http_userid_init_worker`).
fn start_value() -> u32 {
    static VALUE: OnceLock<u32> = OnceLock::new();
    *VALUE.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (now.subsec_micros() / 20) << 16 | std::process::id()
    })
}

fn bytes(id: &Id) -> Vec<u8> {
    id.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// `userid`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    Off,
    /// Ids are read and not sent.
    Log,
    /// Ids are sent as Apache's `mod_uid` did.
    V1,
    On,
}

impl Enabled {
    fn sends(self) -> bool {
        matches!(self, Self::V1 | Self::On)
    }
}

impl FromArgs for Enabled {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("log", Self::Log), ("v1", Self::V1), ("on", Self::On)])
    }
}

/// The words of `userid_flags`.
pub struct Flags;

const OFF: u32 = 1;
const SECURE: u32 = 1 << 1;
const HTTPONLY: u32 = 1 << 2;
const STRICT: u32 = 1 << 3;
const LAX: u32 = 1 << 4;
const NONE: u32 = 1 << 5;

impl Choices for Flags {
    const CHOICES: &'static [(&'static str, u32)] = &[
        ("off", OFF),
        ("secure", SECURE),
        ("httponly", HTTPONLY),
        ("samesite=strict", STRICT),
        ("samesite=lax", LAX),
        ("samesite=none", NONE),
    ];
    const DEFAULT: u32 = OFF;
}

/// `userid_domain`; empty for `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain(pub Bytes);

impl FromArgs for Domain {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        unless_none(args).map(Self)
    }
}

/// `userid_p3p`; empty for `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct P3p(pub Bytes);

impl FromArgs for P3p {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        unless_none(args).map(Self)
    }
}

fn unless_none(args: &Args<'_>) -> Result<Bytes, Fault> {
    let text = Bytes::from_args(args)?;
    Ok(if text == "none" { Bytes::new() } else { text })
}

/// `userid_expires`: how long a client keeps its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Until it is closed.
    Session,
    Max,
    /// So many seconds.
    After(u64),
}

impl FromArgs for Expires {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        /// What `max` stands for in nginx; the same time written out is no other.
        const MAX: u64 = 2_145_916_555;
        let word = args.word(0);
        match &word.value[..] {
            b"max" => Ok(Self::Max),
            b"off" => Ok(Self::Session),
            text => match parse_time(text, false) {
                Some(0) => Ok(Self::Session),
                Some(MAX) => Ok(Self::Max),
                Some(seconds) => Ok(Self::After(seconds)),
                None => Err(args.directive(word, "invalid value")),
            },
        }
    }
}

/// `userid_mark`: a letter at the end of ids; clients whose ids lack it are sent them anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub Option<u8>);

impl FromArgs for Mark {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        match &word.value[..] {
            b"off" => Ok(Self(None)),
            [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Ok(Self(Some(*mark))),
            _ => Err(args.directive(word, "value must be \"off\" or a single letter, digit or \"=\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Answer, ask, conf, fault};

    const GOT: &str = "fwAAAUpgdKtaVQAAAwMBAgA";

    fn answered(directives: &str, cookie: &str) -> Answer {
        let server = format!("{directives} location / {{ return 200 '$uid_got|$uid_set'; }}");
        let field = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n"))
    }

    #[test]
    fn a_client_without_an_id_is_sent_one() {
        for (directives, begin, end) in [
            ("userid on;", "uid=fwAAA", "==; path=/"),
            ("userid v1;", "uid=AAAAA", "==; path=/"),
            ("userid on; userid_service 1;", "uid=AAAAA", "==; path=/"),
            ("userid v1; userid_service 1;", "uid=AQAAA", "==; path=/"),
            ("userid on; userid_mark q; userid_name who;", "who=fwAAA", "q=; path=/"),
            ("userid on; userid_domain .x.org; userid_path /p;", "uid=", "==; domain=.x.org; path=/p"),
            ("userid on; userid_domain none;", "uid=", "==; path=/"),
            ("userid on; userid_expires max;", "uid=", "==; expires=Thu, 31-Dec-37 23:55:55 GMT; path=/"),
            ("userid on; userid_expires 1d;", "uid=", " GMT; path=/"),
            ("userid on; userid_expires off;", "uid=", "==; path=/"),
            ("userid on; userid_flags secure httponly;", "uid=", "; path=/; secure; httponly"),
            ("userid on; userid_flags samesite=strict;", "uid=", "; samesite=strict"),
            ("userid on; userid_flags samesite=lax samesite=none;", "uid=", "; samesite=lax; samesite=none"),
            ("userid on; userid_flags off;", "uid=", "; path=/"),
        ] {
            let answer = answered(directives, "");
            let cookie = answer.header("set-cookie").unwrap();
            assert!(cookie.starts_with(begin) && cookie.ends_with(end), "{directives}: {cookie}");
            assert!(answer.text().starts_with('|') && answer.text().len() > 30, "{}", answer.text());
        }
    }

    #[test]
    fn what_is_sent_is_what_the_variable_says() {
        let answer = answered("userid on;", "");
        let cookie = answer.header("set-cookie").unwrap();
        let id: Vec<u8> = STANDARD.decode(&cookie["uid=".len()..][..24]).unwrap();
        let numbers: Vec<String> =
            id.as_chunks().0.iter().map(|bytes| format!("{:08X}", u32::from_ne_bytes(*bytes))).collect();
        assert_eq!(answer.text(), format!("|uid={}", numbers.concat()));
        assert_eq!(answered("userid on;", cookie).text(), format!("uid={}|", numbers.concat()));
    }

    #[test]
    fn a_client_with_an_id_keeps_it() {
        for (directives, cookie, text) in [
            ("userid on;", format!("uid={GOT}"), "uid=0100007FAB74604A0000555A02010303|"),
            ("userid log;", format!("a=b; UID = {GOT}"), "uid=0100007FAB74604A0000555A02010303|"),
            ("userid off;", format!("uid={GOT}"), "|"),
            ("userid on; userid_name x;", format!("x={GOT}"), "x=0100007FAB74604A0000555A02010303|"),
        ] {
            let answer = answered(directives, &cookie);
            assert_eq!((answer.text().as_str(), answer.header("set-cookie")), (text, None), "{directives} {cookie}");
        }
    }

    #[test]
    fn an_id_that_cannot_be_read_is_replaced() {
        for cookie in ["uid=short", "uid=fwAAAUpgdKtaVQAA!wMBAgA", "uid", "uid=", "x=y"] {
            let answer = answered("userid on;", cookie);
            assert!(answer.header("set-cookie").is_some(), "{cookie}");
            assert!(answer.text().starts_with("|uid="), "{cookie}");
        }
    }

    #[test]
    fn a_mark_and_a_reset_send_ids_anew() {
        let marked = format!("uid={}q=", &GOT[..22]);
        assert_eq!(answered("userid on; userid_mark q;", &marked).header("set-cookie"), None);
        let moved = answered("userid on; userid_mark r;", &marked);
        assert_eq!(moved.header("set-cookie"), Some("uid=fwAAAUpgdKtaVQAAAwMBAgr=; path=/"));
        for (reset, anew) in [("0", false), ("\"\"", false), ("1", true), ("log", true)] {
            let answer = answered(&format!("userid on; set $uid_reset {reset};"), &format!("uid={GOT}"));
            assert_eq!(answer.header("set-cookie").is_some(), anew, "{reset}");
        }
    }

    #[test]
    fn a_policy_goes_along() {
        let answer = answered("userid on; userid_p3p 'policyref=\"/w3c/p3p.xml\"';", "");
        assert_eq!(answer.header("p3p"), Some("policyref=\"/w3c/p3p.xml\""));
        assert_eq!(answered("userid on; userid_p3p none;", "").header("p3p"), None);
    }

    #[test]
    fn subrequests_know_the_same_id() {
        let server = "userid on; location / { auth_request /a; auth_request_set $inner $uid_set; try_files /none @b; }
                      location @b { return 200 $inner|$uid_set; } location /a { userid off; return 204; }";
        let answer = ask(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").text();
        let (inner, outer) = answer.split_once('|').unwrap();
        assert!(!inner.is_empty() && inner == outer, "{answer}");
    }

    #[test]
    fn ids_differ() {
        let [a, b] = [(); 2].map(|()| answered("userid on;", "").text());
        assert_ne!(a, b);
    }

    #[test]
    fn settings_are_read_and_refused_in_nginx_s_words() {
        assert!(conf("userid_flags secure; userid_flags httponly;").userid.flags.has(SECURE));
        for (text, message) in [
            ("userid_mark xx;", "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\""),
            ("userid_mark -;", "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\""),
            ("userid_flags foo;", "invalid value \"foo\""),
            ("userid_expires x;", "\"userid_expires\" directive invalid value"),
            ("userid_domain a; userid_domain b;", "\"userid_domain\" directive is duplicate"),
            ("userid_service x;", "\"userid_service\" directive invalid number"),
            ("set $uid_set x;", "the duplicate \"uid_set\" variable"),
            ("set $uid_GOT x;", "the duplicate \"uid_GOT\" variable"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
