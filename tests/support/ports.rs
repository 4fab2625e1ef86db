//! Free ports for what runs outside a container.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Handed out from here, below what the kernel takes for outgoing connections.
const RANGE: std::ops::Range<u16> = 25000..26900;

/// A port nobody listens on, on any address; given out once in this process until the range is used up.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = RANGE.end - RANGE.start;
    // Far from those of a process that was started beside this one.
    let first = std::process::id().wrapping_mul(397) % u32::from(span);
    let first = u16::try_from(first).expect("smaller than the range");
    for _ in 0..span {
        let port = RANGE.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % span) % span;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
