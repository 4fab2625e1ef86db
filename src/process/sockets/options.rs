//! The options of a listening socket (`ngx_configure_listening_sockets`). One that fails is noted and ignored.

use std::{fmt::Display, os::fd::OwnedFd};

use socket2::SockRef;

use crate::process::{
    errno::Errno,
    log::{Level, Log},
    needs::{Address, Endpoint, ListenerNeed, Transport},
    sys,
};

/// Allows other sockets on the same address.
pub(super) fn share_port(socket: &OwnedFd, endpoint: &Endpoint, log: &Log) {
    if let Err(error) = SockRef::from(socket).set_reuse_port(true) {
        let errno = Errno::from(error);
        log.write(Level::Alert, format!("setsockopt(SO_REUSEPORT) {endpoint} failed ({errno}), ignored"));
    }
}

/// Sets everything a reload may change: buffers, keepalive, fast open, backlog, deferred accept.
pub(super) fn configure(socket: &OwnedFd, need: &ListenerNeed, log: &Log) {
    let endpoint = &need.endpoint;
    let note = |what: &dyn Display, errno: Errno| {
        log.write(Level::Alert, format!("{what} failed ({errno}), ignored"));
    };
    let set = |level: i32, option: i32, name: &str, value: Option<i32>| {
        let Some(value) = value else { return };
        if let Err(errno) = sys::set_socket_option(socket, level, option, value) {
            note(&format!("setsockopt({name}, {value}) {endpoint}"), errno);
        }
    };
    set(libc::SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF", need.rcvbuf);
    set(libc::SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF", need.sndbuf);
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, "SO_KEEPALIVE", need.keepalive.on.map(i32::from));
    #[cfg(target_os = "macos")]
    set(libc::IPPROTO_TCP, libc::TCP_KEEPALIVE, "TCP_KEEPALIVE", need.keepalive.idle);
    #[cfg(not(target_os = "macos"))]
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, "TCP_KEEPIDLE", need.keepalive.idle);
    set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, "TCP_KEEPINTVL", need.keepalive.interval);
    set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, "TCP_KEEPCNT", need.keepalive.count);
    set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, "TCP_FASTOPEN", need.fastopen);
    if endpoint.transport == Transport::Stream
        && let Err(error) = SockRef::from(socket).listen(need.backlog)
    {
        note(&format!("listen() to {endpoint}, backlog {}", need.backlog), error.into());
    }
    // Last, as in nginx: the kernel hands a connection over only when its first bytes are there, or after a second.
    #[cfg(target_os = "linux")]
    if endpoint.transport == Transport::Stream && matches!(endpoint.address, Address::Ip(_)) {
        let value = i32::from(need.deferred);
        if let Err(errno) = sys::set_socket_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value) {
            note(&format!("setsockopt(TCP_DEFER_ACCEPT, {value}) for {endpoint}"), errno);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = |address: Address| matches!(address, Address::Ip(_));
}
