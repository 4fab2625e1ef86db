//! Those who read what is counted: Prometheus's own checker, and nginx-prometheus-exporter on `stub_status` and the API.

use super::{Page, serve};
use crate::support::backend::Backend;
use crate::support::client::Connection;
use crate::support::component;
use crate::support::ports::free_port;
use crate::support::program::Program;
use crate::support::{replaced, wait};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

const SERVER: &str = "status_zone s; location / { status_zone l; proxy_pass http://u; } \
                      location /kept { proxy_pass http://u/; proxy_cache answers; proxy_cache_valid 1h; } \
                      location /status { stub_status; } location /api { api; }";

fn http(peer: &Backend) -> String {
    format!(
        "limit_req_zone $uri zone=r:1m rate=1000r/s; limit_conn_zone $uri zone=c:1m; \
         resolver 127.0.0.1:1 status_zone=dns; proxy_cache_path kept keys_zone=answers:64k max_size=10m; \
         upstream u {{ zone u 64k; queue 3; server {} max_conns=9; server 127.0.0.1:1 down; }}",
        peer.address()
    )
}

#[test]
fn prometheus_has_nothing_against_the_page_but_names_that_are_the_exporters() {
    if replaced() || !component::need(&["promtool"]) {
        return;
    }
    let (peer, port) = (Backend::named("peer"), free_port());
    let _server = serve(port, &http(&peer), SERVER);
    Connection::open(port).get("/").expect(200);
    let page = Page::of(port);
    let promtool = component::find("promtool").unwrap();
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(page.0.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // The names are those that dashboards and alerts know.
    let own =
        |line: &&str| !(line.starts_with("nginx") && line.ends_with("counter metrics should have \"_total\" suffix"));
    let faults: Vec<_> = said.lines().filter(own).collect();
    assert!(faults.is_empty(), "{faults:?}\n{}", page.0);
}

/// What the exporter makes of one of our locations; without its help texts.
fn exported(arguments: &[String]) -> String {
    let port = free_port();
    let mut command = Command::new(component::find("prometheus-nginx-exporter").unwrap());
    command.arg(format!("-web.listen-address=127.0.0.1:{port}")).args(arguments);
    let _exporter = Program::start("prometheus-nginx-exporter", command);
    wait::until("it serves", wait::SOON, || wait::connectable((Ipv4Addr::LOCALHOST, port).into()));
    let text = Connection::open(port).get("/metrics").expect(200).text();
    text.lines().filter(|line| line.starts_with("nginx")).map(|line| format!("{line}\n")).collect()
}

/// A series of ours and theirs has its labels in another order.
fn sorted(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

#[test]
fn the_exporter_reads_our_status_and_api_and_says_what_our_page_says() {
    if replaced() || !component::need(&["prometheus-nginx-exporter"]) {
        return;
    }
    let (peer, port) = (Backend::named("peer"), free_port());
    let _server = serve(port, &http(&peer), SERVER);
    for _ in 0..4 {
        Connection::open(port).get("/").expect(200);
    }
    let status = exported(&[format!("-nginx.scrape-uri=http://127.0.0.1:{port}/status")]);
    assert!(status.contains("nginx_up 1\n"), "{status}");
    let plus = exported(&["-nginx.plus".to_owned(), format!("-nginx.scrape-uri=http://127.0.0.1:{port}/api")]);
    assert!(plus.contains("nginxplus_up 1\n"), "{plus}");
    let page = Page::of(port);
    let ours: Vec<String> = page.0.lines().filter_map(|line| Some(sorted(line.rsplit_once(' ')?.0))).collect();
    let mut compared = 0;
    for line in status.lines().chain(plus.lines()) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        // No TLS is spoken; it fills up with the statuses that it knows; and Debian's has an older name for one of them.
        let foreign = ["nginxexporter", "nginx_exporter", "nginxplus_upstream_keepalives"];
        let foreign = foreign.iter().any(|name| series.starts_with(name));
        if foreign || series.contains("_ssl_") || series.contains("_responses_codes") && value == "0" {
            continue;
        }
        assert!(ours.contains(&sorted(series)), "{series} is not in\n{}", page.0);
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
    for line in [
        "nginxplus_upstream_server_requests",
        "nginxplus_server_zone_responses{code=\"2xx\"",
        "nginxplus_upstream_server_state",
    ] {
        assert!(plus.lines().any(|other| other.starts_with(line)), "{line}\n{plus}");
    }
    let requests = format!("nginxplus_upstream_server_requests{{server=\"{}\",upstream=\"u\"}} 4", peer.address());
    assert!(plus.lines().any(|line| line == requests), "{requests}\n{plus}");
}
