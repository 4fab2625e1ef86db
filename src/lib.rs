//! Tidegate: a reverse proxy and load balancer that reads `nginx.conf` as it is.
//!
//! ```text
//! bytes of files ─ syntax ─▶ statements ─ config ─▶ settings per level ─ http::level ─▶ Generation
//!   (places kept)            (directives typed, faults collected)   (listeners · servers · locations · upstreams)
//!
//! accepted socket ─ http::connection ─▶ heads ─▶ Exchange ─ http::pipeline (the page) ─▶ content ─▶ upstream
//! ```

pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod generation;
pub mod http;
mod lint;
pub mod observe;
pub mod process;
mod recent;
pub mod settings;
pub mod syntax;
pub mod upstream;

/// The nginx this is.
pub const NGINX_VERSION: &str = "1.31.5";

/// Locks a mutex, whoever panicked while holding it: no change of what is behind one stops half way, and a panic
/// elsewhere must not stop the proxy.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
