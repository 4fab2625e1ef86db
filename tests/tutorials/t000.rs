//! Tutorial 000: Tornado behind Homebrew's nginx. `python.conf` is written anywhere and included from `nginx.conf`, and
//! `nginx -s reload` makes port 80 appear beside the stock page's 8080.

use super::{ask_times, expect_lines, python};
use crate::support::client::{self, Answer, Connection};
use crate::support::component::{need, venv};
use crate::support::container::{Build, Container};
use crate::support::program::Program;
use crate::support::{project, replaced, wait};
use std::collections::BTreeMap;
use std::time::Duration;

const CONFIG: &str = "/usr/local/etc/nginx/nginx.conf";
const WRITTEN: &str = "/Users/reader/code/pythonb/python.conf";
const LAST_COMMENT: &str = "    #include coloque o caminho do seu arquivo python.conf aqui\n";
const PORTS: [u16; 3] = [1111, 2222, 3333];

/// The reader's machine: Homebrew's tree with the tutorial's nginx.conf, python.conf written, three Tornados running.
struct Mac {
    tornados: BTreeMap<u16, Program>,
    python: String,
    container: Container,
}

impl Mac {
    fn new() -> Option<Self> {
        if !need(&["python3"]) {
            return None;
        }
        let python = python(venv()?);
        let container = Container::new(Build::Homebrew)?;
        container.copy("nginx-examples/000-tornado/nginx.conf.default", CONFIG);
        container.copy("nginx-examples/000-tornado/nginx.conf.default", "/usr/local/etc/nginx/nginx.conf.default");
        container.copy("nginx-examples/000-tornado/python.conf", WRITTEN);
        let mut mac = Self { tornados: BTreeMap::new(), python, container };
        for port in PORTS {
            mac.start_tornado(port);
        }
        Some(mac)
    }

    /// `python3 index.py PORT`
    fn start_tornado(&mut self, port: u16) {
        let app = project("fixtures/apps/tornado/index.py");
        let words = [&self.python, app.to_str().expect("a path in UTF-8"), &port.to_string()];
        self.tornados.insert(port, self.container.start(&format!("Tornado on {port}"), &words));
        self.container.wait_for_port(port);
    }

    /// `sudo nginx`
    fn start_nginx(&self) {
        self.container.nginx(&[]).silently();
        self.container.wait_for_port(8080);
    }

    /// Puts a line where the tutorial says, below `include servers/*;`.
    fn include(&self, line: &str) {
        let text = self.container.read(CONFIG);
        assert!(text.contains(LAST_COMMENT));
        self.container.write(CONFIG, text.replace(LAST_COMMENT, &format!("    {line}\n")));
    }

    /// `sudo nginx -s reload`, after which port 80 is there.
    fn reload(&self) {
        self.container.nginx(&["-s", "reload"]).silently();
        if replaced() {
            // nginx says nothing about when it is done; tidegate's command returns when the new ports are served.
            self.container.wait_for_port(80);
        }
    }

    /// The ports of the processes that answer so many requests for /basic.
    fn served_by(&self, times: usize) -> Vec<u16> {
        ask_times(times, "/basic", Answer::text).iter().map(|text| self.port_of(text)).collect()
    }

    fn port_of(&self, text: &str) -> u16 {
        let pid = text.strip_prefix("Served from ").and_then(|pid| pid.parse().ok());
        let of = self.tornados.iter().find(|(_, tornado)| Some(tornado.pid()) == pid);
        *of.unwrap_or_else(|| panic!("nobody's answer: {text}")).0
    }

    fn error_log(&self) -> String {
        self.container.read("/usr/local/var/log/nginx/error.log")
    }
}

#[test]
fn both_files_of_000_pass_the_test() {
    let Some(mac) = Mac::new() else { return };
    mac.include(&format!("include {WRITTEN};"));
    let said = format!(
        "nginx: the configuration file {CONFIG} syntax is ok\nnginx: configuration file {CONFIG} test is successful\n"
    );
    let ran = mac.container.nginx(&["-t"]).succeeded();
    assert_eq!((ran.stderr, ran.stdout), (said, String::new()));
    let named = "/usr/local/etc/nginx/nginx.conf.default";
    let ran = mac.container.nginx(&["-t", "-c", named]).succeeded();
    assert!(ran.stderr.ends_with(&format!("nginx: configuration file {named} test is successful\n")));
}

#[test]
fn python_conf_runs_alone() {
    if replaced() {
        // nginx: "upstream" directive is not allowed here.
        return;
    }
    let Some(mac) = Mac::new() else { return };
    let ran = mac.container.nginx(&["-t", "-c", WRITTEN]).succeeded();
    assert!(ran.stderr.contains("[notice]"), "{}", ran.stderr);
    let mut nginx = mac.container.start_nginx(&["-c", WRITTEN, "-g", "daemon off;"]);
    mac.container.wait_for_port(80);
    assert_eq!(mac.served_by(6), [1111, 2222, 3333, 1111, 2222, 3333]);
    nginx.signal(rustix::process::Signal::QUIT);
    assert!(nginx.wait(wait::SOON).success());
}

#[test]
fn reload_adds_port_80_beside_8080() {
    let Some(mac) = Mac::new() else { return };
    mac.start_nginx();
    assert!(!mac.container.listens(80));
    let mut kept = Connection::open(8080);
    let page = std::fs::read_to_string(project("fixtures/www/index.html")).expect("index.html");
    assert_eq!(kept.get("/").expect(200).text(), page);
    let before = mac.container.master();

    mac.include(&format!("include {WRITTEN};"));
    mac.reload();
    assert_eq!(mac.served_by(6), [1111, 2222, 3333, 1111, 2222, 3333]);
    assert_eq!(client::get(8080, "/").expect(200).text(), page);
    assert_eq!(mac.container.master(), before);
    if !replaced() {
        // nginx's old worker closes it as soon as it is idle.
        assert_eq!(kept.get("/").expect(200).text(), page);
    }

    // The URI of proxy_pass takes the place of what the location matched, and arguments stay.
    let mut rotation = Connection::open(80);
    let answer = rotation.get("/basic?x=1").expect(200);
    assert_eq!(
        (answer.header("Content-Length"), answer.header("Etag").is_some()),
        (Some(&*answer.text().len().to_string()), true)
    );
    assert_eq!(rotation.get("/basicfoo").expect(404).header("Content-Type"), Some("text/html; charset=UTF-8"));
    // Outside it port 80 has the same pages as 8080, from the prefix's html folder.
    assert_eq!(rotation.get("/").expect(200).text(), page);
    assert_eq!(rotation.get("/nothing").expect(404).header("Content-Type"), Some("text/html"));

    mac.container.nginx(&["-s", "stop"]).silently();
    wait::until("the pid file is gone", wait::SOON, || mac.container.master().is_none());
    // The master takes its pid file away just before it ends itself.
    wait::until("the ports are closed", wait::SOON, || !mac.container.listens(80) && !mac.container.listens(8080));
    wait::until("only the Tornados are left", wait::SOON, || {
        mac.container.processes().iter().all(|pid| mac.tornados.values().any(|tornado| tornado.pid() == *pid))
    });
}

#[test]
fn nobody_notices_when_one_python_is_killed() {
    let Some(mut mac) = Mac::new() else { return };
    mac.include(&format!("include {WRITTEN};"));
    mac.start_nginx();
    assert_eq!(mac.served_by(3), PORTS);
    mac.tornados.get_mut(&2222).expect("the second").kill();
    let survivors = mac.served_by(30);
    assert!(survivors.iter().all(|port| *port != 2222));
    assert_eq!(survivors.iter().filter(|port| **port == 1111).count(), 15, "{survivors:?}");
    let refused = "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1";
    expect_lines(1, || mac.error_log(), &[refused, "upstream: \"http://127.0.0.1:2222/basic\""]);

    mac.start_tornado(2222);
    wait::until("the second is asked again", Duration::from_secs(15), || mac.served_by(3).contains(&2222));
}

#[test]
fn the_two_mistakes_in_the_text_are_told_and_change_nothing() {
    let Some(mac) = Mac::new() else { return };
    mac.include(&format!("include {WRITTEN};"));
    mac.start_nginx();
    let original = mac.container.read(CONFIG);
    let folder = "/usr/local/etc/nginx/User/nraythz/code/pythonb/python.conf";
    let mistakes = [
        ("include /Users/reader/code/pythonb/python.conf", format!("unexpected \"}}\" in {CONFIG}:118")),
        (
            "include User/nraythz/code/pythonb/python.conf;",
            format!("open() \"{folder}\" failed (2: No such file or directory) in {CONFIG}:117"),
        ),
    ];
    for (line, text) in mistakes {
        mac.container.write(CONFIG, original.replace(&format!("include {WRITTEN};"), line));
        for arguments in [["-s", "reload"].as_slice(), &["-t"]] {
            let ran = mac.container.nginx(arguments);
            let failed = if arguments == ["-t"] {
                format!("nginx: configuration file {CONFIG} test failed\n")
            } else {
                String::new()
            };
            assert_eq!((ran.code, ran.stderr), (Some(1), format!("nginx: [emerg] {text}\n{failed}")), "{line}");
        }
        assert_eq!(mac.served_by(3).len(), 3);
        client::get(8080, "/").expect(200);
    }
}

#[test]
fn a_localhost_of_two_addresses_takes_two_turns_each() {
    let Some(mac) = Mac::new() else { return };
    mac.container.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    mac.include(&format!("include {WRITTEN};"));
    mac.start_nginx();
    assert_eq!(mac.served_by(12), [1111, 1111, 2222, 2222, 3333, 3333, 1111, 1111, 2222, 2222, 3333, 3333]);
}

#[test]
fn signals_without_a_running_nginx_are_refused() {
    let Some(mac) = Mac::new() else { return };
    let pid_file = mac.container.pid_file();
    let ran = mac.container.nginx(&["-s", "reload"]);
    let text = format!("nginx: [error] open() \"{pid_file}\" failed (2: No such file or directory)\n");
    assert_eq!((ran.code, ran.stderr), (Some(1), text));
    let ran = mac.container.nginx(&["-s", "foo"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "nginx: invalid option: \"-s foo\"\n"));
}

#[test]
fn a_second_nginx_finds_the_port_taken() {
    let Some(mac) = Mac::new() else { return };
    mac.start_nginx();
    let ran = mac.container.nginx(&[]);
    let taken = "nginx: [emerg] bind() to 0.0.0.0:8080 failed (98: Address already in use)\n";
    let text = format!("{}nginx: [emerg] still could not bind()\n", taken.repeat(5));
    assert_eq!((ran.code, ran.stderr), (Some(1), text));
    client::get(8080, "/").expect(200);
}
