//! Caches: answers of upstreams that are kept as files, and given again (`ngx_http_file_cache.c`).
//!
//! The files are nginx's, byte for byte, so that either server can go on with the other's cache.

mod entry;
mod file;
pub mod key;
mod manager;
pub mod policy;
pub mod settings;
mod zone;

pub use entry::{Entry, Found, Turn};
pub use file::{Header, Validity};
pub use key::Key;
pub use manager::begin;
pub use settings::Caching;
pub use zone::{Status, Tally, Zone};
