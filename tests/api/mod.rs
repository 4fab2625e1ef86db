//! `api`: every path and method over the real program, changes of upstreams under load and over reloads, and the file of
//! `state` when the server is killed at any moment.

mod caches;
mod changes;
mod load;
mod names;
mod paths;
mod rate;
mod state;

use crate::support::client::{Answer, Request, ask};
use crate::support::ports::free_port;
use crate::support::server::Server;
use serde_json::Value;

/// A server with a writable API at `/api` and a readable one at `/read/`.
struct Api {
    server: Server,
    port: u16,
}

/// What the API answered.
struct Said {
    status: u16,
    body: Value,
    answer: Answer,
}

impl Said {
    /// Status and code of an error.
    fn fault(&self) -> (u16, &str) {
        assert_eq!(self.body["error"]["status"], self.status, "{}", self.body);
        assert!(self.body["request_id"].is_string() && self.body["href"].is_string(), "{}", self.body);
        (self.status, self.body["error"]["code"].as_str().unwrap())
    }
}

impl Api {
    fn new(http: &str, server: &str) -> Self {
        let port = free_port();
        Self { server: Server::http(port, &Self::body(port, http, server)), port }
    }

    fn body(port: u16, http: &str, server: &str) -> String {
        format!(
            "{http} server {{ listen 127.0.0.1:{port}; \
             location /api {{ api write=on; }} location /read/ {{ api; }} {server} }}"
        )
    }

    /// `GET /api/9` and this path.
    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let said = self.send("GET", path, "");
        assert_eq!(said.status, 200, "{path}: {}", said.body);
        said.body
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Said {
        send(self.port, method, &format!("/api/9{path}"), body)
    }

    /// The servers of an upstream as `number:address*weight`.
    fn servers(&self, upstream: &str) -> String {
        shown(&self.get(&format!("/http/upstreams/{upstream}/servers/")))
    }
}

fn shown(servers: &Value) -> String {
    let one = |server: &Value| format!("{}:{}*{}", server["id"], server["server"].as_str().unwrap(), server["weight"]);
    servers.as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
}

fn send(port: u16, method: &str, target: &str, body: &str) -> Said {
    let request = match body {
        "" => Request::new(method, target),
        _ => Request::post(target, "application/json", body).with_method(method),
    };
    let answer = ask(port, &request);
    let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
    Said { status: answer.status, body, answer }
}
