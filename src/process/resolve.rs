//! Host names to addresses, by the system's resolver as nginx asks it (`ngx_inet_resolve_host`).
#![allow(
    unsafe_code,
    reason = "`getaddrinfo` with AI_ADDRCONFIG has no safe form: the standard library leaves the flag out"
)]

use std::{
    ffi::CString,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};
use tokio::sync::oneshot;

/// Every address of a name, while the server runs. The system may take its time: a thread of its own waits for it, so that
/// nothing else does, not even the end of the process.
pub async fn look_up(host: String) -> Vec<IpAddr> {
    let (tell, told) = oneshot::channel();
    // Who has asked may have left.
    let ask = move || drop(tell.send(addresses(host.as_bytes())));
    match std::thread::Builder::new().name("resolver".to_owned()).spawn(ask) {
        Ok(_) => told.await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Every address of a name, in the resolver's order, repeated where it repeats them.
/// With AI_ADDRCONFIG a machine without IPv6 gets no IPv6 addresses. An empty answer means "host not found".
pub(super) fn addresses(host: &[u8]) -> Vec<IpAddr> {
    let Ok(host) = CString::new(host) else { return Vec::new() };
    let mut found = Vec::new();
    // SAFETY: `hints` is plain data; the list `getaddrinfo` returns is well formed, read only here, and freed once.
    // A node's `ai_addr` holds an address of the family that `ai_family` says.
    unsafe {
        let mut hints: libc::addrinfo = mem::zeroed();
        hints.ai_family = libc::AF_UNSPEC;
        hints.ai_socktype = libc::SOCK_STREAM;
        hints.ai_flags = libc::AI_ADDRCONFIG;
        let mut list = ptr::null_mut();
        if libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) != 0 {
            return found;
        }
        let mut next = list;
        while let Some(node) = next.as_ref() {
            match node.ai_family {
                libc::AF_INET => {
                    let address = node.ai_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    found.push(IpAddr::V4(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())));
                }
                libc::AF_INET6 => {
                    let address = node.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    found.push(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)));
                }
                _ => {}
            }
            next = node.ai_next;
        }
        libc::freeaddrinfo(list);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_address_is_its_own_answer() {
        assert_eq!(addresses(b"127.0.0.1"), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_while_others_go_on() {
        assert_eq!(look_up("127.0.0.1".to_owned()).await, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert!(look_up(String::new()).await.is_empty());
    }

    #[test]
    fn a_name_with_a_nul_is_not_found() {
        assert!(addresses(b"local\0host").is_empty());
    }
}
