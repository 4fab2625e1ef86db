//! The API's own description against the API: schemathesis asks for everything it says, and for much that it does not.

use crate::support::backend::Backend;
use crate::support::client;
use crate::support::component::schemathesis;
use crate::support::ports::free_port;
use crate::support::program::run_within;
use crate::support::server::Server;
use crate::support::{project, replaced, setting};
use std::process::Command;
use std::time::Duration;

/// How many questions are made up for each operation; `TIDEGATE_API_EXAMPLES` says otherwise.
const EXAMPLES: u32 = 6;

#[test]
fn the_api_does_what_its_description_says() {
    agrees("api write=on;");
}

#[test]
fn the_api_does_what_its_description_says_where_nothing_may_be_changed() {
    agrees("api;");
}

fn agrees(api: &str) {
    if replaced() {
        return;
    }
    let Some(program) = schemathesis() else { return };
    let (peer, port) = (Backend::named("a"), free_port());
    let body = format!(
        "limit_req_zone $uri zone=site:64k rate=1000r/s; limit_conn_zone $uri zone=connections:64k; \
         resolver 127.0.0.1:1 status_zone=site; proxy_cache_path kept keys_zone=kept:64k max_size=1m; \
         upstream app {{ zone app 64k; server {}; server 127.0.0.1:1 backup; server 127.0.0.1:2 down; }} \
         upstream static {{ server 127.0.0.1:1; }} \
         server {{ listen 127.0.0.1:{port}; status_zone site; access_log off; limit_req zone=site; \
         limit_conn connections 99; location / {{ status_zone site; proxy_pass http://app; \
         proxy_cache kept; health_check; }} \
         location /under/api {{ limit_req zone=site burst=99999 nodelay; {api} }} }}",
        peer.address()
    );
    let server = Server::http(port, &body);
    client::get(port, "/").expect(200);
    let examples = setting("TIDEGATE_API_EXAMPLES").unwrap_or(EXAMPLES).to_string();
    let url = format!("http://127.0.0.1:{port}/under/api");
    let mut command = Command::new(&program);
    command.arg("--config-file").arg(project("fixtures/api/schemathesis.toml")).arg("run");
    command.arg(format!("{url}/openapi.yaml")).args(["--url", &format!("{url}/9")]);
    command.args(["--max-examples", &examples, "--max-failures", "20", "--no-color"]);
    command.args(["--generation-database", "none"]).current_dir(server.dir().path());
    let ran = run_within(Duration::from_secs(600), command);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let done = ran.stdout.lines().find(|line| line.contains(" generated, ")).unwrap_or_default();
    println!("{api} {}", done.trim());
}
