//! Servers that are added by a name: looked up while the server runs, and followed wherever they go.

use super::{Api, send};
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Request, ask};
use crate::support::names::Names;
use crate::support::{replaced, wait};
use serde_json::json;
use std::net::Ipv4Addr;

#[test]
fn a_name_is_looked_up_and_followed_over_reloads_until_it_is_removed() {
    if replaced() {
        return;
    }
    let names = Names::start();
    let first = Backend::named("first");
    let port = first.address().port();
    let second = Backend::start_on((Ipv4Addr::new(127, 0, 0, 2), port).into(), |_| Reply::Text("second".into()));
    names.set("app.example", Ipv4Addr::LOCALHOST);
    let api = Api::new(
        &format!(
            "resolver 127.0.0.1:{} ipv6=off valid=1s; upstream app {{ zone app 64k; state app.conf; }} \
             upstream fixed {{ zone fixed 64k; server 127.0.0.1:1; }}",
            names.port
        ),
        "location / { proxy_pass http://app; }",
    );
    let servers = "/http/upstreams/app/servers/";
    let body = json!({ "server": format!("app.example:{port}"), "max_fails": 0 }).to_string();
    let said = api.send("POST", servers, &body);
    assert_eq!((said.status, &said.body["id"]), (201, &0.into()), "{}", said.body);
    assert_eq!(api.send("POST", servers, &body).fault(), (409, "EntryExists"));
    let answers = |text: &str| {
        wait::until(text, wait::SOON, || ask(api.port, &Request::get("/")).text() == text);
    };
    answers("first");
    let list = api.get(servers);
    assert_eq!((&list[0]["server"], &list[1]["parent"]), (&format!("app.example:{port}").into(), &"0".into()));
    assert_eq!((&list[1]["host"], &list[1]["server"]), (&"app.example".into(), &format!("127.0.0.1:{port}").into()));
    let child = format!("{servers}{}", list[1]["id"]);
    assert_eq!(api.send("DELETE", &child, "").fault(), (400, "UpstreamServerImmutable"));
    assert_eq!(api.send("PATCH", &child, "{\"server\":\"127.0.0.1:1\"}").fault(), (400, "UpstreamServerImmutable"));
    assert_eq!(api.send("PATCH", &format!("{servers}0"), "{\"weight\":3}").body["weight"], 3);
    assert_eq!(api.get(&child)["weight"], 3);
    assert_eq!(api.server.dir().read("app.conf"), format!("server app.example:{port} weight=3 max_fails=0 resolve;\n"));

    names.set("app.example", Ipv4Addr::new(127, 0, 0, 2));
    answers("second");
    api.server.reload();
    assert_eq!(api.get(&format!("{servers}0"))["weight"], 3);
    assert_eq!(ask(api.port, &Request::get("/")).text(), "second");
    names.set("app.example", Ipv4Addr::LOCALHOST);
    answers("first");
    assert_eq!(send(api.port, "DELETE", &format!("/api/9{servers}0"), "").body, json!([]));
    assert_eq!(ask(api.port, &Request::get("/")).status, 502);
    drop(second);
}
