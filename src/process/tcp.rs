//! What the system knows of a TCP connection.

#![allow(
    unsafe_code,
    reason = "sockets are asked about by their numbers, and the system's own structure is read by getsockopt"
)]

use std::{net::SocketAddr, os::fd::BorrowedFd};

/// A few numbers of `TCP_INFO`, for `$tcpinfo_rtt` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// The round trip, in microseconds.
    pub rtt: u32,
    /// How much it varies, in microseconds.
    pub rttvar: u32,
    /// The congestion window, in segments.
    pub snd_cwnd: u32,
    /// Bytes.
    pub rcv_space: u32,
}

/// Asks about a socket by its number; `None` if it is no TCP socket, or none at all.
#[cfg(target_os = "linux")]
pub fn tcp_info(descriptor: i32) -> Option<TcpInfo> {
    // SAFETY: a structure of numbers, for which zeros are a value; the system writes no more than `length` bytes of it,
    // and checks the descriptor itself.
    let (outcome, info) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let place = (&raw mut info).cast();
        (libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length), info)
    };
    (outcome == 0).then_some(TcpInfo {
        rtt: info.tcpi_rtt,
        rttvar: info.tcpi_rttvar,
        snd_cwnd: info.tcpi_snd_cwnd,
        rcv_space: info.tcpi_rcv_space,
    })
}

/// The same where systems do not tell.
#[cfg(not(target_os = "linux"))]
pub fn tcp_info(_descriptor: i32) -> Option<TcpInfo> {
    None
}

/// The address a client connected to, by its socket's number; `None` if there is no such TCP socket.
pub fn local_address(descriptor: i32) -> Option<SocketAddr> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: it is borrowed for one call, which a number that is no socket makes fail.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsRawFd,
    };

    #[test]
    #[cfg(target_os = "linux")]
    fn tcp_has_numbers_and_nothing_else_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(tcp_info(stream.as_raw_fd()).unwrap().snd_cwnd > 0);
        assert_eq!(tcp_info(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd()), None);
        assert_eq!(tcp_info(-1), None);
    }

    #[test]
    fn a_connection_knows_the_address_it_was_made_to() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let stream = TcpStream::connect(("127.0.0.2", listener.local_addr().unwrap().port())).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(local_address(accepted.as_raw_fd()), stream.peer_addr().ok());
        assert_eq!(local_address(-1), None);
    }
}
