//! Listening sockets: opened by the master, inherited from an old binary, kept through reloads
//! (`ngx_open_listening_sockets`).

pub(super) mod inherited;
mod options;

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    bundle::Handle,
    errno::Errno,
    log::{Level, Log},
    needs::{Address, Endpoint, ListenerNeed, Transport},
};

/// How often, and how far apart, an address in use is tried (nginx: fixed as well).
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// A socket that is bound, and listens if it takes connections.
#[derive(Debug)]
pub(super) struct Bound {
    pub endpoint: Endpoint,
    /// With `reuseport`, the thread it belongs to; 0 otherwise.
    pub index: usize,
    socket: OwnedFd,
    /// Whether an old binary opened it.
    inherited: bool,
}

impl Bound {
    /// What the socket is called beside a bundle.
    pub(super) fn handle(&self) -> Handle {
        Handle::Listener { endpoint: self.endpoint.clone(), index: self.index }
    }

    fn is(&self, endpoint: &Endpoint, index: usize) -> bool {
        self.index == index && self.endpoint == *endpoint
    }

    fn unix_path(&self) -> Option<&Path> {
        match &self.endpoint.address {
            Address::Unix(path) => Some(path),
            Address::Ip(_) => None,
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sockets of one configuration. Those a reload keeps are shared with the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Vec<Arc<Bound>>);

/// A socket could not be opened; the log has the lines.
#[derive(Debug, thiserror::Error)]
#[error("could not open a listening socket")]
pub(super) struct NotBound;

impl Listeners {
    /// Every socket.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Bound>> {
        self.0.iter()
    }

    /// Opens what `needs` asks for, taking over from `previous` what is bound there already. With `test`, an address
    /// in use is fine and nothing stays behind, as in `-t`.
    pub(super) fn open(
        needs: &[ListenerNeed],
        threads: usize,
        previous: &Self,
        test: bool,
        log: &Log,
    ) -> Result<Self, NotBound> {
        let wanted: Vec<(&ListenerNeed, usize)> = needs
            .iter()
            .flat_map(|need| (0..if need.reuseport && !test { threads } else { 1 }).map(move |index| (need, index)))
            .collect();
        let mut opened: Vec<Arc<Bound>> = Vec::new();
        for &(need, index) in &wanted {
            let Some(kept) = previous.0.iter().find(|bound| bound.is(&need.endpoint, index)) else { continue };
            if need.reuseport {
                // The old socket must allow company before the others can be bound beside it.
                options::share_port(&kept.socket, &need.endpoint, log);
            }
            opened.push(kept.clone());
        }
        for tries_left in (0..TRIES).rev() {
            let mut failed = false;
            for &(need, index) in &wanted {
                if opened.iter().any(|bound| bound.is(&need.endpoint, index)) {
                    continue;
                }
                match bind(need, test, log) {
                    Ok(socket) => opened.push(Arc::new(Bound {
                        endpoint: need.endpoint.clone(),
                        index,
                        socket,
                        inherited: false,
                    })),
                    Err(InUse::No) => {
                        Self(opened).delete_files_beyond(previous, log);
                        return Err(NotBound);
                    }
                    Err(InUse::Yes) => failed |= !test,
                }
            }
            if !failed {
                break;
            }
            log.write(Level::Notice, "try again to bind() after 500ms");
            std::thread::sleep(PAUSE);
            if tries_left == 0 {
                log.write(Level::Emerg, "still could not bind()");
                Self(opened).delete_files_beyond(previous, log);
                return Err(NotBound);
            }
        }
        if !test {
            for (need, index) in wanted {
                if let Some(bound) = opened.iter().find(|bound| bound.is(&need.endpoint, index)) {
                    options::configure(&bound.socket, need, log);
                }
            }
        }
        Ok(Self(opened))
    }

    /// Removes the socket files of these listeners that `kept` does not have: after a reload, or a failed one.
    pub(super) fn delete_files_beyond(&self, kept: &Self, log: &Log) {
        for bound in self.0.iter().filter(|bound| !kept.0.iter().any(|other| Arc::ptr_eq(other, bound))) {
            if let Some(path) = bound.unix_path() {
                delete(path, log);
            }
        }
    }

    /// Removes the socket files at the end of the process. With `inherited_too` unset, those that came from a binary
    /// which still runs stay (`ngx_close_listening_sockets`).
    pub(super) fn delete_files(&self, inherited_too: bool, log: &Log) {
        for bound in self.0.iter().filter(|bound| inherited_too || !bound.inherited) {
            if let Some(path) = bound.unix_path() {
                delete(path, log);
            }
        }
    }
}

fn delete(path: &Path, log: &Log) {
    if let Err(error) = std::fs::remove_file(path) {
        log.write(Level::Emerg, format!("unlink() {} failed ({})", path.display(), Errno::from(error)));
    }
}

/// A socket that could not be bound: because somebody has the address, or for a reason that waiting does not change.
enum InUse {
    Yes,
    No,
}

/// One socket, bound and listening. What fails is logged here.
fn bind(need: &ListenerNeed, test: bool, log: &Log) -> Result<OwnedFd, InUse> {
    let endpoint = &need.endpoint;
    let emerg = |what: &str, error: std::io::Error| {
        log.write(Level::Emerg, format!("{what} failed ({})", Errno::from(error)));
        InUse::No
    };
    let (domain, address) = match &endpoint.address {
        Address::Ip(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(path) => {
            let address = SockAddr::unix(path).map_err(|error| emerg(&format!("socket() {endpoint}"), error))?;
            (Domain::UNIX, address)
        }
    };
    let kind = match endpoint.transport {
        Transport::Stream => Type::STREAM,
        Transport::Datagram => Type::DGRAM,
    };
    let socket = open(domain, kind, need.multipath).map_err(|error| emerg(&format!("socket() {endpoint}"), error))?;
    if endpoint.transport == Transport::Stream || !test {
        socket
            .set_reuse_address(true)
            .map_err(|error| emerg(&format!("setsockopt(SO_REUSEADDR) {endpoint}"), error))?;
    }
    if need.reuseport && !test {
        socket.set_reuse_port(true).map_err(|error| emerg(&format!("setsockopt(SO_REUSEPORT) {endpoint}"), error))?;
    }
    if domain == Domain::IPV6
        && let Err(error) = socket.set_only_v6(need.ipv6only)
    {
        let errno = Errno::from(error);
        log.write(Level::Emerg, format!("setsockopt(IPV6_V6ONLY) {endpoint} failed ({errno}), ignored"));
    }
    socket.set_nonblocking(true).map_err(|error| emerg(&format!("ioctl(FIONBIO) {endpoint}"), error))?;
    socket.bind(&address).map_err(|error| refused(&format!("bind() to {endpoint}"), error, test, log))?;
    if let Address::Unix(path) = &endpoint.address {
        if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)) {
            log.write(Level::Emerg, format!("chmod() \"{}\" failed ({})", path.display(), Errno::from(error)));
        }
        if test {
            delete(path, log);
        }
    }
    if endpoint.transport == Transport::Stream {
        let what = format!("listen() to {endpoint}, backlog {}", need.backlog);
        socket.listen(need.backlog).map_err(|error| refused(&what, error, test, log))?;
    }
    Ok(socket.into())
}

/// `what failed (98: Address already in use)`, which a test of the configuration does not mind.
fn refused(what: &str, error: std::io::Error, test: bool, log: &Log) -> InUse {
    let errno = Errno::from(error);
    let in_use = errno.0 == libc::EADDRINUSE;
    if !(in_use && test) {
        log.write(Level::Emerg, format!("{what} failed ({errno})"));
    }
    if in_use { InUse::Yes } else { InUse::No }
}

fn open(domain: Domain, kind: Type, multipath: bool) -> std::io::Result<Socket> {
    #[cfg(target_os = "linux")]
    if multipath && domain != Domain::UNIX {
        return Socket::new(domain, kind, Some(Protocol::MPTCP));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (multipath, Protocol::TCP);
    Socket::new(domain, kind, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener on a port that was free a moment ago.
    fn local() -> ListenerNeed {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ListenerNeed::new(Endpoint::tcp(free.local_addr().unwrap()))
    }

    #[test]
    fn a_reload_keeps_sockets_and_opens_what_is_new() {
        let log = Log::default();
        let (a, b) = (local(), local());
        let first = Listeners::open(std::slice::from_ref(&a), 1, &Listeners::default(), false, &log).unwrap();
        let second = Listeners::open(&[b, a], 1, &first, false, &log).unwrap();
        assert_eq!(second.0.len(), 2);
        assert!(second.iter().any(|bound| Arc::ptr_eq(bound, &first.0[0])));
    }

    #[test]
    fn reuseport_gives_every_thread_its_own() {
        let log = Log::default();
        let plain = local();
        let first = Listeners::open(std::slice::from_ref(&plain), 3, &Listeners::default(), false, &log).unwrap();
        assert_eq!(first.0.len(), 1);
        let shared = ListenerNeed { reuseport: true, ..plain };
        let second = Listeners::open(&[shared], 3, &first, false, &log).unwrap();
        assert_eq!(second.iter().map(|bound| bound.index).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_address_in_use_is_fine_for_a_test_and_five_tries_else() {
        let log = Log::default();
        let need = [local()];
        let _held = Listeners::open(&need, 1, &Listeners::default(), false, &log).unwrap();
        assert!(Listeners::open(&need, 1, &Listeners::default(), true, &log).unwrap().0.is_empty());
        log.capture();
        assert!(Listeners::open(&need, 1, &Listeners::default(), false, &log).is_err());
        let said = String::from_utf8(log.captured()).unwrap();
        let endpoint = &need[0].endpoint;
        let in_use = format!("nginx: [emerg] bind() to {endpoint} failed ({})\n", Errno(libc::EADDRINUSE));
        assert_eq!(said, in_use.repeat(5) + "nginx: [emerg] still could not bind()\n");
    }

    #[test]
    fn a_unix_socket_is_open_to_all_and_gone_after_a_test() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let need = [ListenerNeed::new(Endpoint::unix(&path))];
        let log = Log::default();
        Listeners::open(&need, 1, &Listeners::default(), true, &log).unwrap();
        assert!(!path.exists());
        let opened = Listeners::open(&need, 1, &Listeners::default(), false, &log).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        opened.delete_files(true, &log);
        assert!(!path.exists());
    }
}
