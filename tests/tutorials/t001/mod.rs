//! Tutorial 001: three Python servers behind Debian's nginx. The reader comments out the stock site, appends the
//! tutorial's block, and restarts the service: [`service`].

mod service;

use super::{ask_along, ask_times, expect_lines, lines_with};
use crate::support::client::{self, Answer, Connection};
use crate::support::component::need;
use crate::support::container::{Build, Container};
use crate::support::program::Program;
use crate::support::server::temp_paths;
use crate::support::{project, replaced, signature, wait};
use rustix::process::Signal;
use std::time::Duration;

const ENABLED: &str = "/etc/nginx/sites-enabled/default";

/// The reader's machine: Debian's tree with the tutorial's site.
struct Debian(Container);

impl Debian {
    fn new() -> Option<Self> {
        if !need(&["python3"]) {
            return None;
        }
        let container = Container::new(Build::Debian)?;
        let site = "/etc/nginx/sites-available/default";
        container.copy("nginx-examples/001-debian-http-server/sites-available-default", site);
        container.link(site, ENABLED);
        if !replaced() {
            // What Debian 12's module packages put there; a nginx would want the files.
            for module in ["ngx_http_geoip2_module", "ngx_stream_module", "ngx_http_echo_module", "ngx_mail_module"] {
                let name = format!("/etc/nginx/modules-enabled/50-{module}.conf");
                container.write(&name, format!("load_module modules/{module}.so;\n"));
            }
        }
        Some(Self(container))
    }

    /// `python3 create_servers.py`: three servers, one process.
    fn start_servers(&self) -> Program {
        let script = project("fixtures/apps/http-server/create_servers.py");
        let servers = self.0.start("the servers", &["python3", "-B", script.to_str().expect("a path in UTF-8")]);
        for port in 8000..8003 {
            self.0.wait_for_port(port);
        }
        servers
    }

    /// As the systemd unit does.
    fn start_nginx(&self) {
        self.0.nginx(&["-t", "-q", "-g", "daemon on; master_process on;"]).succeeded();
        self.0.nginx(&["-g", "daemon on; master_process on;"]).succeeded();
        assert!(self.0.master().is_some(), "systemd looks for the pid file at once");
        self.0.wait_for_port(80);
    }

    fn error_log(&self) -> String {
        self.0.read("/var/log/nginx/error.log")
    }
}

fn number(answer: &Answer) -> String {
    answer.text().trim_start_matches("Server ").to_owned()
}

#[test]
fn the_derived_site_passes_with_the_stock_nginx_conf() {
    let Some(debian) = Debian::new() else { return };
    let ran = debian.0.nginx(&["-t"]).succeeded();
    let said = "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n\
                nginx: configuration file /etc/nginx/nginx.conf test is successful\n";
    assert!(ran.stderr.ends_with(said), "{}", ran.stderr);
    let warned = lines_with(&ran.stderr, &["[warn]"]).len();
    assert!(if replaced() { warned == 0 } else { (1..=4).contains(&warned) }, "{}", ran.stderr);
}

#[test]
fn refreshing_the_page_shows_1_2_3_1_2_3() {
    let Some(debian) = Debian::new() else { return };
    let servers = debian.start_servers();
    debian.start_nginx();
    let mut browser = Connection::open(80);
    assert_eq!(ask_along(&mut browser, 9, "/", number).concat(), "123123123");
    if !replaced() {
        // With `worker_processes auto` every nginx worker counts for itself; tidegate counts for the whole server.
        assert_eq!(ask_times(9, "/", number).concat(), "123123123");
        assert_eq!(ask_along(&mut browser, 3, "/", number).concat(), "123");
    }
    let seen = servers.stderr();
    // nginx has asked in HTTP/1.1 since 1.29.7.
    let version = if replaced() { "1.0" } else { "1.1" };
    assert!(lines_with(&seen, &[&format!("\"GET / HTTP/{version}\" 200 -")]).len() >= 9, "{seen}");
}

#[test]
fn an_answer_of_unknown_length_is_chunked_and_nothing_is_invented() {
    let Some(debian) = Debian::new() else { return };
    let _servers = debian.start_servers();
    debian.start_nginx();
    let mut browser = Connection::open(80);
    let answer = browser.get("/").expect(200);
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Server", "Date", "Transfer-Encoding", "Connection"], "{answer:?}");
    assert_eq!(answer.header("Connection"), Some("keep-alive"));
    assert!(answer.header("Server").is_some_and(|server| server.starts_with(signature())));
    browser.get("/favicon.ico").expect(200);
    // To an HTTP/1.0 client the end of the connection is the end of the body.
    let bytes = client::raw(80, "GET / HTTP/1.0\r\n\r\n");
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\nServer "), "{text}");
    assert!(!text.contains("Transfer-Encoding") && !text.contains("Content-Length"), "{text}");
    let log = || debian.0.read("/var/log/nginx/access.log");
    // The body's chunk framing counts: 3 + 8 + 2, and 5 for the end.
    expect_lines(1, log, &["127.0.0.1 - - [", "\"GET / HTTP/1.1\" 200 18 \"-\" \"-\""]);
    expect_lines(1, log, &["\"GET / HTTP/1.0\" 200 8 \"-\" \"-\""]);
}

#[test]
fn without_servers_there_is_a_502_page_until_they_are_back() {
    let Some(debian) = Debian::new() else { return };
    let mut servers = debian.start_servers();
    debian.start_nginx();
    client::get(80, "/").expect(200);
    servers.kill();
    let answer = client::get(80, "/").expect(502);
    let title = "502 Bad Gateway";
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>"
    );
    let text = answer.text();
    let end = text.strip_prefix(&page).unwrap_or_else(|| panic!("{text}"));
    assert!(end.starts_with(signature()) && end.ends_with("</center>\r\n</body>\r\n</html>\r\n"), "{end}");
    assert_eq!(answer.header("Content-Type"), Some("text/html"));
    for port in 8000..8003 {
        let upstream = format!("upstream: \"http://127.0.0.1:{port}/\", host: \"localhost\"");
        expect_lines(1, || debian.error_log(), &["[error]", "connect() failed (111: Connection refused)", &upstream]);
    }
    let _servers = debian.start_servers();
    // Every worker has to find out for itself in nginx.
    wait::until("they are asked again", Duration::from_secs(15), || client::get(80, "/").status == 200);
}

#[test]
fn a_localhost_of_two_addresses_hides_three_failures_and_then_runs_backwards() {
    let Some(debian) = Debian::new() else { return };
    debian.0.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    let _servers = debian.start_servers();
    debian.start_nginx();
    let mut browser = Connection::open(80);
    assert_eq!(ask_along(&mut browser, 12, "/", number).concat(), "123321321321");
}

#[test]
fn without_listen_it_is_port_80_of_ipv4_only() {
    let Some(debian) = Debian::new() else { return };
    let _servers = debian.start_servers();
    debian.start_nginx();
    assert!(wait::connectable("127.0.0.1:80".parse().expect("an address")));
    assert!(!wait::connectable("[::1]:80".parse().expect("an address")));
}

#[test]
fn who_is_not_root_gets_port_8000() {
    let Some(debian) = Debian::new() else { return };
    let folder = "/tmp/reader";
    debian.0.copy("nginx-examples/001-debian-http-server/site-block.conf", "/tmp/reader/site");
    let temp = temp_paths(folder);
    let main = format!(
        "pid {folder}/pid; error_log {folder}/log; events {{}} http {{ access_log off; {temp} include site; }}"
    );
    debian.0.write("/tmp/reader/nginx.conf", main);
    debian.0.run(&["chown", "-R", "65534:65534", folder]).silently();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let nginx = ["nginx", "-c", "/tmp/reader/nginx.conf", "-e", "/tmp/reader/log", "-g", "daemon off;"];
    let _nginx = debian.0.start("nginx of nobody", &[user.as_slice(), &nginx].concat());
    // Where the tutorial's first server would be: just what the rule does with this site.
    debian.0.wait_for_port(8000);
    assert!(!debian.0.listens(80));
}

#[test]
fn logs_are_reopened_for_logrotate() {
    let Some(debian) = Debian::new() else { return };
    let _servers = debian.start_servers();
    debian.start_nginx();
    client::get(80, "/").expect(200);
    let log = "/var/log/nginx/access.log";
    wait::until("the request is logged", wait::SOON, || debian.0.read(log).contains("GET / "));
    debian.0.run(&["mv", log, "/var/log/nginx/access.log.1"]).silently();
    crate::support::program::send(debian.0.master().expect("a pid"), Signal::USR1);
    wait::until("there is a new file", wait::SOON, || debian.0.exists(log));
    wait::until("it is written to", wait::SOON, || {
        client::get(80, "/after").expect(200);
        debian.0.read(log).contains("GET /after ")
    });
}
