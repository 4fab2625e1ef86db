//! The page as a whole.

use crate::http::testing::{ask_http, fault, get};

fn scrape(http: &str, accept: &str) -> crate::http::testing::Answer {
    let text = format!("{http} server {{ listen 80 default_server; location / {{ metrics; }} }}");
    ask_http(&text, &format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"))
}

#[test]
fn every_line_is_a_comment_or_a_sample_and_no_series_comes_twice() {
    let text = scrape(
        "limit_req_zone $uri zone=r:1m rate=1r/s; limit_conn_zone $uri zone=c:1m; resolver 127.0.0.1 status_zone=dns; \
         proxy_cache_path /nowhere keys_zone=answers:1m max_size=7m; \
         upstream u { zone z 1m; queue 3; server 127.0.0.1:1; server 127.0.0.1:1; server unix:/a; server a.b resolve; } \
         server { status_zone s; location /x { status_zone l; } }",
        "*/*",
    )
    .text();
    let mut series = std::collections::HashSet::new();
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(name.to_owned()), "{line}");
    }
    for name in [
        "nginx_connections_accepted",
        "nginxplus_connections_idle",
        "nginxplus_server_zone_requests{server_zone=\"s\"}",
        "nginxplus_location_zone_responses{location_zone=\"l\",code=\"2xx\"}",
        "nginxplus_upstream_server_state{upstream=\"u\",server=\"127.0.0.1:1\"}",
        "nginxplus_upstream_server_state{upstream=\"u\",server=\"127.0.0.1:1\",peer=\"1\"}",
        "nginxplus_upstream_server_state{upstream=\"u\",server=\"unix:/a\"}",
        "nginxplus_resolver_nxdomain{resolver=\"dns\"}",
        "nginxplus_limit_request_delayed{zone=\"r\"}",
        "nginxplus_limit_connection_rejected{zone=\"c\"}",
        "nginxplus_cache_max_size{zone=\"answers\"}",
        "nginxplus_cache_hit_responses{zone=\"answers\"}",
        "nginxplus_cache_bypass_bytes_written{zone=\"answers\"}",
        "tidegate_cache_miss_responses_written_total{zone=\"answers\"}",
        "tidegate_server_zone_request_duration_seconds_bucket{server_zone=\"s\",le=\"0.005\"}",
        "tidegate_upstream_queue_limit{upstream=\"u\"}",
        "tidegate_config_reloads_total{result=\"failure\"}",
    ] {
        assert!(series.contains(name), "{name}\n{text}");
    }
}

#[test]
fn open_metrics_is_written_for_who_asks_for_it() {
    for (accept, open) in [
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true),
        ("text/plain;version=0.0.4", false),
        ("application/openmetrics-text;q=0, */*", false),
    ] {
        let answer = scrape("", accept);
        let kind = answer.header("content-type").unwrap().to_owned();
        assert_eq!(kind.starts_with("application/openmetrics-text; version=1.0.0"), open, "{accept}");
        assert_eq!(answer.text().ends_with("\n# EOF\n"), open, "{accept}");
    }
}

#[test]
fn it_is_read_and_not_written_to_and_belongs_to_its_location_alone() {
    let posted = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask_http("server { location / { metrics; } }", posted).status, 405);
    assert_eq!(get("location / { metrics; location /in { } }", "/in").status, 404);
    assert_eq!(fault("metrics on;"), "invalid number of arguments in \"metrics\" directive");
}

#[test]
fn a_group_without_a_zone_is_not_shown() {
    assert!(!scrape("upstream u { server 127.0.0.1:1; }", "*/*").text().contains("upstream=\"u\""));
}
