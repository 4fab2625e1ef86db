//! What the server counts and says about itself: zones, peers, why attempts failed, and the page that Prometheus reads.

mod reasons;
mod scrapers;

use crate::support::backend::{Backend, Reply};
use crate::support::client::Connection;
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use rustix::process::Signal;

/// The page, as lines.
struct Page(String);

impl Page {
    fn of(port: u16) -> Self {
        Self(Connection::open(port).get("/metrics").expect(200).text())
    }

    /// A sample, by its name and labels as they are written.
    #[track_caller]
    fn number(&self, series: &str) -> usize {
        let value = self.find(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.0));
        value.parse().unwrap_or_else(|_| panic!("{series} is {value}"))
    }

    fn find(&self, series: &str) -> Option<&str> {
        let line = self.0.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        Some(line.rsplit_once(' ')?.1)
    }
}

/// A server of several threads, with a page of metrics beside what it serves.
fn serve(port: u16, http: &str, server: &str) -> Server {
    Server::threaded(port, &body(port, http, server))
}

fn body(port: u16, http: &str, server: &str) -> String {
    format!("{http} server {{ listen 127.0.0.1:{port}; {server} location = /metrics {{ metrics; }} }}")
}

#[test]
fn zones_add_up_what_all_threads_count_and_outlive_a_reload() {
    if replaced() {
        return;
    }
    let (peer, port) = (Backend::named("peer"), free_port());
    let (http, inside) = (
        format!("upstream u {{ zone u 64k; server {}; }}", peer.address()),
        "status_zone s; location /a { status_zone a; proxy_pass http://u; location /a/off { status_zone off; return 204; } } \
         location /b { status_zone b; try_files /none @c; } location @c { status_zone c; return 404; } \
         location /gone { status_zone gone; return 444; }",
    );
    let server = serve(port, &http, inside);
    let ask = || {
        for path in ["/a", "/a", "/a/off", "/b"] {
            Connection::open(port).get(path);
        }
        assert_eq!(Connection::open(port).get("/gone").status, 0);
    };
    ask();
    server.reload();
    ask();
    let page = Page::of(port);
    for (series, expected) in [
        // The request for the page is under way.
        ("nginxplus_server_zone_processing{server_zone=\"s\"}", 1),
        ("nginxplus_server_zone_requests{server_zone=\"s\"}", 11),
        ("nginxplus_server_zone_discarded{server_zone=\"s\"}", 2),
        ("nginxplus_server_zone_responses{server_zone=\"s\",code=\"2xx\"}", 6),
        ("nginxplus_server_zone_responses_codes{server_zone=\"s\",code=\"204\"}", 2),
        ("nginxplus_server_zone_responses_codes{server_zone=\"s\",code=\"404\"}", 2),
        ("nginxplus_location_zone_requests{location_zone=\"a\"}", 4),
        // Where it ends counts.
        ("nginxplus_location_zone_requests{location_zone=\"b\"}", 0),
        ("nginxplus_location_zone_requests{location_zone=\"c\"}", 2),
        ("nginxplus_location_zone_discarded{location_zone=\"gone\"}", 2),
        ("tidegate_server_zone_request_duration_seconds_count{server_zone=\"s\"}", 10),
        ("tidegate_server_zone_request_duration_seconds_bucket{server_zone=\"s\",le=\"+Inf\"}", 10),
        ("tidegate_config_reloads_total{result=\"success\"}", 1),
        ("tidegate_config_reloads_total{result=\"failure\"}", 0),
    ] {
        assert_eq!(page.number(series), expected, "{series}\n{}", page.0);
    }
    let received = page.number("nginxplus_location_zone_received{location_zone=\"a\"}");
    let request = peer.requests()[0].head.len();
    assert!(received >= 4 * 30 && request > 0, "{received}");
    assert!(page.number("nginxplus_location_zone_sent{location_zone=\"a\"}") > 4 * 100);
}

#[test]
fn a_client_that_leaves_is_told_apart() {
    if replaced() {
        return;
    }
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let open = std::sync::Mutex::new(open);
    let peer = Backend::start(move |_| {
        // An error: the test is over.
        let _ = open.lock().unwrap().recv();
        Reply::Text("late".into())
    });
    let port = free_port();
    let server = format!("status_zone s; location / {{ proxy_pass http://{}; }}", peer.address());
    let _server = serve(port, "", &server);
    let mut connection = Connection::open(port);
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait::until("it is under way", wait::SOON, || peer.hits() == 1);
    drop(connection);
    let aborted = "tidegate_server_zone_client_aborts_total{server_zone=\"s\"}";
    wait::until("it is counted", wait::SOON, || Page::of(port).number(aborted) == 1);
    let page = Page::of(port);
    assert_eq!(page.number("nginxplus_server_zone_discarded{server_zone=\"s\"}"), 1);
    // The one that asks; the one before it may not have ended yet.
    let processing = "nginxplus_server_zone_processing{server_zone=\"s\"}";
    wait::until("only the scrape is under way", wait::SOON, || Page::of(port).number(processing) == 1);
    drop(gate);
}

#[test]
fn a_peer_is_counted_where_its_group_has_a_zone() {
    if replaced() {
        return;
    }
    let (good, port) = (Backend::named("good"), free_port());
    let bad = Backend::start(|_| Reply::Keep(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let http = format!(
        "upstream u {{ zone u 64k; server {}; server {} max_fails=2; }} upstream bare {{ server {}; }}",
        good.address(),
        bad.address(),
        good.address()
    );
    let server =
        "location / { proxy_next_upstream http_503; proxy_pass http://u; } location /bare { proxy_pass http://bare; }";
    let _server = serve(port, &http, server);
    let mut connection = Connection::open(port);
    for path in ["/", "/", "/", "/", "/", "/", "/bare"] {
        connection.get(path).expect(200);
    }
    let page = Page::of(port);
    let number = |name: &str, peer: &Backend, more: &str| {
        let series = format!("{name}{{upstream=\"u\",server=\"{}\"{more}}}", peer.address());
        (page.number(&series), series)
    };
    for (name, peer, more, expected) in [
        ("nginxplus_upstream_server_requests", &good, "", 6),
        ("nginxplus_upstream_server_responses", &good, ",code=\"2xx\"", 6),
        ("nginxplus_upstream_server_responses_codes", &bad, ",code=\"503\"", 2),
        ("nginxplus_upstream_server_fails", &good, "", 0),
        ("nginxplus_upstream_server_fails", &bad, "", 2),
        ("nginxplus_upstream_server_unavail", &bad, "", 1),
        ("nginxplus_upstream_server_state", &good, "", 1),
        ("nginxplus_upstream_server_state", &bad, "", 4),
        ("nginxplus_upstream_server_active", &good, "", 0),
        ("tidegate_upstream_server_retries_total", &bad, ",reason=\"http_503\"", 2),
        ("tidegate_upstream_server_connections_opened_total", &good, "", 1),
        ("tidegate_upstream_server_connections_reused_total", &good, "", 5),
        ("tidegate_upstream_server_response_duration_seconds_count", &good, "", 6),
        ("tidegate_upstream_server_header_duration_seconds_count", &bad, "", 2),
    ] {
        let (found, series) = number(name, peer, more);
        assert_eq!(found, expected, "{series}\n{}", page.0);
    }
    let sent: usize = good.requests().iter().filter(|request| request.target() == "/").map(|it| it.head.len()).sum();
    assert_eq!(number("nginxplus_upstream_server_sent", &good, "").0, sent);
    assert_eq!(page.number("nginxplus_upstream_keepalive{upstream=\"u\"}"), 2);
    assert!(!page.0.contains("upstream=\"bare\""), "{}", page.0);
}

#[test]
fn a_reload_that_is_refused_is_told_while_the_old_configuration_serves() {
    if replaced() {
        return;
    }
    let port = free_port();
    let server = serve(port, "", "");
    for broken in ["no_such_directive;", "proxy_pass http://nowhere.invalid;"] {
        server.rewrite(&body(port, "", &format!("location / {{ {broken} }}")));
        server.signal(Signal::HUP);
        let failures = |page: &Page| page.number("tidegate_config_reloads_total{result=\"failure\"}");
        let expected = if broken.starts_with("no") { 1 } else { 2 };
        wait::until("the failure is told", wait::SOON, || failures(&Page::of(port)) == expected);
    }
    assert_eq!(Page::of(port).number("tidegate_config_last_reload_successful"), 0);
    server.rewrite(&body(port, "", ""));
    server.reload();
    let page = Page::of(port);
    assert_eq!(page.number("tidegate_config_last_reload_successful"), 1);
    assert_eq!(page.number("tidegate_config_reloads_total{result=\"success\"}"), 1);
}

#[test]
fn a_queue_tells_how_many_wait_and_for_how_long() {
    if replaced() {
        return;
    }
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let open = std::sync::Mutex::new(open);
    let peer = Backend::start(move |_| {
        open.lock().unwrap().recv().unwrap();
        Reply::Text("done".into())
    });
    let port = free_port();
    let http = format!("upstream u {{ zone u 64k; queue 1 timeout=60s; server {} max_conns=1; }}", peer.address());
    let _server = serve(port, &http, "location / { proxy_pass http://u; }");
    let ask = || {
        let mut connection = Connection::open(port);
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        connection
    };
    let depth = || Page::of(port).number("tidegate_upstream_queue_depth{upstream=\"u\"}");
    let mut first = ask();
    wait::until("one is under way", wait::SOON, || peer.hits() == 1);
    let mut second = ask();
    wait::until("one waits", wait::SOON, || depth() == 1);
    assert_eq!(ask().answer("GET").status, 502);
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    first.answer("GET").expect(200);
    second.answer("GET").expect(200);
    let page = Page::of(port);
    for (name, expected) in [
        ("tidegate_upstream_queue_depth", 0),
        ("tidegate_upstream_queue_limit", 1),
        ("tidegate_upstream_queue_overflows_total", 1),
        ("tidegate_upstream_queue_timeouts_total", 0),
        ("tidegate_upstream_queue_wait_seconds_count", 1),
    ] {
        assert_eq!(page.number(&format!("{name}{{upstream=\"u\"}}")), expected, "{name}");
    }
    assert_ne!(page.find("tidegate_upstream_queue_wait_seconds_sum{upstream=\"u\"}"), Some("0"));
}

#[test]
fn limits_count_what_they_do() {
    if replaced() {
        return;
    }
    let port = free_port();
    let http = "limit_req_zone $arg_k zone=r:1m rate=1r/m; limit_req_zone $arg_d zone=d:1m rate=1r/m;";
    let server = "location /r { limit_req zone=r; try_files /none @ok; } \
                  location /d { limit_req zone=d; limit_req_dry_run on; try_files /none @ok; } \
                  location @ok { return 200 ok; }";
    let _server = serve(port, http, server);
    let statuses = ["/r?k=1", "/r?k=1", "/r?k=2", "/r", "/d?d=1", "/d?d=1"];
    let statuses = statuses.map(|path| Connection::open(port).get(path).status);
    assert_eq!(statuses, [200, 503, 200, 200, 200, 200]);
    let page = Page::of(port);
    for (series, expected) in [
        ("nginxplus_limit_request_passed{zone=\"r\"}", 2),
        ("nginxplus_limit_request_rejected{zone=\"r\"}", 1),
        ("nginxplus_limit_request_passed{zone=\"d\"}", 1),
        ("nginxplus_limit_request_rejected{zone=\"d\"}", 0),
        ("nginxplus_limit_request_rejected_dry_run{zone=\"d\"}", 1),
    ] {
        assert_eq!(page.number(series), expected, "{series}");
    }
}

#[test]
fn caches_count_what_they_give_and_what_is_fetched_for_them() {
    if replaced() {
        return;
    }
    let (peer, port) = (Backend::named("peer"), free_port());
    let http = "proxy_cache_path kept keys_zone=answers:64k max_size=1m; proxy_cache_path other keys_zone=other:64k;";
    let server = format!(
        "location / {{ proxy_pass http://{}; proxy_cache answers; proxy_cache_valid 1h; proxy_cache_key $uri; \
         proxy_cache_bypass $arg_bypass; }}",
        peer.address()
    );
    let _server = serve(port, http, &server);
    for path in ["/", "/", "/", "/?bypass=1"] {
        Connection::open(port).get(path).expect(200);
    }
    let page = Page::of(port);
    for (name, expected) in [
        ("nginxplus_cache_max_size", 1 << 20),
        ("nginxplus_cache_hit_responses", 2),
        ("nginxplus_cache_hit_bytes", 8),
        ("nginxplus_cache_miss_responses", 1),
        ("nginxplus_cache_miss_bytes", 4),
        ("nginxplus_cache_bypass_responses", 1),
        ("nginxplus_cache_bypass_responses_written", 1),
        ("nginxplus_cache_expired_responses_written", 0),
        ("nginxplus_cache_stale_responses", 0),
        ("tidegate_cache_miss_responses_written_total", 1),
    ] {
        assert_eq!(page.number(&format!("{name}{{zone=\"answers\"}}")), expected, "{name}\n{}", page.0);
    }
    assert!(page.number("nginxplus_cache_size{zone=\"answers\"}") > 0);
    let written = page.number("tidegate_cache_miss_bytes_written_total{zone=\"answers\"}");
    assert_eq!(page.number("nginxplus_cache_bypass_bytes_written{zone=\"answers\"}"), written, "it is the same file");
    assert_eq!(page.number("nginxplus_cache_max_size{zone=\"other\"}"), 0);
}
