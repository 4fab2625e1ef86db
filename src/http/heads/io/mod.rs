//! A client's connection as a stream of requests: heads and bodies come off the wire, answers go out over it.

mod incoming;
mod pace;
mod queue;
mod sending;
mod server;
mod side;
mod tunnel;
mod wire;

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod testing;

pub use incoming::{Cut, Incoming};
pub use pace::Pace;
pub use queue::Queue;
pub use sending::{Pieces, Sending};
pub use server::{ServerHandle, Stop, server};
pub use side::{Meter, ServerSide};
pub use tunnel::Tunnel;
pub use wire::Wire;
