//! Sockets from an old binary: nginx passes their numbers in the environment variable `NGINX`, as `6;7;`.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use socket2::{SockRef, Type};

use super::{Bound, Listeners};
use crate::process::{
    errno::Errno,
    log::{Level, Log},
    needs::{Address, Endpoint, Transport},
    sys,
};

/// The variable's name.
pub(crate) const VARIABLE: &str = "NGINX";

/// What the old binary left us; `None` when there is no old binary (`ngx_add_inherited_sockets`).
pub(crate) fn take(log: &Log) -> Option<Listeners> {
    let list = std::env::var_os(VARIABLE)?;
    let list = list.to_string_lossy();
    log.write(Level::Notice, format!("using inherited sockets from \"{list}\""));
    let mut listeners = Listeners::default();
    let mut rest = &*list;
    while let Some(end) = rest.find([':', ';']) {
        let Ok(number) = rest[..end].parse::<i32>() else {
            let text = "environment variable, ignoring the rest of the variable";
            log.write(Level::Emerg, format!("invalid socket number \"{rest}\" in {VARIABLE} {text}"));
            return Some(listeners);
        };
        rest = &rest[end + 1..];
        match sys::adopt(number).and_then(|socket| identify(&socket).map(|endpoint| (socket, endpoint))) {
            Ok((socket, endpoint)) => {
                // Several sockets of one address are those of `reuseport`, in the order of their threads.
                let index = listeners.0.iter().filter(|bound| bound.endpoint == endpoint).count();
                listeners.0.push(Arc::new(Bound { endpoint, index, socket, inherited: true }));
            }
            Err(errno) => {
                log.write(Level::Crit, format!("getsockname() of the inherited socket #{number} failed ({errno})"));
            }
        }
    }
    if !rest.is_empty() {
        let text = "environment variable, ignoring";
        log.write(Level::Emerg, format!("invalid socket number \"{rest}\" in {VARIABLE} {text}"));
    }
    Some(listeners)
}

/// The variable for a new binary, and the descriptors it must find open.
pub(crate) fn pass(listeners: &Listeners) -> (String, Vec<i32>) {
    let numbers: Vec<i32> = listeners.iter().map(|bound| bound.socket.as_raw_fd()).collect();
    (numbers.iter().map(|number| format!("{number};")).collect(), numbers)
}

fn identify(socket: &OwnedFd) -> Result<Endpoint, Errno> {
    let socket = SockRef::from(socket);
    let address = socket.local_addr()?;
    let transport = if socket.r#type()? == Type::DGRAM { Transport::Datagram } else { Transport::Stream };
    let address = match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => Address::Ip(address),
        (None, Some(path)) => Address::Unix(path.to_owned()),
        (None, None) => return Err(Errno(libc::EAFNOSUPPORT)),
    };
    Ok(Endpoint { transport, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_tells_where_it_is_bound() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(identify(&OwnedFd::from(socket)), Ok(Endpoint::tcp(address)));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(identify(&OwnedFd::from(socket)).map(|endpoint| endpoint.transport), Ok(Transport::Datagram));
        assert!(identify(&OwnedFd::from(tempfile::tempfile().unwrap())).is_err());
    }
}
