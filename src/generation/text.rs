//! Reading a configuration that is no file: texts in memory stand for files, and nothing is asked of the system.

use super::{Generation, read_with};
use crate::process::{
    Call, Errno, Facts, Invocation, Options, ReadError, Reading, Resources,
    profile::{NGINX_ORG, Profile},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the texts seem to lie.
const PREFIX: &str = "/texts/";

/// The build whose paths the configuration gets.
const PROFILE: &Profile = &NGINX_ORG;

/// Reads texts as if they were files of one folder: name and contents, the first one being the main file. Reports carry
/// their pictures. Of host names only `localhost` is known; every user and group is.
pub fn read_text(files: &[(&str, &[u8])]) -> Reading<Generation> {
    let main = files.first().map_or("nginx.conf", |(name, _)| name);
    let conf = [PREFIX, main].concat();
    let options = Options { prefix: Some(PREFIX.into()), conf: Some(conf.into()), ..Options::default() };
    let facts = Facts { superuser: true, processors: 2, host_name: b"localhost".to_vec(), open_files: 1024 };
    read_with(&Invocation::new(options, PROFILE, Vec::new()), &mut Texts { files, facts }, true)
}

/// A world of a few texts.
struct Texts<'t> {
    files: &'t [(&'t str, &'t [u8])],
    facts: Facts,
}

impl Resources for Texts<'_> {
    fn read(&mut self, path: &Path) -> Result<Arc<[u8]>, ReadError> {
        let found = path.strip_prefix(PREFIX).ok().and_then(|path| {
            let mut files = self.files.iter();
            files.find(|(name, _)| path == Path::new(name))
        });
        match found {
            Some((_, text)) => Ok(Arc::from(*text)),
            None => Err(ReadError { call: Call::Open, errno: Errno(libc::ENOENT) }),
        }
    }

    fn glob(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, Errno> {
        use std::os::unix::ffi::OsStrExt;
        let pattern = pattern.as_os_str().as_bytes();
        let paths = self.files.iter().map(|(name, _)| Path::new(PREFIX).join(name));
        let matches = |path: &PathBuf| crate::syntax::glob_match(pattern, path.as_os_str().as_bytes());
        let mut found: Vec<PathBuf> = paths.filter(matches).collect();
        found.sort();
        Ok(found)
    }

    fn resolve(&mut self, host: &[u8]) -> Vec<IpAddr> {
        if host == b"localhost" { vec![Ipv4Addr::LOCALHOST.into()] } else { Vec::new() }
    }

    fn user(&mut self, _name: &[u8]) -> Result<u32, Errno> {
        Ok(65534)
    }

    fn group(&mut self, _name: &[u8]) -> Result<u32, Errno> {
        Ok(65534)
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_include_one_another() {
        let main = b"events {} http { include s*.conf; }".as_slice();
        let reading = read_text(&[("nginx.conf", main), ("site.conf", b"server { listen localhost:81; }")]);
        assert!(reading.reports.is_empty(), "{:?}", reading.reports);
        let http = &reading.ready.unwrap().generation.http;
        assert_eq!(http.listeners[0].address.to_string(), "127.0.0.1:81");
    }

    #[test]
    fn a_fault_comes_with_its_picture() {
        let reading = read_text(&[("nginx.conf", b"events {} http { include no.conf; }")]);
        assert!(reading.ready.is_none());
        let report = &reading.reports[0];
        let text = String::from_utf8_lossy(&report.text);
        assert_eq!(text, "open() \"/texts/no.conf\" failed (2: No such file or directory) in /texts/nginx.conf:1");
        assert!(report.picture.contains("^^^^"), "{}", report.picture);
    }
}
