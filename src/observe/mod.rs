//! What the server says about itself: error log lines and the files that logs go to.

pub mod error_log;
mod file;

pub use file::LogSlot;
