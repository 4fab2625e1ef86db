//! What is spoken to upstream servers and in front of connections: bytes in, bytes out, no sockets and no clock.

pub mod proxy_protocol;
pub mod uwsgi;
