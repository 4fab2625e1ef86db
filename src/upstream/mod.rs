//! Who answers a proxied request: groups of peers, which of them is next, and what is spoken to it.
//!
//! Groups, peers, balancing and `wire` are plain calculation: time comes in as a parameter and no socket is opened.
//! `connect`, `link`, `pool` and `pass` are the life of a request at an upstream.
//!
//! ```text
//! Group::new ── a reload: adopt(previous) ──▶ Arc<Group> ── select(client) ──▶ Selection
//!                                                             next(now) ─▶ Peer, done(outcome, now), next …
//! ```

pub mod balance;
pub mod body;
pub mod cache;
pub mod connect;
pub mod edit;
pub mod failure;
pub mod group;
pub mod grpc;
pub mod health;
pub mod lease;
pub mod link;
pub mod load;
pub mod local;
mod members;
pub mod names;
pub mod pass;
pub mod peer;
pub mod pool;
pub mod probe;
pub mod queue;
pub mod reason;
pub mod resolve;
pub mod selection;
mod shape;
pub mod spool;
pub mod state;
pub mod stats;
pub mod sticky;
pub mod store;
pub mod wire;

pub use balance::Balance;
pub use failure::Failure;
pub use group::{Group, Keepalive, NoServers};
pub use peer::{Address, Peer, ServerLine};
pub use reason::Reason;
pub use selection::{Client, NoLive, Outcome, Selection};

#[cfg(test)]
mod model;
#[cfg(test)]
mod sequences;
