//! Where caches meet what else there is: reloads, quits, full disks, other locations, interim answers, sendfile.

use super::files::{LATER, restart};
use super::{Gate, KEPT, OLD, Site, begin, files, holds, is_older_than, seen, text, with};
use crate::support::backend::{Received, Reply};
use crate::support::client::{Connection, Request};
use crate::support::replaced;
use crate::support::wait::{SOON, until};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

const LENGTH: usize = 4 << 20;

/// `LENGTH` bytes that are different everywhere.
fn long() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(LENGTH).collect()
}

fn long_answer(fields: &str) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{KEPT}{fields}Content-Length: {LENGTH}\r\n\r\n").into_bytes(), long()].concat()
}

fn target(request: &Received) -> Reply {
    text("200 OK", KEPT, request.target())
}

#[test]
fn parts_of_long_answers_are_given_from_their_files() {
    for conf in ["sendfile on; tcp_nopush on;", "sendfile off;", "sendfile on; gzip on;", "output_buffers 1 4k;"] {
        let site = Site::new("", conf, |_| Reply::Keep(long_answer("Accept-Ranges: bytes\r\n")));
        let all = long();
        let part = |range: &str| site.ask(&with("/", &[("Range", range)]));
        // The rest is fetched though nobody waits for it.
        let first = part("bytes=100-199").expect(206);
        assert_eq!((first.header("X-Cache"), &first.body[..]), (Some("MISS"), &all[100..200]));
        holds(&site.cache(), 1);
        let whole = site.get("/").expect(200);
        assert!(whole.header("X-Cache") == Some("HIT") && whole.body == all, "{conf}");
        for (range, from, to) in [
            ("bytes=0-0", 0, 1),
            ("bytes=1000000-2999999", 1_000_000, 3_000_000),
            ("bytes=-5", LENGTH - 5, LENGTH),
            ("bytes=4000000-", 4_000_000, LENGTH),
        ] {
            let answer = part(range).expect(206);
            assert_eq!(answer.header("X-Cache"), Some("HIT"));
            assert!(answer.body == all[from..to], "{conf} {range}");
        }
        let several = part("bytes=0-9,2000000-2000009").expect(206).body;
        let has = |bytes: &[u8]| several.windows(bytes.len()).any(|part| part == bytes);
        assert!(has(&all[..10]) && has(&all[2_000_000..2_000_010]), "{conf}");
        let head = site.ask(&Request::new("HEAD", "/"));
        assert_eq!(head.header("Content-Length"), Some(&*LENGTH.to_string()), "{conf}");
        assert_eq!(site.origin.hits(), 1, "{conf}");
        // Several on one connection.
        let mut connection = Connection::open(site.port);
        for _ in 0..3 {
            assert!(connection.get("/").expect(200).body == all, "{conf}");
        }
    }
}

#[test]
fn a_long_answer_is_kept_though_only_its_head_goes_out() {
    let site = Site::new("", "", |_| Reply::Keep(long_answer("ETag: \"e\"\r\n")));
    let head = Request::new("HEAD", "/head");
    let condition = with("/condition", &[("If-None-Match", "\"e\"")]);
    for (number, (request, status)) in [(head, 200), (condition, 304)].into_iter().enumerate() {
        let mut connection = Connection::open(site.port);
        let answer = connection.ask(&request).expect(status);
        assert_eq!(answer.header("X-Cache"), Some("MISS"));
        // The connection goes on at once.
        assert_eq!(connection.ask(&Request::new("OPTIONS", "/")).status, 200);
        holds(&site.cache(), number + 1);
    }
    for path in ["/head", "/condition"] {
        let answer = site.get(path).expect(200);
        assert!(answer.header("X-Cache") == Some("HIT") && answer.body == long(), "{path}");
    }
}

#[test]
fn time_passes() {
    let site =
        Site::new("", "proxy_cache_use_stale http_500;", |_| text("200 OK", "Cache-Control: max-age=1\r\n", "1"));
    assert_eq!(site.see("/"), "200 MISS 1");
    site.origin.says("500 Bad", "", "bad");
    site.comes_to("/", "200 STALE 1");
    site.origin.says("200 OK", KEPT, "2");
    assert_eq!((site.see("/"), site.see("/")), ("200 EXPIRED 2".into(), "200 HIT 2".into()));
}

#[test]
fn what_a_page_is_replaced_by_has_a_cache_of_its_own() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_intercept_errors on; error_page 404 = @other; proxy_pass http://%ORIGIN%; } \
                location @other { proxy_cache_key other$uri; proxy_set_header Other yes; \
                                  proxy_set_header Connection ''; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| match request.header("Other") {
        Some(_) => text("200 OK", KEPT, "other"),
        None => text("404 Not Found", "", "none"),
    });
    assert_eq!((site.see("/a"), site.see("/a")), ("200 MISS other".into(), "200 HIT other".into()));
    assert_eq!(site.origin.hits(), 3);
    site.origin.answers(target);
    // The first one has nothing to do with that.
    assert_eq!((site.see("/a"), site.see("/a")), ("200 MISS /a".into(), "200 HIT /a".into()));
}

#[test]
fn an_interim_answer_is_not_part_of_what_is_kept() {
    if is_older_than(29) {
        return;
    }
    let site = Site::new("", "", |_| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nX-Hint: 1\r\n\r\n";
        Reply::Keep(format!("{interim}HTTP/1.1 200 OK\r\n{KEPT}X-A: b\r\nContent-Length: 4\r\n\r\nbody").into_bytes())
    });
    for cache in ["MISS", "HIT", "HIT"] {
        let answer = site.get("/").expect(200);
        assert_eq!(seen(&answer), format!("200 {cache} body"));
        assert_eq!((answer.header("X-A"), answer.header("Link"), answer.header("X-Hint")), (Some("b"), None, None));
    }
    let file = fs::read(&files(&site.cache())[0]).unwrap();
    assert!(!String::from_utf8_lossy(&file).contains("103"));
}

#[test]
fn a_switch_of_protocols_is_not_kept() {
    let location = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; \
                    proxy_cache_valid any 1m;";
    let site = Site::new("", location, |_| Reply::UpgradeAndEcho);
    for _ in 0..2 {
        let mut connection = Connection::open(site.port);
        let switch = Request::get("/").header("Upgrade", "echo").header("Connection", "upgrade");
        let answer = connection.ask(&switch);
        assert_eq!((answer.status, answer.header("X-Cache")), (101, Some("MISS")));
        connection.send("hello");
        assert_eq!(connection.read_exact(5), b"hello");
    }
    assert_eq!(site.origin.hits(), 2);
    assert_eq!(files(&site.cache()).len(), 0);
}

#[test]
fn a_folder_that_nobody_may_write_to_harms_nobody() {
    let site = Site::new("levels=1", "", target);
    assert_eq!(site.see("/first"), "200 MISS /first");
    holds(&site.cache(), 1);
    // To a folder that is a file nobody writes, not even root.
    let names: Vec<String> = (0..16).map(|digit| format!("{digit:x}")).collect();
    let blocked: Vec<PathBuf> =
        names.iter().map(|name| site.cache().join(name)).filter(|path| !path.exists()).collect();
    for path in &blocked {
        fs::write(path, "").unwrap();
    }
    for number in 0..50 {
        assert_eq!(site.see(&format!("/{number}")), format!("200 MISS /{number}"));
    }
    let before = site.origin.hits();
    for number in 0..50 {
        site.see(&format!("/{number}"));
    }
    assert!(site.origin.hits() > before + 25);
    site.server.expect_log(&["[crit]", "(20: Not a directory)"]);
    holds(&site.server.dir().path().join("proxy_temp"), 0);
    for path in &blocked {
        fs::remove_file(path).unwrap();
    }
    for number in 0..50 {
        site.see(&format!("/{number}"));
    }
    assert_eq!(site.see("/0"), "200 HIT /0");
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let mut site = Site::new("", "", target);
    assert_eq!(site.see("/"), "200 MISS /");
    holds(&site.cache(), 1);
    let file = files(&site.cache()).remove(0);
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    restart(&mut site);
    // Root reads all.
    if fs::metadata(&file).is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0) {
        return;
    }
    let answer = site.get("/");
    assert_eq!((answer.status, answer.header("X-Cache")), (500, Some("MISS")));
    site.server.expect_log(&["[crit]", "open()", "failed (13: Permission denied)"]);
}

#[test]
fn a_quit_waits_for_what_is_being_kept() {
    let gate = Gate::default();
    let held = gate.clone();
    let mut site = Site::new("", "", move |request| match request.target() {
        "/slow" => {
            held.pass();
            Reply::Keep(long_answer(""))
        }
        _ => target(request),
    });
    let mut client = begin(site.port, "/slow");
    site.origin.has(1);
    site.server.signal(Signal::QUIT);
    until("nobody is served any more", SOON, || !crate::support::wait::connectable(site.server.address()));
    gate.open();
    let answer = client.answer("GET").expect(200);
    assert!(answer.header("X-Cache") == Some("MISS") && answer.body == long());
    assert!(site.server.quit().success());
    assert_eq!(files(&site.cache()).len(), 1);
    assert_eq!(files(&site.server.dir().path().join("proxy_temp")).len(), 0);
    site.server.again();
    assert_eq!(site.get("/slow").header("X-Cache"), Some("HIT"));
}

#[test]
fn a_quit_leaves_no_half_of_anything() {
    for parameters in ["", "use_temp_path=off"] {
        let gate = Gate::default();
        let held = gate.clone();
        let location = "proxy_cache_background_update on; proxy_cache_use_stale updating;";
        let mut site = Site::new(parameters, location, |_| text("200 OK", OLD, "old"));
        assert_eq!(site.see("/behind"), "200 MISS old");
        holds(&site.cache(), 1);
        site.origin.answers(move |request| {
            if request.target() == "/behind" {
                held.pass();
            }
            let all = long_answer("");
            Reply::Slowly(vec![all[..1 << 20].to_vec(), all[1 << 20..].to_vec()], Duration::from_millis(100))
        });
        // One whose client has gone, and one that nobody ever waited for.
        let mut gone = begin(site.port, "/gone");
        assert_eq!(gone.read_exact(15), b"HTTP/1.1 200 OK");
        drop(gone);
        assert_eq!(site.see("/behind"), "200 STALE old");
        site.origin.has(3);
        site.server.signal(Signal::QUIT);
        gate.open();
        assert!(site.server.quit().success());
        let left = files(&site.cache());
        assert!(left.iter().all(|path| path.extension().is_none()), "{left:?}");
        assert_eq!(files(&site.server.dir().path().join("proxy_temp")).len(), 0);
        site.origin.answers(|_| Reply::Keep(long_answer("")));
        site.server.again();
        for path in ["/gone", "/behind"] {
            until("it is whole", SOON, || site.get(path).body == long());
        }
    }
}

#[test]
fn a_cache_that_goes_and_comes_back_is_found_again() {
    let conf = |cache: &str, name: &str| {
        format!(
            "{cache} server {{ listen 127.0.0.1:%PORT%; location / {{ proxy_pass http://%ORIGIN%; }} \
             location /now {{ return 200 '{name}'; }} }}"
        )
    };
    let with = "proxy_cache_path cache keys_zone=z:1m; proxy_cache z;";
    let site = Site::of(&conf(with, "first"), target);
    let reloaded = |cache: &str, name: &str| {
        site.rewrite(&conf(cache, name));
        site.server.reload();
        until("the new file counts", SOON, || site.get("/now").text() == name);
    };
    assert_eq!((site.see("/"), site.see("/")), ("200 MISS /".into(), "200 HIT /".into()));
    reloaded("", "second");
    until("there is none", SOON, || site.see("/") == "200 - /");
    reloaded(with, "third");
    site.comes_to("/", "200 HIT /");
    let hits = site.origin.hits();
    // Under another name over the same files, and in other folders.
    reloaded("proxy_cache_path cache keys_zone=y:1m; proxy_cache y;", "fourth");
    site.comes_to("/", "200 HIT /");
    assert_eq!(site.origin.hits(), hits);
    // nginx refuses to give a name to another folder.
    if replaced() {
        return;
    }
    reloaded("proxy_cache_path other keys_zone=y:1m; proxy_cache y;", "fifth");
    site.comes_to("/", "200 HIT /");
    assert!(site.origin.hits() > hits);
}

#[test]
fn requests_behind_an_answer_are_not_logged() {
    let location = "proxy_cache_background_update on; proxy_cache_use_stale updating; log_subrequest off; \
                    access_log access.log cached;";
    let conf = format!(
        "log_format cached '$uri $status $upstream_cache_status $upstream_status'; \
         proxy_cache_path cache keys_zone=z:1m; \
         server {{ listen 127.0.0.1:%PORT%; location / {{ proxy_cache z; proxy_pass http://%ORIGIN%; {location} }} }}"
    );
    let site = Site::of(&conf, |_| text("200 OK", OLD, "old"));
    assert_eq!(site.see("/"), "200 MISS old");
    site.origin.says("200 OK", KEPT, "new");
    assert_eq!(site.see("/"), "200 STALE old");
    site.comes_to("/", "200 HIT new");
    site.get("/last");
    until("all is logged", SOON, || site.server.access_log().contains("/last"));
    let log = site.server.access_log();
    let told = |line: &str| log.lines().filter(|known| *known == line).count();
    assert_eq!((told("/ 200 MISS 200"), told("/ 200 STALE -")), (1, 1), "{log}");
    assert_eq!(told("/ 200 EXPIRED 200"), 0, "{log}");
}

#[test]
fn when_all_is_done_nobody_holds_anything() {
    let conf = "proxy_cache_path cache keys_zone=z:1m inactive=1s manager_sleep=1ms; proxy_cache z; \
                proxy_cache_key $uri; proxy_cache_bypass $arg_bypass; proxy_no_cache $arg_not; \
                server { listen 127.0.0.1:%PORT%; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /lock { proxy_cache_lock on; proxy_cache_lock_age 1ms; proxy_pass http://%ORIGIN%; } \
                location /wait { proxy_cache_lock on; proxy_cache_lock_timeout 1ms; proxy_pass http://%ORIGIN%; } \
                location /again { proxy_cache_revalidate on; proxy_pass http://%ORIGIN%; } \
                location /behind { proxy_cache_background_update on; proxy_cache_use_stale updating error; \
                                   proxy_pass http://%ORIGIN%; } \
                location /stale { proxy_cache_use_stale error updating http_500; proxy_pass http://%ORIGIN%; } \
                location /min { proxy_cache_min_uses 3; proxy_pass http://%ORIGIN%; } \
                location /page { proxy_intercept_errors on; error_page 500 @page; proxy_pass http://%ORIGIN%; } \
                location @page { return 200 page; } \
                location /valid { proxy_cache_valid any 1s; proxy_pass http://%ORIGIN%; } }";
    let site = Site::threaded(conf, |request| {
        let sum: usize = request.head.bytes().map(usize::from).sum();
        match sum % 11 {
            _ if request.target() == "/valid/last" => text("200 OK", KEPT, "last"),
            0 => Reply::Close,
            1 => text("500 Bad", "", "bad"),
            2 => text("200 OK", "Cache-Control: no-store\r\n", "not"),
            3 => Reply::Raw(format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: 10\r\n\r\nshort").into_bytes()),
            4 => Reply::Keep(long_answer("")),
            5 => text("304 Not Modified", KEPT, ""),
            6 => text("200 OK", &format!("{KEPT}Vary: X-A\r\nETag: \"e\"\r\n"), "vary"),
            _ => text("200 OK", "X-Accel-Expires: @1\r\nETag: \"e\"\r\nAccept-Ranges: bytes\r\n", "old"),
        }
    });
    let places = ["/", "/lock", "/wait", "/again", "/behind", "/stale", "/min", "/page", "/valid"];
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (port, places) = (site.port, &places);
            scope.spawn(move || {
                for round in 0..120_usize {
                    let query = ["", "?bypass=1", "?not=1", ""][(round / 3) % 4];
                    let path = format!("{}/{}{query}", places[(round + thread) % places.len()], round % 5);
                    let mut connection = Connection::open(port);
                    let request = Request::new(["GET", "GET", "HEAD"][round % 3], &path)
                        .header("X-A", &(round % 4).to_string())
                        .header("X-Salt", &(thread * 1000 + round).to_string())
                        .header("Connection", "close");
                    let request = if round % 5 == 0 { request.header("Range", "bytes=1-2") } else { request };
                    connection.send(request.bytes());
                    match round % 7 {
                        0 => {}
                        1 => drop(connection.read_exact(15)),
                        _ => drop(connection.read_to_end()),
                    }
                }
            });
        }
    });
    let log = || site.server.error_log();
    let gone = || files(&site.cache()).is_empty();
    let held = || log().matches("ignore long locked").count();
    until("all files are gone", Duration::from_secs(60), gone);
    // Whoever is held though nobody has to do with it any more is told of before the next file goes.
    let before = held();
    site.get("/valid/last");
    until("the last one is gone, too", LATER, gone);
    assert_eq!(held(), before, "{}", log());
    // nginx may leave some.
    if !replaced() {
        until("nothing is on its way", SOON, || files(&site.server.dir().path().join("proxy_temp")).is_empty());
    }
    assert!(!log().contains("[crit]"), "{}", log());
}
