//! Lines that go to a syslog server, in the form of RFC 3164, one datagram each (`ngx_syslog.c`).

use super::{
    errno::Errno,
    needs::{self, Address},
    sys,
};
use std::{
    collections::HashMap,
    io::{self, ErrorKind, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// Who sends to one server under one name. The socket is opened with the first line, never waited for, and opened anew
/// when the server has gone away.
#[derive(Debug)]
pub struct Syslog {
    need: needs::Syslog,
    socket: Mutex<Option<Socket>>,
}

/// Those of a generation.
pub(super) type Syslogs = HashMap<needs::Syslog, Arc<Syslog>>;

/// A line that was lost, and in which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}() failed ({errno})")]
pub struct Lost {
    /// `connect` or `send`.
    pub call: &'static str,
    pub errno: Errno,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    pub fn new(need: needs::Syslog) -> Self {
        Self { need, socket: Mutex::new(None) }
    }

    /// Those that a configuration needs.
    pub(super) fn all(needs: &needs::Needs) -> Syslogs {
        needs.syslogs.iter().map(|need| (need.clone(), Arc::new(Self::new(need.clone())))).collect()
    }

    /// What it was made of.
    pub fn need(&self) -> &needs::Syslog {
        &self.need
    }

    /// Sends one line, without its end. `severity` is that of the line, 0 being the worst; `None`: the directive's.
    ///
    /// # Errors
    /// [`Lost`]; nothing is sent twice.
    pub fn send(&self, severity: Option<u8>, line: &[u8]) -> Result<(), Lost> {
        let mut packet = self.head(severity.unwrap_or(self.need.severity));
        packet.extend_from_slice(line);
        // Nothing is left half done by a thread that panics here.
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |call: &'static str| move |error: io::Error| Lost { call, errno: error.into() };
        let open = match &mut *socket {
            Some(open) => open,
            none => none.insert(Socket::connect(&self.need.endpoint.address).map_err(lost("connect"))?),
        };
        open.send(&packet).map_err(|error| {
            if error.kind() != ErrorKind::WouldBlock {
                *socket = None;
            }
            lost("send")(error)
        })
    }

    /// `<190>Nov  1 10:00:00 host nginx: ` (`ngx_syslog_add_header`).
    fn head(&self, severity: u8) -> Vec<u8> {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let now = sys::local_time(SystemTime::now());
        let month = usize::try_from(now.month - 1).ok().and_then(|at| MONTHS.get(at)).copied().unwrap_or("Jan");
        let priority = u16::from(self.need.facility) * 8 + u16::from(severity);
        let mut head = Vec::with_capacity(256);
        // Writing into memory does not fail.
        let _ = write!(head, "<{priority}>{month} {:2} {:02}:{:02}:{:02} ", now.day, now.hour, now.minute, now.second);
        if let Some(host) = &self.need.host_name {
            head.extend_from_slice(host);
            head.push(b' ');
        }
        head.extend_from_slice(&self.need.tag);
        head.extend_from_slice(b": ");
        head
    }
}

impl Socket {
    fn connect(to: &Address) -> io::Result<Self> {
        match to {
            Address::Ip(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Address::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(packet).map(drop),
            Self::Unix(socket) => socket.send(packet).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::needs::{Endpoint, Transport};

    fn syslog(address: Address, host: Option<&str>) -> Syslog {
        Syslog::new(needs::Syslog {
            endpoint: Endpoint { transport: Transport::Datagram, address },
            facility: 23,
            severity: 6,
            tag: b"nginx".to_vec(),
            host_name: host.map(Into::into),
        })
    }

    #[test]
    fn a_line_is_a_datagram_with_a_head() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut packet = [0; 512];
        for (host, severity, start, end) in
            [(Some("machine"), None, "<190>", " machine nginx: GET /"), (None, Some(3), "<187>", " nginx: GET /")]
        {
            let syslog = syslog(Address::Ip(server.local_addr().unwrap()), host);
            syslog.send(severity, b"GET /").unwrap();
            let length = server.recv(&mut packet).unwrap();
            let text = std::str::from_utf8(&packet[..length]).unwrap();
            assert!(text.starts_with(start) && text.ends_with(end), "{text}");
            assert_eq!(text.len(), start.len() + "Nov  1 10:00:00".len() + end.len(), "{text}");
        }
    }

    #[test]
    fn a_server_that_comes_back_is_heard_by_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let syslog = syslog(Address::Unix(path.clone()), None);
        assert_eq!(
            syslog.send(None, b"one").unwrap_err().to_string(),
            "connect() failed (2: No such file or directory)"
        );
        let mut packet = [0; 512];
        for _ in 0..2 {
            let server = UnixDatagram::bind(&path).unwrap();
            // The first line tells that the one before has gone.
            let _ = syslog.send(None, b"lost");
            let _ = syslog.send(None, b"two");
            server.recv(&mut packet).unwrap();
            drop(server);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
