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

    #[test]
    fn a_name_with_a_nul_is_not_found() {
        assert!(addresses(b"local\0host").is_empty());
    }
}
