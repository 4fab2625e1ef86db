//! What clients may do to files, and what they may not.

use super::tree::{self, Log};
use crate::http::testing::{Answer, ask, conf, fault};
use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

/// A folder that a server serves.
struct Site {
    folder: tempfile::TempDir,
    directives: &'static str,
}

impl Site {
    /// With `/f`, `/d/`, `/d/x`, `/d/e/`, `/d/e/y` in it.
    fn new(directives: &'static str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), directives };
        fs::create_dir_all(site.at("d/e")).unwrap();
        for name in ["f", "d/x", "d/e/y"] {
            fs::write(site.at(name), name).unwrap();
        }
        site
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("www").join(path)
    }

    fn ask(&self, request: &str, fields: &str) -> Answer {
        let folder = self.folder.path().display();
        let server = format!(
            "root {folder}/www; client_body_temp_path {folder}/temp; {} \
             location /alias/ {{ alias {folder}/www/d/; }}",
            self.directives
        );
        ask(&server, &format!("{request} HTTP/1.1\r\nHost: Example.com\r\n{fields}\r\n"))
    }

    fn status(&self, request: &str, fields: &str) -> u16 {
        self.ask(request, fields).status
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }
}

const ALL: &str = "dav_methods PUT DELETE MKCOL COPY MOVE;";
const EMPTY: &str = "Content-Length: 0\r\n";

#[test]
fn only_methods_that_are_switched_on_are_answered() {
    for (directives, put, delete) in [
        ("", 405, 405),
        ("dav_methods off;", 405, 405),
        ("dav_methods put;", 201, 405),
        ("dav_methods DELETE;", 405, 204),
        ("dav_methods PUT; dav_methods DELETE;", 201, 204),
    ] {
        let site = Site::new(directives);
        assert_eq!(site.status("PUT /new", EMPTY), put, "{directives}");
        assert_eq!(site.status("DELETE /f", ""), delete, "{directives}");
    }
}

#[test]
fn what_is_put_takes_its_place_with_its_rights_and_its_time() {
    let site = Site::new("dav_methods PUT; dav_access group:rw all:r; create_full_put_path on;");
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let answer = site.ask("PUT /new/folder/a%20b", &format!("{EMPTY}{date}"));
    assert_eq!((answer.status, answer.header("location")), (201, Some("http://example.com/new/folder/a%20b")));
    assert_eq!((answer.header("content-length"), answer.header("content-type")), (Some("0"), None));
    let facts = fs::metadata(site.at("new/folder/a b")).unwrap();
    assert_eq!((facts.mode() & 0o777, facts.mtime(), facts.len()), (0o664, 784_111_777, 0));
    assert_eq!(fs::metadata(site.at("new")).unwrap().mode() & 0o700, 0o700);
    assert_eq!(site.status("PUT /new/folder/a%20b", EMPTY), 204);
    // Nothing stays behind.
    assert_eq!(fs::read_dir(site.folder.path().join("temp")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_put_is_refused_and_leaves_nothing_behind() {
    let site = Site::new(ALL);
    for (path, fields, status) in [
        ("/d/", EMPTY, 409),
        ("/d", EMPTY, 409),
        ("/new", "Content-Length: 0\r\nContent-Range: bytes 0-1/2\r\n", 501),
        ("/new", "", 500),
        ("/none/new", EMPTY, 500),
        ("/f/new", EMPTY, 500),
    ] {
        assert_eq!(site.status(&format!("PUT {path}"), fields), status, "{path} {fields}");
    }
    let left = fs::read_dir(site.folder.path().join("temp")).map_or(0, Iterator::count);
    assert_eq!((left, site.text("f").as_deref()), (0, Some("f")));
}

#[test]
fn files_and_folders_are_deleted() {
    let site = Site::new(ALL);
    for (path, fields, status) in [
        ("/none", "", 404),
        ("/f/none", "", 409),
        ("/f", "Content-Length: 1\r\n", 415),
        ("/f", "Transfer-Encoding: chunked\r\n", 415),
        ("/f", "Depth: 1\r\n", 400),
        ("/f", "Depth: many\r\n", 400),
        ("/f", "Depth: 0\r\n", 204),
        ("/d", "", 409),
        ("/d/", "Depth: 0\r\n", 400),
        ("/d/x", "Depth: infinity\r\n", 204),
        ("/d/", "", 204),
        ("/d/", "", 404),
    ] {
        assert_eq!(site.status(&format!("DELETE {path}"), fields), status, "{path} {fields}");
    }
    assert!(!site.at("d").exists());
}

#[test]
fn a_path_must_be_deep_enough_to_be_deleted() {
    for (depth, path, status) in [
        (1, "/f", 204),
        (1, "/d/", 204),
        (2, "/f", 409),
        (2, "/d/", 409),
        (2, "/d/x", 204),
        (2, "/d/e/", 204),
        (3, "/d/e/", 409),
        (3, "/d/e/y", 204),
    ] {
        let directives = format!("{ALL} min_delete_depth {depth};").leak();
        assert_eq!(Site::new(directives).status(&format!("DELETE {path}"), ""), status, "{depth} {path}");
    }
}

#[test]
fn folders_are_made_one_at_a_time() {
    let site = Site::new("dav_methods MKCOL; dav_access all:r;");
    let made = site.ask("MKCOL /new%20one/", "");
    assert_eq!((made.status, made.header("location")), (201, Some("http://example.com/new%20one/")));
    assert_eq!(fs::metadata(site.at("new one")).unwrap().mode() & 0o700, 0o700);
    for (path, fields, status) in
        [("/new%20one/", "", 405), ("/new", "", 409), ("/none/new/", "", 409), ("/new/", "Content-Length: 1\r\n", 415)]
    {
        assert_eq!(site.status(&format!("MKCOL {path}"), fields), status, "{path}");
    }
}

#[test]
fn a_destination_must_be_on_this_server() {
    let site = Site::new(ALL);
    for (destination, status) in [
        (None, 400),
        (Some(""), 400),
        (Some("g"), 400),
        (Some("http://example.com"), 400),
        (Some("https://example.com/g"), 400),
        (Some("http://other.com/g"), 400),
        (Some("/../g"), 400),
        (Some("/a/%2e%2e/g"), 400),
        (Some("/g/"), 409),
        (Some("/f"), 403),
        (Some("//f"), 403),
        (Some("/d"), 409),
        (Some("/g"), 204),
        (Some("http://example.com/h%20i?args"), 204),
        (Some("http://example.com:80/j"), 204),
    ] {
        let field = destination.map(|to| format!("Destination: {to}\r\n")).unwrap_or_default();
        assert_eq!(site.status("COPY /f", &field), status, "{destination:?}");
    }
    assert_eq!(
        (site.text("g"), site.text("h i"), site.text("j")),
        (Some("f".into()), Some("f".into()), Some("f".into()))
    );
}

#[test]
fn files_are_copied_and_moved() {
    let site = Site::new(ALL);
    fs::set_permissions(site.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
    let to = |to: &str, more: &str| format!("Destination: {to}\r\n{more}");
    assert_eq!(site.status("COPY /f", &to("/g", "Depth: 0\r\n")), 204);
    let (from, copy) = (fs::metadata(site.at("f")).unwrap(), fs::metadata(site.at("g")).unwrap());
    assert_eq!((copy.mtime(), copy.mode() & 0o700), (from.mtime(), 0o600));
    for (request, fields, status) in [
        ("COPY /f", to("/d/x", "Overwrite: F\r\n"), 412),
        ("COPY /f", to("/d/x", "Overwrite: maybe\r\n"), 400),
        ("COPY /f", to("/d/x", "Depth: 1\r\n"), 400),
        ("COPY /f", to("/d/x", "Content-Length: 1\r\n"), 415),
        ("MOVE /f", to("/d/x", "Depth: 0\r\n"), 400),
        ("COPY /none", to("/h", ""), 404),
        ("COPY /f", to("/none/h", ""), 500),
        ("COPY /f", to("/f/h", ""), 404),
        ("COPY /f", to("/d/x", "Overwrite: T\r\n"), 204),
        ("MOVE /f", to("/made/on/the/way", ""), 204),
        ("COPY /alias/x", to("/a", ""), 400),
        ("COPY /alias/x", to("/alias/z", ""), 204),
    ] {
        assert_eq!(site.status(request, &fields), status, "{request} {fields}");
    }
    assert_eq!((site.text("d/x"), site.text("d/z")), (Some("f".into()), Some("f".into())));
    assert_eq!((site.text("f"), site.text("made/on/the/way")), (None, Some("f".into())));
}

#[test]
fn folders_are_copied_and_moved_with_all_that_is_in_them() {
    let site = Site::new(ALL);
    symlink("x", site.at("d/link")).unwrap();
    let to = |to: &str, more: &str| format!("Destination: {to}\r\n{more}");
    for (request, fields, status) in [
        ("COPY /d", to("/c", ""), 400),
        ("COPY /d/", to("/d/e/", ""), 403),
        ("COPY /d/e/", to("/d/", ""), 403),
        ("COPY /d/", to("/c/", ""), 201),
        ("COPY /d/e/", to("/c/", "Overwrite: F\r\n"), 412),
        ("COPY /d/e/", to("/c/", "Overwrite: T\r\n"), 201),
        ("MOVE /d/", to("/m/", ""), 201),
        ("MOVE /d/", to("/m/", ""), 404),
        ("MOVE /m/", to("/none/m/", ""), 404),
    ] {
        assert_eq!(site.status(request, &fields), status, "{request} {fields}");
    }
    assert_eq!((site.text("c/y"), site.text("c/x")), (Some("d/e/y".into()), None));
    assert_eq!((site.text("m/e/y"), site.text("m/link")), (Some("d/e/y".into()), Some("d/x".into())));
    assert!(!site.at("d").exists());
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[test]
fn a_tree_is_copied_with_times_and_rights_and_without_links() {
    let site = Site::new(ALL);
    symlink("/", site.at("d/root")).unwrap();
    fs::set_permissions(site.at("d/e/y"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(site.at("copy")).unwrap();
    let mut log = Log::default();
    tree::copy_folder(&mut log, bytes(&site.at("d")), bytes(&site.at("copy"))).unwrap();
    for path in ["e", "e/y", "x"] {
        let [from, to] = ["d", "copy"].map(|root| fs::metadata(site.at(root).join(path)).unwrap());
        assert_eq!((from.mtime(), from.len()), (to.mtime(), to.len()), "{path}");
    }
    assert_eq!(fs::metadata(site.at("copy/e/y")).unwrap().mode() & 0o777, 0o600);
    assert!(!site.at("copy/root").exists());
    // A link is deleted, and not what it leads to.
    tree::delete(&mut log, bytes(&site.at("d")), true).unwrap();
    assert!(log.0.is_empty() && !site.at("d").exists() && Path::new("/").exists());
}

#[test]
fn failures_are_told_in_nginx_s_words() {
    let site = Site::new(ALL);
    let mut log = Log::default();
    let none = site.at("none");
    assert_eq!(tree::delete(&mut log, bytes(&none), false), Err(404));
    assert_eq!(tree::delete(&mut log, bytes(&none), true), Err(500));
    assert_eq!(tree::copy_file(&mut log, bytes(&none), bytes(&site.at("g")), None, None), Err(()));
    let told: Vec<_> = log.0.into_iter().map(|(_, text)| text).collect();
    let end = format!("\"{}\" failed (2: No such file or directory)", none.display());
    assert_eq!(told, ["unlink()", "opendir()", "open()"].map(|call| format!("{call} {end}")));
}

#[test]
fn settings_are_read_and_refused_in_nginx_s_words() {
    for (text, access) in [
        ("", 0o600),
        ("dav_access all:r;", 0o604),
        ("dav_access user:r group:rw all:r;", 0o464),
        ("dav_access group:rw all:r;", 0o664),
    ] {
        assert_eq!(conf(text).dav.access.0, access, "{text}");
    }
    for (text, message) in [
        ("dav_methods PUT GET;", "invalid value \"GET\""),
        ("dav_access user:w;", "invalid value \"user:w\""),
        ("dav_access all;", "invalid value \"all\""),
        ("min_delete_depth x;", "\"min_delete_depth\" directive invalid number"),
    ] {
        assert_eq!(fault(text), message, "{text}");
    }
}
