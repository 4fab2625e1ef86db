//! Logs that go to a syslog server, and error logs of JSON.

use crate::support::client;
use crate::support::ports::free_port;
use crate::support::replaced;
use crate::support::server::Server;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A server whose error log of the main level is where nginx's is, with one more.
fn with_main_log(port: u16, log: &str, inside: &str) -> Server {
    Server::http(port, &format!("{log} server {{ listen 127.0.0.1:{port}; {inside} }}"))
}

/// `<190>Nov  1 10:00:00 rest`: its number and the rest.
fn taken_apart(packet: &[u8]) -> (String, String) {
    let text = String::from_utf8(packet.to_vec()).unwrap();
    let (number, rest) = text.strip_prefix('<').and_then(|text| text.split_once('>')).expect("a number");
    let (date, rest) = rest.split_at("Nov  1 10:00:00 ".len());
    assert!(date.ends_with(' ') && date.matches(':').count() == 2, "{text}");
    (number.to_owned(), rest.to_owned())
}

#[test]
fn lines_go_to_a_syslog_server_one_datagram_each() {
    let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let to = syslog.local_addr().unwrap();
    let port = free_port();
    let _server = with_main_log(
        port,
        "log_format short '$request_method $uri $status';",
        &format!(
            "access_log syslog:server={to},facility=local3,tag=web_1,severity=notice,nohostname short;
             error_log syslog:server={to},facility=mail,nohostname;
             location /x {{ return 200 x; }} location /none {{ root /nowhere; }}"
        ),
    );
    let mut packet = [0; 4096];
    let mut next = || {
        let length = syslog.recv(&mut packet).unwrap();
        taken_apart(&packet[..length])
    };
    client::get(port, "/x").expect(200);
    assert_eq!(next(), ("157".into(), "web_1: GET /x 200".into()));
    client::get(port, "/none").expect(404);
    let (number, text) = next();
    assert_eq!(number, "19");
    assert!(text.starts_with("nginx: 20") && text.contains(" [error] ") && text.contains(": *"), "{text}");
    assert!(text.contains(" open() \"/nowhere/none\" failed (2: No such file or directory), client: "), "{text}");
    assert_eq!(next(), ("157".into(), "web_1: GET /none 404".into()));
}

#[test]
fn a_syslog_server_that_is_not_there_costs_lines_and_nothing_else() {
    let port = free_port();
    let server = with_main_log(port, "", "access_log syslog:server=unix:log.sock; location / { return 200 x; }");
    client::get(port, "/").expect(200);
    // The line is written behind the answer.
    server.expect_log(&["send() to syslog failed"]);
    let log = server.error_log();
    assert!(log.contains("[alert]") && log.contains("connect() failed (2: No such file or directory)"), "{log}");
    assert!(log.contains(" while logging to syslog, server: unix:log.sock"), "{log}");
    assert!(
        log.contains("[warn]") && log.contains(" send() to syslog failed while logging request, client: "),
        "{log}"
    );
}

#[test]
fn a_unix_socket_takes_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.sock");
    let syslog = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = free_port();
    let to = format!("access_log syslog:server=unix:{} short;", path.display());
    let inside = format!("{to} location / {{ return 204; }}");
    let _server = with_main_log(port, "log_format short '$uri';", &inside);
    client::get(port, "/y").expect(204);
    let mut packet = [0; 4096];
    let length = syslog.recv(&mut packet).unwrap();
    let (number, text) = taken_apart(&packet[..length]);
    assert_eq!(number, "190");
    assert!(text.ends_with(" nginx: /y"), "{text}");
}

#[test]
fn an_error_log_may_be_objects_of_json() {
    if replaced() {
        return;
    }
    let port = free_port();
    let server = with_main_log(port, "", "error_log errors.json warn json; location / { root /nowhere; }");
    let request = client::Request::get("/a\"b").header("Referer", "http://r/\\");
    client::ask(port, &request).expect(404);
    let text = server.dir().read("errors.json");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [line] = &lines[..] else { panic!("not one line: {text}") };
    assert_eq!(line["level"], "error");
    assert_eq!(line["message"], "open() \"/nowhere/a\"b\" failed (2: No such file or directory)");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["request"], "GET /a\"b HTTP/1.1");
    assert_eq!(line["referrer"], "http://r/\\");
    assert!(line["connection"].is_u64() && line["pid"].is_u64() && line["tid"].is_u64() && line["host"].is_string());
    assert!(line["time"].is_string(), "{line}");
}
