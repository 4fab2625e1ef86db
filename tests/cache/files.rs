//! The files of caches: where they are, who finds them again, and when they go.

use super::{Gate, KEPT, OLD, Site, begin, files, holds, seen, text};
use crate::support::backend::{Received, Reply};
use crate::support::measure;
use crate::support::program::send;
use crate::support::wait::{SOON, until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The manager looks every ten seconds.
pub(super) const LATER: Duration = Duration::from_secs(40);

/// Ends the server and starts another one over the same files.
pub(super) fn restart(site: &mut Site) {
    assert!(site.server.quit().success());
    site.server.again();
}

fn target(request: &Received) -> Reply {
    text("200 OK", KEPT, request.target())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The name of the file of a key, as `md5sum` gives it.
fn name(key: &str) -> String {
    use md5::{Digest, Md5};
    Md5::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_is_where_nginx_has_it() {
    for levels in ["", "1", "2", "1:2", "2:1", "2:2:2", "1:1:2"] {
        let parameters = if levels.is_empty() { String::new() } else { format!("levels={levels}") };
        let site = Site::new(&parameters, "", |request| {
            text("200 OK", &format!("{KEPT}Content-Type: text/x\r\n"), request.target())
        });
        site.see("/a?b");
        let key = format!("http://{}/a?b", site.origin.backend.address());
        let (name, mut folder) = (name(&key), site.cache());
        let mut end = name.len();
        for level in levels.split(':').filter(|level| !level.is_empty()) {
            let begin = end - level.parse::<usize>().unwrap();
            folder.push(&name[begin..end]);
            end = begin;
        }
        holds(&site.cache(), 1);
        assert_eq!(files(&site.cache()), [folder.join(&name)], "{levels}");
        let bytes = fs::read(folder.join(&name)).unwrap();
        assert_eq!(bytes[..8], 5_u64.to_ne_bytes());
        let rest = String::from_utf8_lossy(&bytes[336..]).into_owned();
        let expected =
            format!("\nKEY: {key}\nHTTP/1.1 200 OK\r\n{KEPT}Content-Type: text/x\r\nContent-Length: 4\r\n\r\n/a?b");
        assert_eq!(rest, expected);
        assert_eq!(mode(&folder.join(&name)), 0o600);
        for inner in folder.ancestors().take_while(|inner| *inner != site.server.dir().path()) {
            assert_eq!(mode(inner), 0o700, "{}", inner.display());
        }
    }
}

#[test]
fn a_restart_finds_what_was_kept() {
    for threads in ["loader_files=2 loader_sleep=1ms", "levels=1:2 use_temp_path=off"] {
        let mut site = Site::new(threads, "", target);
        for number in 0..20 {
            assert_eq!(site.see(&format!("/{number}")), format!("200 MISS /{number}"));
        }
        restart(&mut site);
        // What is asked for before all files are known is found as well.
        for number in 0..20 {
            assert_eq!(site.see(&format!("/{number}")), format!("200 HIT /{number}"));
        }
        assert_eq!(site.origin.hits(), 20);
    }
}

#[test]
fn what_a_restart_finds_is_looked_after() {
    let conf = |inactive: &str| {
        format!(
            "proxy_cache_path cache keys_zone=z:1m levels=1:2 inactive={inactive}; server {{ listen 127.0.0.1:%PORT%; \
             location / {{ proxy_cache z; proxy_pass http://%ORIGIN%; }} }}"
        )
    };
    let mut site = Site::of(&conf("10m"), target);
    for number in 0..5 {
        site.see(&format!("/{number}"));
    }
    let file = |name: &str, bytes: &[u8]| fs::write(site.cache().join(name), bytes).unwrap();
    let on_its_way = format!("{}.0000000001", "0".repeat(32));
    file(&"a".repeat(32), b"too small");
    file("short", b"no cache file");
    file(&on_its_way, b"on its way");
    fs::create_dir(site.cache().join("temp")).unwrap();
    file("temp/short", b"somebody's");
    site.rewrite(&conf("1s"));
    restart(&mut site);
    // nginx's loader begins after a minute.
    let known = Duration::from_secs(if crate::support::replaced() { 120 } else { 40 });
    until("the files are gone", known, || {
        let left: Vec<_> =
            files(&site.cache()).into_iter().map(|path| path.strip_prefix(site.cache()).unwrap().to_owned()).collect();
        left == [PathBuf::from(&on_its_way), PathBuf::from("temp/short")]
    });
    let log = site.server.error_log();
    assert!(log.contains(" is too small"), "{log}");
    assert!(log.contains("[notice]") && log.contains(&format!("http file cache: {}", site.cache().display())), "{log}");
    assert_eq!(site.see("/0"), "200 MISS /0");
}

#[test]
fn a_reload_keeps_what_is_known() {
    let conf = |more: &str| {
        format!(
            "proxy_cache_path cache keys_zone=z:1m {more}; server {{ listen 127.0.0.1:%PORT%; location / {{ \
             proxy_cache z; proxy_cache_min_uses 2; proxy_pass http://%ORIGIN%; }} \
             location /now {{ return 200 '{more}'; }} }}"
        )
    };
    let site = Site::of(&conf("inactive=9m"), target);
    let reloaded = |more: &str| {
        site.rewrite(&conf(more));
        site.server.reload();
        until("the new file counts", SOON, || site.get("/now").text() == more);
        // nginx's old worker may answer a while longer.
        until("one worker is left", SOON, || workers(&site).len() == 1);
    };
    assert_eq!(site.see("/twice"), "200 MISS /twice");
    assert_eq!((site.see("/a"), site.see("/a")), ("200 MISS /a".into(), "200 MISS /a".into()));
    reloaded("inactive=8m");
    assert_eq!(site.see("/a"), "200 HIT /a");
    // How often it was asked for is known, too.
    assert_eq!(site.see("/twice"), "200 MISS /twice");
    assert_eq!(site.see("/twice"), "200 HIT /twice");
    reloaded("inactive=1s");
    // From the next use on.
    assert_eq!((site.see("/a"), site.see("/twice")), ("200 HIT /a".into(), "200 HIT /twice".into()));
    until("the files are gone", LATER, || files(&site.cache()).is_empty());
    assert_eq!(site.see("/a"), "200 MISS /a");
}

#[test]
fn a_request_that_outlives_a_reload_keeps_its_answer() {
    let conf = |more: &str| {
        format!(
            "proxy_cache_path cache keys_zone=z:1m {more}; server {{ listen 127.0.0.1:%PORT%; location / {{ \
             proxy_cache z; proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; \
             proxy_pass http://%ORIGIN%; }} location /now {{ return 200 '{more}'; }} }}"
        )
    };
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::of(&conf(""), move |_| {
        held.pass();
        text("200 OK", KEPT, "kept")
    });
    let mut before = begin(site.port, "/");
    site.origin.has(1);
    site.rewrite(&conf("inactive=5m"));
    site.server.reload();
    until("the new file counts", SOON, || site.get("/now").text() == "inactive=5m");
    // One lock for both.
    let mut after = begin(site.port, "/");
    gate.open();
    assert_eq!(seen(&before.answer("GET")), "200 MISS kept");
    assert_eq!(seen(&after.answer("GET")), "200 HIT kept");
    assert_eq!(site.origin.hits(), 1);
}

#[test]
fn a_worker_that_is_killed_leaves_whole_answers_only() {
    const LENGTH: usize = 4 << 20;
    let body = |number: usize| number.to_string().repeat(LENGTH).into_bytes()[..LENGTH].to_vec();
    for parameters in ["", "levels=1:2 use_temp_path=off"] {
        let site = Site::new(parameters, "", move |request| {
            let number = request.target()[1..].parse().unwrap();
            let whole =
                [format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: {LENGTH}\r\n\r\n").into_bytes(), body(number)];
            let whole = whole.concat();
            match number % 3 {
                // So that many are under way.
                0 => Reply::Slowly(whole.chunks(LENGTH / 8).map(<[u8]>::to_vec).collect(), Duration::from_millis(100)),
                _ => Reply::Keep(whole),
            }
        });
        let mut under_way: Vec<_> = (0..9).map(|number| begin(site.port, &format!("/{number}"))).collect();
        let is_whole = |path: &PathBuf| path.extension().is_none();
        until("some are kept", SOON, || files(&site.cache()).iter().filter(|path| is_whole(path)).count() > 2);
        let workers = workers(&site);
        assert_eq!(workers.len(), 1);
        send(workers[0], Signal::KILL);
        until("it has ended", SOON, || !measure::processes().contains(&workers[0]));
        under_way.clear();
        let mut kept = 0;
        for number in 0..9 {
            let mut answer = None;
            until("there is another one", SOON, || {
                let mut connection = begin(site.port, &format!("/{number}"));
                answer = Some(connection.answer("GET"));
                answer.as_ref().is_some_and(|answer| answer.complete)
            });
            let answer = answer.unwrap().expect(200);
            assert!(answer.body == body(number), "{number}");
            kept += usize::from(answer.header("X-Cache") == Some("HIT"));
        }
        assert!(kept > 0);
    }
}

/// Those of the server's processes that answer.
fn workers(site: &Site) -> Vec<i32> {
    let is_worker = |pid: &i32| measure::command_line(*pid).contains("worker process");
    site.server.workers().into_iter().filter(is_worker).collect()
}

/// The bytes that files take on the disk.
fn size(folder: &Path) -> u64 {
    files(folder).iter().map(|file| fs::metadata(file).map_or(0, |facts| facts.blocks() * 512)).sum()
}

#[test]
fn files_that_are_too_many_go_the_oldest_first() {
    let site = Site::new("max_size=64k levels=1", "", |request| text("200 OK", KEPT, &request.target().repeat(2000)));
    for number in 10..50 {
        site.get(&format!("/{number}")).expect(200);
        // One that is always in use.
        site.get("/10").expect(200);
    }
    assert!(files(&site.cache()).len() >= 16);
    until("there is room", LATER, || size(&site.cache()) < 64 << 10);
    let left = files(&site.cache()).len();
    assert!(left >= 4, "{left} files");
    for (path, expected) in [("/10", "HIT"), ("/49", "HIT"), ("/48", "HIT"), ("/11", "MISS")] {
        assert_eq!(site.get(path).header("X-Cache"), Some(expected), "{path}");
    }
}

#[test]
fn files_go_while_the_file_system_has_too_little_room() {
    let site = Site::new("min_free=1000000g", "", target);
    for number in 0..5 {
        site.see(&format!("/{number}"));
    }
    until("they are gone", LATER, || files(&site.cache()).is_empty());
    assert_eq!(site.see("/0"), "200 MISS /0");
}

#[test]
fn files_that_nobody_asks_for_go() {
    let site = Site::new("inactive=1s levels=1:2", "", |request| {
        text("200 OK", if request.target() == "/old" { OLD } else { KEPT }, request.target())
    });
    for path in ["/a", "/b", "/old"] {
        site.see(path);
    }
    holds(&site.cache(), 3);
    until("they are gone", LATER, || files(&site.cache()).is_empty());
    assert_eq!(site.see("/old"), "200 MISS /old");
    assert!(!site.server.error_log().contains("[crit]"), "{}", site.server.error_log());
}

#[test]
fn what_is_being_given_goes_when_it_was_given() {
    let body = "x".repeat(8 << 20);
    let length = body.len();
    let site = Site::new("inactive=1s", "", move |_| text("200 OK", KEPT, &body));
    site.get("/").expect(200);
    holds(&site.cache(), 1);
    let mut slow = begin(site.port, "/");
    assert_eq!(slow.read_exact(15), b"HTTP/1.1 200 OK");
    until("the file is gone, or held", LATER, || {
        files(&site.cache()).is_empty() || site.server.error_log().contains("ignore long locked inactive cache entry")
    });
    let rest = slow.read_to_end();
    assert!(rest.len() > length && rest.ends_with(b"xxx"));
}

#[test]
fn where_keys_are_too_many_the_oldest_files_go() {
    let conf = "proxy_cache_path cache keys_zone=z:32k levels=1; server { listen 127.0.0.1:%PORT%; \
                location / { proxy_cache z; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, target);
    let mut connection = crate::support::client::Connection::open(site.port);
    for number in 0..600 {
        let answer = connection.get(&format!("/{number}")).expect(200);
        assert_eq!((answer.header("X-Cache"), answer.text()), (Some("MISS"), format!("/{number}")));
    }
    let left = files(&site.cache()).len();
    assert!((50..400).contains(&left), "{left} files");
    assert_eq!((site.see("/599"), site.see("/0")), ("200 HIT /599".into(), "200 MISS /0".into()));
    assert!(!site.server.error_log().contains("could not allocate node"), "{}", site.server.error_log());
}

#[test]
fn a_file_that_was_damaged_is_fetched_anew() {
    let cases: [(&str, fn(&mut Vec<u8>)); 6] = [
        ("is too small", |file| file.truncate(300)),
        ("version mismatch", |file| file[0] = 4),
        ("has md5 collision", |file| file[48] ^= 1),
        ("has md5 collision", |file| file[345] ^= 1),
        ("contains invalid header", |file| {
            let at = file.windows(8).position(|part| part == b"max-age=").unwrap();
            file[at] = 0;
        }),
        ("has too long header", |file| file[56..58].copy_from_slice(&u16::MAX.to_ne_bytes())),
    ];
    for (number, (text, damage)) in cases.into_iter().enumerate() {
        let mut site = Site::new("", "proxy_buffer_size 4k;", target);
        let path = format!("/{number}");
        site.see(&path);
        holds(&site.cache(), 1);
        let file = files(&site.cache()).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        damage(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        restart(&mut site);
        let answer = site.get(&path);
        let log = site.server.error_log();
        assert!(log.contains(text), "{text}: {log}");
        assert_eq!(seen(&answer), format!("200 MISS {path}"), "{text}");
        assert_eq!(site.see(&path), format!("200 HIT {path}"), "{text}");
    }
}

#[test]
fn what_somebody_removed_is_fetched_anew() {
    let site = Site::new("levels=1:2", "", target);
    assert_eq!(site.see("/"), "200 MISS /");
    holds(&site.cache(), 1);
    fs::remove_dir_all(files(&site.cache())[0].parent().unwrap()).unwrap();
    assert_eq!((site.see("/"), site.see("/")), ("200 MISS /".into(), "200 HIT /".into()));
    for file in files(&site.cache()) {
        fs::remove_file(file).unwrap();
    }
    assert_eq!((site.see("/"), site.see("/")), ("200 MISS /".into(), "200 HIT /".into()));
}

#[test]
fn several_locations_share_a_cache_and_several_caches_a_server() {
    let conf = "proxy_cache_path one keys_zone=one:1m; proxy_cache_path two keys_zone=two:1m; \
                proxy_cache_key $arg_key; \
                server { listen 127.0.0.1:%PORT%; \
                location /a { proxy_cache one; proxy_pass http://%ORIGIN%; } \
                location /b { proxy_cache one; proxy_pass http://%ORIGIN%; } \
                location /c { proxy_cache two; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, target);
    for (path, expected) in [
        ("/a?key=1", "200 MISS /a?key=1"),
        ("/b?key=1", "200 HIT /a?key=1"),
        ("/c?key=1", "200 MISS /c?key=1"),
        ("/a?key=1", "200 HIT /a?key=1"),
        ("/c?key=1", "200 HIT /c?key=1"),
    ] {
        assert_eq!(site.see(path), expected, "{path}");
    }
}
