//! Waiting for something to become true.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long something that should happen at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// After `limit`, naming `what`.
pub(crate) fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Whether a TCP connection to this address is accepted.
pub(crate) fn connectable(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

/// Whether a connection to this unix socket is accepted.
pub(crate) fn unix_connectable(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
