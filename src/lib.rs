//! Tidegate: a reverse proxy and load balancer that reads `nginx.conf` as it is.

pub mod syntax;
