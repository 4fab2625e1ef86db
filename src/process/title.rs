//! What `ps` shows: `nginx: master process …` and `nginx: worker process`, written over the command line's memory.
//! The name of the process, which `pidof` and `start-stop-daemon` look at, stays the file's.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

/// Where the title may be written: the memory of arguments and environment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Title {
    #[cfg(target_os = "linux")]
    start: usize,
    #[cfg(target_os = "linux")]
    room: usize,
}

impl Title {
    /// Finds the place and moves the environment away from behind it. Only at the start of the process, while it has
    /// one thread and nobody has looked at the environment.
    pub(super) fn prepare() -> Self {
        #[cfg(target_os = "linux")]
        {
            let (start, room) = bounds().unwrap_or((0, 0));
            if room != 0 {
                super::sys::move_environment();
            }
            Self { start, room }
        }
        #[cfg(not(target_os = "linux"))]
        Self {}
    }

    /// Shows `nginx: title`.
    pub(super) fn set(self, title: &[u8]) {
        #[cfg(target_os = "linux")]
        super::sys::write_over(self.start, self.room, &[b"nginx: ", title].concat());
        #[cfg(not(target_os = "linux"))]
        let _ = title;
    }
}

/// `master process` and the command line it was started with.
pub(super) fn master(arguments: &[OsString]) -> Vec<u8> {
    let mut title = b"master process".to_vec();
    for argument in arguments {
        title.push(b' ');
        title.extend_from_slice(argument.as_bytes());
    }
    title
}

/// The start and length of the arguments and the environment, from `/proc/self/stat`. The kernel shows a title that
/// runs over into the environment only when the two touch.
#[cfg(target_os = "linux")]
fn bounds() -> Option<(usize, usize)> {
    let stat = std::fs::read("/proc/self/stat").ok()?;
    // Behind the name in parentheses, which may hold anything; the field after it is the third of proc(5).
    let behind_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let fields: Vec<usize> = std::str::from_utf8(&stat[behind_name..])
        .ok()?
        .split_ascii_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let end = if arg_end == env_start { env_end } else { arg_end };
    (arg_start != 0 && end > arg_start).then(|| (arg_start, end - arg_start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_title_ends_in_its_command_line() {
        assert_eq!(
            master(&["/usr/sbin/nginx".into(), "-g".into(), "daemon on;".into()]),
            b"master process /usr/sbin/nginx -g daemon on;"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_says_where_the_command_line_is() {
        let (start, room) = bounds().unwrap();
        assert!(start != 0 && room >= std::fs::read("/proc/self/cmdline").unwrap().len());
    }
}
