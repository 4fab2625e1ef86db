//! The values that nginx's standard setters read, each with nginx's own message when it is wrong.

mod address;
mod masks;
mod numbers;
mod words;

pub use address::{Address, Url, Wants, ip_text, parse_known_url, parse_url};
pub use masks::{Access, Choices, Mask};
pub use numbers::{Msec, Offset, Seconds, Size, parse_number, parse_offset, parse_port, parse_size, parse_time};
pub use words::{Given, TempPath, choose, choose_flags, choose_mask};
