//! The operating system's error numbers, in the words nginx prints: `98: Address already in use`.

use std::{fmt, io};

/// An error number of the system. Plain data, so that an answer can be recorded and replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub struct Errno(pub i32);

impl Errno {
    /// What the last failed call of this thread left behind.
    pub fn last() -> Self {
        io::Error::last_os_error().into()
    }
}

impl From<io::Error> for Errno {
    /// Errors that Rust makes up itself (no number) become `EIO`.
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Self(error.raw_os_error())
    }
}

impl fmt::Display for Errno {
    /// As `ngx_log_errno` puts it between its parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "{}: {text}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_nginx_writes_it() {
        assert_eq!(Errno(libc::ENOENT).to_string(), "2: No such file or directory");
        assert_eq!(Errno(libc::EADDRINUSE).to_string(), format!("{}: Address already in use", libc::EADDRINUSE));
    }
}
