//! What is measured: scenes of like configurations, and the cells of each.

use crate::programs::free_port;
use std::{fmt::Write, fs, path::Path};

/// A few programs over like configurations.
pub(crate) struct Scene {
    pub(crate) title: &'static str,
    /// Names of programs; what is behind a `+` names a variant of the configuration.
    pub(crate) contenders: &'static [&'static str],
    /// To whom the ratios are.
    pub(crate) base: &'static str,
    pub(crate) cells: &'static [Cell],
    /// The text for a contender at a port, over a backend's.
    pub(crate) text: fn(&Path, &str, u16, u16) -> String,
}

/// A kind of load.
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    /// Fields of each request.
    pub(crate) fields: &'static [&'static str],
    /// Files of the proxy itself, or what HAProxy cannot do: nothing for it.
    pub(crate) local: bool,
}

impl Cell {
    const fn new(name: &'static str, path: &'static str, connections: usize) -> Self {
        Self { name, path, connections, fields: &[], local: false }
    }

    const fn local(self) -> Self {
        Self { local: true, ..self }
    }

    const fn with(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }
}

pub(crate) const SCENES: &[Scene] = &[
    Scene {
        title: "proxying, files, rules",
        contenders: &["tidegate", "nginx", "haproxy"],
        base: "nginx",
        text: proxies,
        cells: &[
            Cell::new("small, keepalive, 64 connections", "/small", 64),
            Cell::new("small, keepalive, 512 connections", "/small", 512),
            Cell::new("small, a connection per request", "/small", 64).with(&["Connection: close"]),
            Cell::new("100 KB body, 64 connections", "/100k", 64),
            Cell::new("10 MB body, 8 connections", "/10m", 8),
            Cell::new("static 1 KB, 64 connections", "/static/1k", 64).local(),
            Cell::new("static 100 KB, 64 connections", "/static/100k", 64).local(),
            Cell::new("static 1 MB, 16 connections", "/static/1m", 16).local(),
            Cell::new("static 10 MB, 8 connections", "/static/10m", 8).local(),
            Cell::new("gzip of 100 KB JSON, 16 connections", "/packed/100k.json", 16)
                .with(&["Accept-Encoding: gzip"])
                .local(),
            Cell::new("rules, static 1 KB, 64 connections", "/rules/v1/1k?page=7", 64).with(BROWSER).local(),
            Cell::new("rules, small, 64 connections", "/rules/v2/small?page=7", 64).with(BROWSER).local(),
        ],
    },
    Scene {
        title: "caches",
        contenders: &["tidegate", "nginx"],
        base: "nginx",
        text: caches,
        cells: &[
            Cell::new("cached 1 KB, 64 connections", "/static/1k", 64),
            Cell::new("cached 100 KB, 64 connections", "/100k", 64),
            Cell::new("cached 1 KB, a connection per request", "/static/1k", 64).with(&["Connection: close"]),
            Cell::new("not cached and stored, 1 KB, 64 connections", "/new/static/1k", 64),
            Cell::new("not cached and stored, 100 KB, 16 connections", "/new/100k", 16),
        ],
    },
    Scene {
        title: "1,000 peers in one upstream",
        contenders: &["tidegate", "nginx"],
        base: "nginx",
        text: many_peers,
        cells: &[
            Cell::new("one peer, for comparison", "/one", 64),
            Cell::new("round robin of 1,000", "/round_robin", 64),
            Cell::new("least_conn of 1,000", "/least_conn", 64),
            Cell::new("ip_hash of 1,000", "/ip_hash", 64),
            Cell::new("hash of 1,000", "/hash", 64),
            Cell::new("hash consistent of 1,000", "/consistent", 64),
            Cell::new("random of 1,000", "/random", 64),
            Cell::new("random two of 1,000", "/two", 64),
            Cell::new("least_time of 1,000", "/least_time", 64),
        ],
    },
    Scene {
        title: "zones, metrics and checks on, against without",
        contenders: &["tidegate+watched", "tidegate+plain"],
        base: "tidegate+plain",
        text: watched,
        cells: &[Cell::new("small, watched", "/small", 64), Cell::new("8 peers, watched", "/peers", 64)],
    },
];

const BROWSER: &[&str] = &["User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"];

/// The methods with 1,000 peers, and what their upstream says.
const METHODS: [(&str, &str); 8] = [
    ("round_robin", ""),
    ("least_conn", "least_conn;"),
    ("ip_hash", "ip_hash;"),
    ("hash", "hash $request_id;"),
    ("consistent", "hash $request_id consistent;"),
    ("random", "random;"),
    ("two", "random two least_conn;"),
    ("least_time", "least_time header;"),
];

/// Writes the files to serve and the backend's configuration; returns the backend's port.
pub(crate) fn prepare(dir: &Path) -> u16 {
    let files = dir.join("files/static");
    fs::create_dir_all(&files).expect("mkdir");
    fs::create_dir_all(dir.join("files/packed")).expect("mkdir");
    for (name, size) in [("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20), ("10m", 10 << 20)] {
        fs::write(files.join(name), vec![b'x'; size]).expect("write");
    }
    for name in ["100k", "10m"] {
        fs::copy(files.join(name), dir.join("files").join(name)).expect("copy");
    }
    fs::write(dir.join("files/packed/100k.json"), json(100 << 10)).expect("write");
    let port = free_port();
    let text = format!(
        "{}\n    server {{\n        listen {port} backlog=4096;\n        root {}/files;\n        \
         location = /small {{ return 200 \"hello, world\\n\"; }}\n    }}\n}}\n",
        head(dir, "backend"),
        dir.display()
    );
    fs::write(dir.join("backend.conf"), text).expect("write");
    port
}

/// A list of records, as an API answers it.
fn json(size: usize) -> String {
    let (mut text, mut state) = (String::from("["), 1_u64);
    while text.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (id, name, price) =
            (state >> 40, ["mountain", "river", "harbour", "tide"][state as usize >> 33 & 3], state >> 52);
        let _ = writeln!(
            text,
            "{{\"id\":{id},\"name\":\"{name} {}\",\"price\":{price}.99,\"tags\":[\"{name}\",\"new\"],\"stock\":{}}},",
            id % 97,
            id % 2 == 0
        );
    }
    text.push_str("{}]\n");
    text
}

/// What every nginx configuration here begins with.
fn head(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nworker_processes 1;\npid {dir}/{name}.pid;\nerror_log {dir}/{name}.log error;\n\
         events {{\n    worker_connections 16384;\n}}\nhttp {{\n    access_log off;\n    sendfile on;\n    tcp_nopush on;\n    \
         keepalive_requests 100000000;\n    keepalive_timeout 300s;\n    client_body_temp_path {dir}/tmp_body_{name};\n    \
         proxy_temp_path {dir}/tmp_proxy_{name};\n    proxy_http_version 1.1;\n    \
         proxy_set_header Connection \"\";\n"
    )
}

/// The proxy's configuration, the same text for tidegate and nginx.
fn proxies(dir: &Path, name: &str, port: u16, backend: u16) -> String {
    if name == "haproxy" {
        return haproxy(port, backend);
    }
    let files = format!("{}/files", dir.display());
    format!(
        "{head}
    limit_req_zone $binary_remote_addr zone=rate:1m rate=1000000r/s;
    limit_conn_zone $binary_remote_addr zone=busy:1m;
    map $http_user_agent $kind {{
        default other;
        ~*(bot|crawler|spider) bot;
        ~Chrome/(?<major>[0-9]+) chrome;
        ~Firefox/(?<minor>[0-9]+) firefox;
    }}
    map $arg_page $first {{ default 0; '' 1; 1 1; }}
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {files};
        location / {{ proxy_pass http://backend; }}
        location /static/ {{ }}
        location /packed/ {{ gzip on; gzip_types application/json text/plain application/octet-stream; }}
        location /rules/ {{
            limit_req zone=rate burst=1000 nodelay;
            limit_conn busy 10000;
            allow 10.0.0.0/8;
            allow 192.168.0.0/16;
            allow 127.0.0.1;
            deny all;
            set $page \"$kind-$first\";
            if ($kind = bot) {{ return 403; }}
            rewrite ^/rules/v1/(.*)$ /ruled/$kind/$1 last;
            rewrite ^/rules/v2/(.*)$ /$1?page=$page? break;
            proxy_pass http://backend;
        }}
        location /ruled/ {{
            limit_req zone=rate burst=1000 nodelay;
            allow 127.0.0.1;
            deny all;
            add_header X-Kind $kind-$first;
            rewrite ^/ruled/[a-z]+/(.*)$ /static/$1 break;
        }}
    }}
}}\n",
        head = head(dir, name)
    )
}

fn haproxy(port: u16, backend: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9000\ndefaults\n    mode http\n    timeout connect 5s\n    \
         timeout client 300s\n    timeout server 300s\n    timeout http-keep-alive 300s\n    http-reuse always\n    \
         option http-keep-alive\nlisten proxy\n    bind 127.0.0.1:{port} backlog 4096\n    \
         server backend 127.0.0.1:{backend} pool-max-conn 1024\n"
    )
}

/// A proxy that keeps what it fetches. Below `/new/` every request has a key of its own, so that all are fetched and
/// stored. With `tcp_nopush` nginx sends the ends of cached answers late: both go without.
fn caches(dir: &Path, name: &str, port: u16, backend: u16) -> String {
    format!(
        "{head}
    proxy_cache_path {dir}/cache_{name} levels=1:2 keys_zone=kept:10m max_size=256m;
    proxy_cache_path {dir}/cache_new_{name} levels=1:2 keys_zone=new:10m max_size=64m;
    proxy_cache_valid 200 1h;
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://backend; proxy_cache kept; }}
        location /new/ {{ proxy_pass http://backend/; proxy_cache new; proxy_cache_key $request_id; }}
    }}
}}\n",
        head = head(dir, name).replace("    tcp_nopush on;\n", ""),
        dir = dir.display()
    )
}

/// One upstream of 1,000 peers for each method. All are the same backend under different addresses.
fn many_peers(dir: &Path, name: &str, port: u16, backend: u16) -> String {
    let mut servers = String::new();
    for n in 0..1000 {
        let _ = write!(servers, "server 127.1.{}.{}:{backend}; ", n / 250, n % 250 + 1);
    }
    let mut text = head(dir, name);
    let kept = "keepalive 2048; keepalive_requests 100000000;";
    let _ = writeln!(text, "    upstream one {{ server 127.0.0.1:{backend}; {kept} }}");
    for (method, line) in METHODS.iter().filter(|(method, _)| knows(name, method)) {
        let _ = writeln!(text, "    upstream {method} {{ {line} {servers} {kept} }}");
    }
    let _ = writeln!(text, "    server {{\n        listen 127.0.0.1:{port} backlog=4096;");
    let _ = writeln!(text, "        location = /one {{ proxy_pass http://one/small; }}");
    for (method, _) in METHODS.iter().filter(|(method, _)| knows(name, method)) {
        let _ = writeln!(text, "        location = /{method} {{ proxy_pass http://{method}/small; }}");
    }
    text.push_str("    }\n}\n");
    text
}

/// Whether a program has what a cell asks for.
pub(crate) fn can(name: &str, cell: &Cell) -> bool {
    !(cell.local && name == "haproxy") && knows(name, cell.path.trim_start_matches('/'))
}

/// Whether a program knows a method. `least_time` came with nginx 1.31, and Debian's is older.
fn knows(name: &str, method: &str) -> bool {
    name != "nginx" || method != "least_time" || std::env::var_os("TIDEGATE_BENCH_NGINX").is_some()
}

/// The same proxy with everything that looks on, and with nothing.
fn watched(dir: &Path, name: &str, port: u16, backend: u16) -> String {
    let on = name.ends_with("watched");
    let say = |text: &'static str| if on { text } else { "" };
    let servers: String = (1..=8).map(|n| format!("server 127.0.0.{n}:{backend}; ")).collect();
    format!(
        "{head}
    upstream backend {{ {zone_one} server 127.0.0.1:{backend}; keepalive 1024; keepalive_requests 100000000; }}
    upstream peers {{ {zone_peers} {servers} keepalive 1024; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {status_zone}
        location / {{ {location_zone} proxy_pass http://backend; {check} }}
        location = /peers {{ {location_zone} proxy_pass http://peers/small; {check} }}
        {looks}
    }}
}}\n",
        head = head(dir, name),
        zone_one = say("zone backend 64k;"),
        zone_peers = say("zone peers 64k;"),
        status_zone = say("status_zone site;"),
        location_zone = say("status_zone place;"),
        check = say("health_check interval=1s uri=/small;"),
        looks = say("location = /metrics { metrics; } location /api { api; }"),
    )
}
