//! The stream hyper works on: what it reads and writes as heads is not what stands on the wire.

mod server;
mod side;
mod swap;
mod tunnel;
mod wire;

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod testing;

pub use server::{ServerHandle, ServerIo, Stop, server, server_builder};
pub use side::{Asked, BodyGuard, Meter, ServerSide};
pub use tunnel::Tunnel;
pub use wire::Wire;
