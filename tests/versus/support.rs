//! What every comparison needs: the nginx to compare with, and a directory with a site in it.

use crate::support::component;
use crate::support::scratch::Scratch;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// When every file of the site was last changed: Tue, 02 Jan 2024 03:04:05 GMT.
const MODIFIED: u64 = 1_704_164_645;

/// The nginx to compare with; `None`, said aloud, when there is none. Where `CI` is set its absence is a failure.
pub(crate) fn oracle() -> Option<PathBuf> {
    let path = std::env::var_os("TIDEGATE_TEST_NGINX").map_or_else(|| PathBuf::from("/usr/sbin/nginx"), PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    component::missing(&path.display().to_string());
    None
}

/// Whether what both programs say is shown, too, where they agree.
pub(crate) fn shows() -> bool {
    std::env::var_os("TIDEGATE_TEST_SHOW").is_some()
}

/// A whole configuration file around the body of an `http` block: one worker, everything it writes below `dir`.
pub(crate) fn whole_file(body: &str, dir: &Path) -> String {
    let dir = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {dir}/tmp/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log info;\n\
         events {{\n    worker_connections 512;\n}}\nhttp {{\n    access_log off;\n{temp}\n{body}\n}}\n"
    )
}

/// A directory of its own, readable by the unprivileged worker, with [`site`] in `www`.
pub(crate) fn workdir() -> Scratch {
    let dir = Scratch::new();
    fs::create_dir(dir.path().join("tmp")).expect("mkdir");
    site(&dir.path().join("www"));
    dir
}

/// Files that were packed beforehand, with and without the plain ones beside them.
fn packed(folder: &Path) {
    fs::create_dir_all(folder.join("folder.txt.gz")).expect("mkdir");
    for (name, plain, packed) in [("both.txt", true, true), ("packed.txt", false, true), ("plain.txt", true, false)] {
        let text = format!("{name}: some text that can be packed\n").repeat(3);
        let mut pack = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        pack.write_all(text.as_bytes()).expect("pack");
        let files =
            [(plain, name.to_owned(), text.into_bytes()), (packed, format!("{name}.gz"), pack.finish().expect("pack"))];
        for (_, name, bytes) in files.into_iter().filter(|(wanted, ..)| *wanted) {
            let mut file = File::create(folder.join(name)).expect("create");
            file.write_all(&bytes).expect("write");
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
            file.set_times(FileTimes::new().set_modified(modified)).expect("mtime");
        }
    }
    std::os::unix::fs::symlink("both.txt.gz", folder.join("link.txt.gz")).expect("symlink");
}

/// Files behind symbolic links.
fn links(folder: &Path) {
    fs::create_dir_all(folder.join("real")).expect("mkdir");
    fs::write(folder.join("real/file.txt"), "behind a link\n").expect("write");
    fs::write(folder.join("real/index.html"), "index behind a link\n").expect("write");
    for (to, name) in [("real", "folder"), ("real/file.txt", "link.txt"), ("file.txt", "real/same.txt")] {
        std::os::unix::fs::symlink(to, folder.join(name)).expect("symlink");
    }
}

/// The files that the configurations serve.
fn site(root: &Path) {
    let numbers: String = (0..26).map(|n| char::from(b'a' + n)).collect();
    let lines: String = (0..6000).map(|n| format!("line {n} of a longer text that compresses well\n")).collect();
    let files: &[(&str, &str)] = &[
        ("index.html", "<html>front page</html>\n"),
        ("a.txt", "text a\n"),
        ("alphabet.txt", &numbers),
        ("empty.txt", ""),
        ("page.html", "<html>page</html>\n"),
        ("style.css", "body { color: black }\n"),
        ("data.json", "{\"a\": [1, 2, 3]}\n"),
        ("noextension", "no extension\n"),
        ("UPPER.TXT", "upper\n"),
        ("with space.txt", "space\n"),
        ("per%cent.txt", "percent\n"),
        ("q?mark.txt", "question\n"),
        ("big.txt", &lines),
        ("small.html", "<p>small</p>"),
        ("dir/index.html", "dir index\n"),
        ("dir/other.html", "dir other\n"),
        ("dir/index.htm", "second index\n"),
        ("bare/file.txt", "bare file\n"),
        ("sp ace/index.html", "index in a directory with a space\n"),
        ("secret/hidden.txt", "hidden\n"),
        ("errors/404.html", "own 404\n"),
        ("errors/50x.html", "own 50x\n"),
        ("errors/403.html", "own 403\n"),
        ("alias/one.txt", "alias one\n"),
        ("alias/index.html", "alias index\n"),
        ("images/pixel.gif", "GIF89a"),
        ("images/photo.jpg", "JPEG"),
        ("hosts/a.example/index.html", "host a\n"),
        ("hosts/b.example/index.html", "host b\n"),
        ("locked.txt", "nobody may read this\n"),
        ("nested/deep/er/file.txt", "deep\n"),
        (".dotfile", "dot\n"),
    ];
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(&path, text).expect("write");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
        let file = File::options().write(true).open(&path).expect("open");
        file.set_times(FileTimes::new().set_modified(modified)).expect("mtime");
    }
    packed(&root.join("packed"));
    links(&root.join("links"));
    fs::set_permissions(root.join("locked.txt"), Permissions::from_mode(0o000)).expect("chmod");
    std::os::unix::fs::symlink("a.txt", root.join("link.txt")).expect("symlink");
    fs::write(root.parent().expect("a parent").join("outside.txt"), "outside the root\n").expect("write");
}
