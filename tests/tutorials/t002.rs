//! Tutorial 002: Node.js workers that compute Fibonacci numbers, and a master that gives the next job to the least busy one.
//! The proxy takes the master's place; the nodes stay as they are.
//!
//! Nodes of the same protocol stand in for them. `TIDEGATE_TUTORIAL_002` names a folder with the tutorial's own files and
//! their modules (`npm install`): then everything is done a second time, with these.

use super::expect_lines;
use crate::support::client::{self, Answer, Request};
use crate::support::component::need;
use crate::support::container::{Build, Container};
use crate::support::program::{Program, run};
use crate::support::{project, replaced, wait};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Where the master is for every node; the port of all nodes.
const MASTER: &str = "172.18.0.22:3000";
const PORT: u16 = 3004;

/// Whose nodes and master they are.
enum Apps {
    Own,
    /// The tutorial's, in this folder.
    Original(tempfile::TempDir),
}

impl Apps {
    /// All that are there.
    fn all() -> Vec<Self> {
        let original = std::env::var_os("TIDEGATE_TUTORIAL_002").filter(|_| need(&["node"])).map(|folder| {
            // The container sees only some folders of the machine; cargo's target folder is among them.
            let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            let mut command = Command::new("cp");
            command.arg("-r").arg(PathBuf::from(folder).join(".")).arg(copy.path());
            run(command).succeeded();
            Self::Original(copy)
        });
        [Self::Own].into_iter().chain(original).collect()
    }

    /// The words that start `nodo` or `master`, from the folder they have to be started in.
    fn words(&self, name: &str) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        match self {
            Self::Own => ["python3".to_owned(), text(project(&format!("fixtures/apps/nodo/{name}.py")))].into(),
            Self::Original(folder) => {
                let place = ["env".to_owned(), "-C".to_owned(), text(folder.path().to_owned())];
                [place.as_slice(), &["node".to_owned(), format!("{name}.js")]].concat()
            }
        }
    }
}

/// The reader's Docker network, the proxy at the master's address, and nodes with addresses of their own.
struct Cluster {
    apps: Apps,
    /// Of each node, itself and what says how busy it is.
    nodes: BTreeMap<char, [Program; 2]>,
    container: Container,
}

/// The cluster with everybody's nodes, one after the other.
fn clusters() -> impl Iterator<Item = Cluster> {
    let possible = !replaced() && need(&["python3"]);
    let apps = if possible { Apps::all() } else { Vec::new() };
    apps.into_iter().map_while(Cluster::new)
}

impl Cluster {
    fn new(apps: Apps) -> Option<Self> {
        let container = Container::new(Build::Docker)?;
        container.ip("link add bridge type bridge");
        container.ip("addr add 172.18.0.22/16 dev bridge");
        container.ip("link set bridge up");
        container.copy("nginx-examples/002-node-load-aware/master.conf", "/etc/nginx/nginx.conf");
        Some(Self { apps, nodes: BTreeMap::new(), container })
    }

    /// A machine of the network.
    fn machine(&self, name: char) {
        let address = address(name);
        for words in [
            format!("netns add {name}"),
            format!("link add to_{name} type veth peer name eth0 netns {name}"),
            format!("link set to_{name} master bridge"),
            format!("link set to_{name} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} addr add {address}/16 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            self.container.ip(&words);
        }
    }

    fn start_on(&self, machine: char, words: &[String]) -> Program {
        let machine = machine.to_string();
        let port = format!("CLUSTER_CONTAINER_PORT={PORT}");
        let place = ["ip", "netns", "exec", &machine, "env", &port];
        let words: Vec<&str> = place.into_iter().chain(words.iter().map(String::as_str)).collect();
        self.container.start(&format!("{} at {machine}", words[words.len() - 1]), &words).deaf()
    }

    /// `node nodo.js` on a machine of its own, where the processor is so busy.
    fn start(&mut self, name: char, usage: f64) {
        self.machine(name);
        self.uses(name, usage);
        let fetcher = project("fixtures/apps/nodo/status_fetcher.py").to_str().expect("a path in UTF-8").to_owned();
        let fetcher = self.start_on(name, &["python3".to_owned(), fetcher, usage_file(name)]);
        let asks = ["ip", "netns", "exec", &name.to_string(), "python3", "-c", CONNECT];
        wait::until("its usage is told", wait::SOON, || self.container.run(&asks).code == Some(0));
        let node = self.start_on(name, &self.apps.words("nodo"));
        self.nodes.insert(name, [node, fetcher]);
        self.container.wait_for(&format!("{}:{PORT}", address(name)));
    }

    fn uses(&self, name: char, usage: f64) {
        self.container.write(&usage_file(name), usage.to_string());
    }

    fn kill(&mut self, name: char) {
        let [node, _] = self.nodes.get_mut(&name).expect("a node");
        node.kill();
    }

    /// `nginx -g 'daemon off;'`
    fn start_proxy(&self) -> Program {
        let proxy = self.container.start_nginx(&["-g", "daemon off;"]);
        self.container.wait_for(MASTER);
        proxy
    }

    /// What the API says of the group, peer by peer.
    fn peers() -> Vec<serde_json::Value> {
        let group = client::get(3000, "/api/9/http/upstreams/nodos").expect(200).json();
        group["peers"].as_array().expect("peers").clone()
    }

    fn servers() -> Vec<String> {
        Self::peers().iter().map(|peer| peer["server"].as_str().expect("a name").to_owned()).collect()
    }

    #[track_caller]
    fn wait_for_servers(names: &str) {
        let expected: Vec<_> = names.chars().map(server).collect();
        wait::until(&format!("{names} are the nodes"), wait::SOON, || {
            let mut servers = Self::servers();
            servers.sort();
            servers == expected
        });
    }

    /// Waits until a node's last report is this.
    #[track_caller]
    fn wait_for_load(name: char, load: f64) {
        wait::until(&format!("{name} has reported {load}"), wait::SOON, || {
            let peers = Self::peers();
            peers.iter().any(|peer| peer["server"] == server(name) && peer["load"].as_f64() == Some(load))
        });
    }
}

const CONNECT: &str = "import socket; socket.create_connection(('127.0.0.1', 3002))";

/// A is 172.18.0.101, B is 172.18.0.102, …
fn address(name: char) -> String {
    format!("172.18.0.{}", 101 + u32::from(name) - u32::from('A'))
}

fn server(name: char) -> String {
    format!("{}:{PORT}", address(name))
}

fn usage_file(name: char) -> String {
    format!("/tmp/usage_{name}")
}

/// `curl -X POST -H 'Content-Type: application/json' -d '{"number":10}' …/assign-fib-sequence`
#[track_caller]
fn job() {
    let answer = client::ask(MASTER, &Request::post("/assign-fib-sequence", "application/json", "{\"number\":\"10\"}"));
    assert_eq!(answer.expect(200).json(), serde_json::json!({"status": "running", "success": true}));
}

/// Waits until results of so many jobs have come from a node.
#[track_caller]
fn expect_results(proxy: &Program, name: char, count: usize) {
    let from = format!("result from node {}: ", address(name));
    expect_lines(count, || proxy.stdout(), &[&from, "\\x22number\\x22:", "55", "\\x22success\\x22:"]);
}

#[test]
fn nodes_register_and_the_least_busy_one_gets_the_job() {
    for mut cluster in clusters() {
        let proxy = cluster.start_proxy();
        assert_eq!(client::get(MASTER, "/").expect(200).text(), "Hello World!");
        for (name, usage) in [('A', 90.0), ('B', 5.0), ('C', 50.25)] {
            cluster.start(name, usage);
            Cluster::wait_for_load(name, usage);
            expect_lines(1, || proxy.stderr(), &["[notice]", &format!("node {} ", server(name)), "added"]);
            expect_lines(1, || proxy.stderr(), &["[notice]", &server(name), &format!("reports load {usage}")]);
        }
        Cluster::wait_for_servers("ABC");
        job();
        job();
        expect_results(&proxy, 'B', 2);
        cluster.uses('B', 95.0);
        Cluster::wait_for_load('B', 95.0);
        job();
        expect_results(&proxy, 'C', 1);
        cluster.start('D', 0.0);
        Cluster::wait_for_servers("ABCD");
        job();
        expect_results(&proxy, 'D', 1);
        // Who starts once more is there already.
        cluster.kill('A');
        let again = cluster.start_on('A', &cluster.apps.words("nodo"));
        cluster.nodes.get_mut(&'A').expect("a node")[0] = again;
        cluster.container.wait_for(&server('A'));
        Cluster::wait_for_servers("ABCD");
    }
}

#[test]
fn a_killed_node_is_dropped_and_no_job_fails_while_another_lives() {
    for mut cluster in clusters() {
        let proxy = cluster.start_proxy();
        client::ask(MASTER, &Request::post("/assign-fib-sequence", "application/json", "{}")).expect(502);
        cluster.start('A', 90.0);
        cluster.start('B', 5.0);
        Cluster::wait_for_load('A', 90.0);
        Cluster::wait_for_load('B', 5.0);
        cluster.kill('B');
        job();
        wait::until("B is dropped", wait::SOON, || {
            job();
            Cluster::servers() == [server('A')]
        });
        expect_lines(1, || proxy.stderr(), &["[notice]", &server('B'), "dropped: ", "connect() failed (111"]);
        cluster.kill('A');
        Cluster::wait_for_servers("");
        client::ask(MASTER, &Request::post("/assign-fib-sequence", "application/json", "{\"number\":1}")).expect(502);
        assert_eq!(client::get(MASTER, "/").expect(200).text(), "Hello World!");
        // Others may come.
        cluster.start('C', 1.0);
        Cluster::wait_for_servers("C");
        job();
        expect_results(&proxy, 'C', 1);
    }
}

#[test]
fn the_api_sees_and_changes_the_same_nodes() {
    for mut cluster in clusters() {
        let proxy = cluster.start_proxy();
        cluster.start('A', 10.0);
        Cluster::wait_for_load('A', 10.0);
        cluster.start('B', 20.0);
        Cluster::wait_for_load('B', 20.0);
        let write = |method: &str, id: &str, body: &str| -> Answer {
            let request = Request::post(&format!("/api/9/http/upstreams/nodos/servers/{id}"), "application/json", body);
            client::ask(3000, &request.with_method(method))
        };
        let id = |name: char| -> String {
            let peers = Cluster::peers();
            peers.iter().find(|peer| peer["server"] == server(name)).expect("a peer")["id"].to_string()
        };
        assert_eq!(Cluster::peers().iter().map(|peer| peer["state"].clone()).collect::<Vec<_>>(), ["up", "up"]);
        write("PATCH", &id('A'), "{\"drain\":true}").expect(200);
        job();
        expect_results(&proxy, 'B', 1);
        write("PATCH", &id('A'), "{\"drain\":false}").expect(200);
        write("DELETE", &id('B'), "").expect(200);
        job();
        expect_results(&proxy, 'A', 1);
        // One that did not register itself is polled and asked as well.
        write("POST", "", &format!("{{\"server\":\"{}\"}}", server('B'))).expect(201);
        Cluster::wait_for_load('B', 20.0);
        cluster.uses('B', 1.0);
        Cluster::wait_for_load('B', 1.0);
        job();
        expect_results(&proxy, 'B', 2);
        assert_eq!(write("POST", "", &format!("{{\"server\":\"{}\"}}", server('B'))).status, 409);
        // Only from here.
        assert_eq!(client::get(MASTER, "/api/9/http/upstreams/nodos").status, 403);
    }
}

#[test]
fn registrations_outlive_a_reload() {
    for mut cluster in clusters() {
        let proxy = cluster.start_proxy();
        cluster.start('A', 30.0);
        cluster.start('B', 20.0);
        Cluster::wait_for_load('A', 30.0);
        Cluster::wait_for_load('B', 20.0);
        let before = Cluster::peers();
        cluster.container.nginx(&["-s", "reload"]).succeeded();
        expect_lines(2, || proxy.stderr(), &["[notice]", "reports load 20"]);
        job();
        Cluster::wait_for_servers("AB");
        let ids = |peers: &[serde_json::Value]| peers.iter().map(|peer| peer["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&Cluster::peers()), ids(&before));
        // They are polled still.
        cluster.uses('A', 1.0);
        Cluster::wait_for_load('A', 1.0);
        job();
        expect_results(&proxy, 'B', 1);
        expect_results(&proxy, 'A', 1);
        cluster.kill('B');
        Cluster::wait_for_servers("A");
    }
}

#[test]
fn the_master_itself_works_behind_the_proxy() {
    for mut cluster in clusters() {
        cluster.container.write(
            "/etc/nginx/nginx.conf",
            format!(
                "events {{}}\nhttp {{ server {{ listen 3000; location / {{ proxy_pass http://{}:3000; \
                 location = /receive-status {{ proxy_read_timeout 1s; proxy_pass http://{0}:3000; }} }} }} }}\n",
                address('M')
            ),
        );
        let proxy = cluster.start_proxy();
        cluster.machine('M');
        let master = cluster.start_on('M', &cluster.apps.words("master"));
        cluster.container.wait_for(&format!("{}:3000", address('M')));
        assert_eq!(client::get(MASTER, "/").expect(200).text(), "Hello World!");
        cluster.start('A', 42.5);
        // It was told where the node is, through the proxy, and asks it.
        wait::until("the master asks", wait::SOON, || master.stdout().contains("42.5"));
        let result = format!("{{\"number\":55,\"success\":true,\"ip\":\"{}\"}}", address('A'));
        let request = Request::post("/receive-status", "application/json", result);
        client::ask(MASTER, &request.with_method("PUT")).expect(504);
        expect_lines(1, || master.stdout(), &[&format!("result from node {}: 55", address('A'))]);
        drop(proxy);
    }
}
