//! What the master hands to the worker: how it was called, everything the configuration was told, and which of the
//! descriptors that travel along is what.

pub(super) mod codec;

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use self::codec::{Malformed, Reader, Writer};
use super::{
    errno::Errno,
    invocation::{Invocation, Options},
    needs::{Address, Endpoint, Transport},
    profile::Profile,
    resources::{Answer, Answers, Call, Facts, Question, ReadError},
};

/// One reading of the configuration, ready to be repeated elsewhere without touching the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub invocation: Invocation,
    pub facts: Facts,
    pub answers: Answers,
    /// What `ps` calls the master; its worker has the same name.
    pub process_name: Vec<u8>,
    /// Whether there is a terminal or a service manager behind the master: decides what WINCH means.
    pub daemonized: bool,
    /// How many workers ended although nobody told them to, and were replaced.
    pub respawned: u64,
}

/// What a descriptor beside a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handle {
    /// A listening socket; with `reuseport`, thread `index`'s own.
    Listener { endpoint: Endpoint, index: usize },
    /// A log file.
    Log(PathBuf),
}

impl Bundle {
    /// The message, naming the descriptors that go along in their order.
    pub(super) fn encode(&self, handles: &[Handle]) -> Vec<u8> {
        let mut writer = Writer::default();
        put_invocation(&mut writer, &self.invocation);
        put_facts(&mut writer, &self.facts);
        writer.list(self.answers.iter(), |writer, (question, answer)| put_answer(writer, question, answer));
        writer.bytes(&self.process_name);
        writer.number(self.daemonized.into());
        writer.number(self.respawned);
        writer.0.extend_from_slice(&encode_handles(handles));
        writer.0
    }

    /// The bundle and the names of the descriptors beside it.
    pub(super) fn decode(message: &[u8]) -> Result<(Self, Vec<Handle>), Malformed> {
        let mut reader = Reader(message);
        let invocation = take_invocation(&mut reader)?;
        let facts = take_facts(&mut reader)?;
        let answers = reader.list(take_answer)?.into_iter().collect();
        let process_name = reader.bytes()?.to_vec();
        let daemonized = reader.number()? != 0;
        let respawned = reader.number()?;
        let handles = decode_handles(reader.0)?;
        Ok((Self { invocation, facts, answers, process_name, daemonized, respawned }, handles))
    }
}

/// Names of descriptors alone, as they go with reopened logs.
pub(super) fn encode_handles(handles: &[Handle]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.list(handles.iter(), |writer, handle| match handle {
        Handle::Listener { endpoint, index } => {
            writer.number(match (endpoint.transport, &endpoint.address) {
                (Transport::Stream, Address::Ip(_)) => 0,
                (Transport::Datagram, Address::Ip(_)) => 1,
                (Transport::Stream, Address::Unix(_)) => 2,
                (Transport::Datagram, Address::Unix(_)) => 3,
            });
            match &endpoint.address {
                Address::Ip(address) => put_address(writer, *address),
                Address::Unix(path) => put_path(writer, path),
            }
            writer.number(*index as u64);
        }
        Handle::Log(path) => {
            writer.number(4);
            put_path(writer, path);
        }
    });
    writer.0
}

/// The reverse of [`encode_handles`].
pub(super) fn decode_handles(message: &[u8]) -> Result<Vec<Handle>, Malformed> {
    Reader(message).list(|reader| {
        let kind = reader.number()?;
        let transport = if kind % 2 == 0 { Transport::Stream } else { Transport::Datagram };
        let address = match kind {
            0 | 1 => Address::Ip(take_address(reader)?),
            2 | 3 => Address::Unix(take_path(reader)?),
            4 => return Ok(Handle::Log(take_path(reader)?)),
            _ => return Err(Malformed),
        };
        Ok(Handle::Listener { endpoint: Endpoint { transport, address }, index: reader.small()? })
    })
}

fn put_invocation(writer: &mut Writer, invocation: &Invocation) {
    writer.bytes(invocation.profile.name.as_bytes());
    for path in [&invocation.prefix, &invocation.conf_prefix, &invocation.conf_file, &invocation.error_log] {
        put_path(writer, path);
    }
    writer.bytes(&invocation.globals);
    writer.list(invocation.arguments.iter(), |writer, argument| writer.bytes(argument.as_bytes()));
}

fn take_invocation(reader: &mut Reader<'_>) -> Result<Invocation, Malformed> {
    let profile = std::str::from_utf8(reader.bytes()?).ok().and_then(Profile::named).ok_or(Malformed)?;
    // A worker only serves, so the options of a test or an order are at rest.
    let mut invocation = Invocation::new(Options::default(), profile, Vec::new());
    invocation.prefix = take_path(reader)?;
    invocation.conf_prefix = take_path(reader)?;
    invocation.conf_file = take_path(reader)?;
    invocation.error_log = take_path(reader)?;
    invocation.globals = reader.bytes()?.to_vec();
    invocation.arguments = reader.list(|reader| Ok(OsString::from_vec(reader.bytes()?.to_vec())))?;
    Ok(invocation)
}

fn put_facts(writer: &mut Writer, facts: &Facts) {
    writer.number(facts.superuser.into());
    writer.number(facts.processors as u64);
    writer.bytes(&facts.host_name);
    writer.number(facts.open_files);
}

fn take_facts(reader: &mut Reader<'_>) -> Result<Facts, Malformed> {
    Ok(Facts {
        superuser: reader.number()? != 0,
        processors: reader.small()?,
        host_name: reader.bytes()?.to_vec(),
        open_files: reader.number()?,
    })
}

fn put_answer(writer: &mut Writer, question: &Question, answer: &Answer) {
    let (kind, key) = match question {
        Question::Read(path) => (0, path.as_os_str().as_bytes()),
        Question::Glob(pattern) => (1, pattern.as_os_str().as_bytes()),
        Question::Resolve(host) => (2, host.as_slice()),
        Question::User(name) => (3, name.as_slice()),
        Question::Group(name) => (4, name.as_slice()),
    };
    writer.number(kind);
    writer.bytes(key);
    match answer {
        Answer::Read(answer) => put_result(
            writer,
            answer.as_ref().map_err(|error| {
                let call = if error.call == Call::Open { 0 } else { 1 << 32 };
                call | u64::from(error.errno.0.unsigned_abs())
            }),
            |writer, bytes| writer.bytes(bytes),
        ),
        Answer::Glob(answer) => put_result(writer, answer.as_ref().map_err(number_of), |writer, paths| {
            writer.list(paths.iter(), |writer, path| put_path(writer, path));
        }),
        Answer::Resolve(addresses) => writer.list(addresses.iter(), |writer, &address| put_ip(writer, address)),
        Answer::User(answer) | Answer::Group(answer) => {
            put_result(writer, answer.as_ref().map_err(number_of), |writer, &id| writer.number(id.into()));
        }
    }
}

fn take_answer(reader: &mut Reader<'_>) -> Result<(Question, Answer), Malformed> {
    let kind = reader.number()?;
    let key = reader.bytes()?.to_vec();
    let path = |key| PathBuf::from(OsString::from_vec(key));
    Ok(match kind {
        0 => {
            let answer = take_result(reader, |reader| Ok(reader.bytes()?.into()))?;
            let answer = answer.map_err(|number| ReadError {
                call: if number >> 32 == 0 { Call::Open } else { Call::Read },
                errno: errno_of(number & u64::from(u32::MAX)),
            });
            (Question::Read(path(key)), Answer::Read(answer))
        }
        1 => {
            let answer = take_result(reader, |reader| reader.list(take_path))?;
            (Question::Glob(path(key)), Answer::Glob(answer.map_err(errno_of)))
        }
        2 => (Question::Resolve(key), Answer::Resolve(reader.list(take_ip)?)),
        3 => (Question::User(key), Answer::User(take_result(reader, |reader| reader.small())?.map_err(errno_of))),
        4 => (Question::Group(key), Answer::Group(take_result(reader, |reader| reader.small())?.map_err(errno_of))),
        _ => return Err(Malformed),
    })
}

fn number_of(errno: &Errno) -> u64 {
    errno.0.unsigned_abs().into()
}

fn errno_of(number: u64) -> Errno {
    Errno(i32::try_from(number).unwrap_or(libc::EIO))
}

fn put_result<T>(writer: &mut Writer, result: Result<T, u64>, write: impl FnOnce(&mut Writer, T)) {
    match result {
        Ok(value) => {
            writer.number(1);
            write(writer, value);
        }
        Err(number) => {
            writer.number(0);
            writer.number(number);
        }
    }
}

type Taken<T> = Result<Result<T, u64>, Malformed>;

fn take_result<T>(reader: &mut Reader<'_>, read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>) -> Taken<T> {
    if reader.number()? == 1 { read(reader).map(Ok) } else { reader.number().map(Err) }
}

pub(super) fn put_path(writer: &mut Writer, path: &Path) {
    writer.bytes(path.as_os_str().as_bytes());
}

pub(super) fn take_path(reader: &mut Reader<'_>) -> Result<PathBuf, Malformed> {
    Ok(PathBuf::from(OsStr::from_bytes(reader.bytes()?)))
}

fn put_ip(writer: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.bytes(&address.octets()),
        IpAddr::V6(address) => writer.bytes(&address.octets()),
    }
}

fn take_ip(reader: &mut Reader<'_>) -> Result<IpAddr, Malformed> {
    let bytes = reader.bytes()?;
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| Malformed)
}

fn put_address(writer: &mut Writer, address: SocketAddr) {
    put_ip(writer, address.ip());
    writer.number(address.port().into());
    if let SocketAddr::V6(address) = address {
        writer.number(address.flowinfo().into());
        writer.number(address.scope_id().into());
    }
}

fn take_address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let ip = take_ip(reader)?;
    let port = reader.small()?;
    Ok(match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, reader.small()?, reader.small()?).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Bundle, Vec<Handle>) {
        let options = Options { prefix: Some("/p".into()), globals: Some("daemon off;".into()), ..Options::default() };
        let profile = Profile::named("debian").unwrap();
        let answers = [
            (Question::Read("/a".into()), Answer::Read(Ok(b"\0\xff"[..].into()))),
            (Question::Read("/b".into()), Answer::Read(Err(ReadError { call: Call::Read, errno: Errno(21) }))),
            (Question::Glob("/*".into()), Answer::Glob(Ok(vec!["/x".into(), "/y".into()]))),
            (Question::Glob("/?".into()), Answer::Glob(Err(Errno(13)))),
            (
                Question::Resolve(b"h".to_vec()),
                Answer::Resolve(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]),
            ),
            (Question::User(b"u".to_vec()), Answer::User(Ok(7))),
            (Question::Group(b"g".to_vec()), Answer::Group(Err(Errno(0)))),
        ];
        let bundle = Bundle {
            invocation: Invocation::new(options, profile, vec!["nginx".into(), "-p".into(), "/p".into()]),
            facts: Facts { superuser: true, processors: 4, host_name: b"h".to_vec(), open_files: 1024 },
            answers: answers.into_iter().collect(),
            process_name: b"nginx".to_vec(),
            daemonized: true,
            respawned: 3,
        };
        let endpoints = [
            Endpoint::tcp("127.0.0.1:80".parse().unwrap()),
            Endpoint { transport: Transport::Datagram, address: Address::Ip("[fe80::1%3]:53".parse().unwrap()) },
            Endpoint::unix("/run/s"),
            Endpoint { transport: Transport::Datagram, address: Address::Unix("/run/d".into()) },
        ];
        let mut handles: Vec<Handle> =
            endpoints.into_iter().enumerate().map(|(index, endpoint)| Handle::Listener { endpoint, index }).collect();
        handles.push(Handle::Log("/var/log/x".into()));
        (bundle, handles)
    }

    #[test]
    fn a_bundle_arrives_as_it_was_sent() {
        let (bundle, handles) = sample();
        assert_eq!(Bundle::decode(&bundle.encode(&handles)), Ok((bundle, handles)));
    }

    #[test]
    fn no_cut_of_a_bundle_is_taken_for_one() {
        let (bundle, handles) = sample();
        let message = bundle.encode(&handles);
        for end in 0..message.len() {
            assert_eq!(Bundle::decode(&message[..end]), Err(Malformed), "cut at {end}");
        }
    }
}
