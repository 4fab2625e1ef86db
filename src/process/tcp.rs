//! What the system measures of a TCP connection.

#![allow(unsafe_code, reason = "the system's own structure is read by getsockopt, which no safe call here wraps")]

use std::mem;

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
pub fn tcp_info(descriptor: i32) -> Option<TcpInfo> {
    // SAFETY: a structure of numbers, for which zeros are a value; the system writes no more than `length` bytes of it,
    // and checks the descriptor itself.
    let (outcome, info) = unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsRawFd,
    };

    #[test]
    fn tcp_has_numbers_and_nothing_else_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(tcp_info(stream.as_raw_fd()).unwrap().snd_cwnd > 0);
        assert_eq!(tcp_info(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd()), None);
        assert_eq!(tcp_info(-1), None);
    }
}
