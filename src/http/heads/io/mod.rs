//! The streams hyper works on: what it reads and writes as heads is not what stands on the wire.

mod client;
mod server;
mod side;
mod swap;
mod tunnel;
mod wire;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod testing;

pub use client::{ClientHandle, ClientIo, client, client_builder};
pub use server::{ServerHandle, ServerIo, Stop, server, server_builder};
pub use side::{Asked, BodyGuard, ClientSide, Meter, ServerSide};
pub use tunnel::Tunnel;
