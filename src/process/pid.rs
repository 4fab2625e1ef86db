//! The pid file: how everybody else finds the master.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    errno::Errno,
    files::NotOpened,
    log::{Level, Log},
};

/// Where the old master's pid waits while a new binary runs: `nginx.pid.oldbin`.
pub(super) fn old(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".oldbin");
    name.into()
}

/// Writes our process id. With `test`, the file is only opened (and created), as `-t` does (`ngx_create_pidfile`).
pub(super) fn write(path: &Path, test: bool, log: &Log) -> Result<(), NotOpened> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(!test).mode(0o644).open(path);
    let failed = |call: &str, error: std::io::Error| {
        log.write(Level::Emerg, format!("{call}() \"{}\" failed ({})", path.display(), Errno::from(error)));
        NotOpened
    };
    let mut file = opened.map_err(|error| failed("open", error))?;
    if test {
        return Ok(());
    }
    // One call, or a reader might see half a number.
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(|error| failed("pwrite", error))
}

/// Removes the file.
pub(super) fn delete(path: &Path, log: &Log) {
    if let Err(error) = std::fs::remove_file(path) {
        log.write(Level::Alert, format!("unlink() \"{}\" failed ({})", path.display(), Errno::from(error)));
    }
}

/// The process id in a pid file, for `-s`; the faults are nginx's (`ngx_signal_process`).
pub(super) fn read(path: &Path, log: &Log) -> Option<i32> {
    let shown = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            log.write(Level::Err, format!("open() \"{shown}\" failed ({})", Errno::from(error)));
            return None;
        }
    };
    // nginx looks at the first bytes only: a long number and its line end.
    let bytes = &bytes[..bytes.len().min(22)];
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let text = &bytes[..end];
    let number = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    // 0 would mean our own process group.
    let number = number.and_then(|text| text.parse().ok()).filter(|&number| number > 0);
    if number.is_none() {
        let mut line = b"invalid PID number \"".to_vec();
        line.extend_from_slice(text);
        line.extend_from_slice(format!("\" in \"{shown}\"").as_bytes());
        log.write(Level::Err, line);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_number_and_a_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nginx.pid");
        let log = Log::default();
        write(&path, true, &log).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        write(&path, false, &log).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(read(&path, &log), i32::try_from(std::process::id()).ok());
        delete(&path, &log);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_number_is_refused_in_nginxs_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nginx.pid");
        for (content, shown) in [
            ("", Some("")),
            ("\n", Some("")),
            ("12x\n", Some("12x")),
            ("-1", Some("-1")),
            ("0", Some("0")),
            ("12\r\n", None),
        ] {
            std::fs::write(&path, content).unwrap();
            let log = Log::default();
            log.capture();
            let number = read(&path, &log);
            let expected =
                shown.map(|shown| format!("nginx: [error] invalid PID number \"{shown}\" in \"{}\"\n", path.display()));
            assert_eq!(number, shown.is_none().then_some(12), "{content:?}");
            assert_eq!(String::from_utf8(log.captured()).unwrap(), expected.unwrap_or_default());
        }
        let log = Log::default();
        log.capture();
        assert_eq!(read(&folder.path().join("none"), &log), None);
        assert!(String::from_utf8(log.captured()).unwrap().ends_with("none\" failed (2: No such file or directory)\n"));
    }

    #[test]
    fn the_old_masters_file_has_a_suffix() {
        assert_eq!(old(Path::new("/run/nginx.pid")), Path::new("/run/nginx.pid.oldbin"));
    }
}
