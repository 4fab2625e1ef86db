//! What the server says about itself: error log lines and the files that logs go to.

pub mod counts;
pub mod debug;
pub mod error_log;
mod file;
pub mod syslog;

pub use file::LogSlot;
