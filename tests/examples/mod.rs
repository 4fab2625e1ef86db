//! What lies in `nginx-examples/` runs as it is.

mod microcaching;

use crate::support::client::{self, Answer};
use crate::support::container::{Build, Container};
use crate::support::program::Program;
use crate::support::{binary, component, project, replaced, wait};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

/// Every file, and the test that runs it; a file for Docker Compose is not ours to run.
const RUN_BY: [(&str, &str); 23] = [
    ("000-tornado/nginx.conf.default", "tutorials::t000"),
    ("000-tornado/python.conf", "tutorials::t000"),
    ("001-debian-http-server/site-block.conf", "tutorials::t001"),
    ("001-debian-http-server/sites-available-default", "tutorials::t001"),
    ("002-node-load-aware/master.conf", "tutorials::t002"),
    ("003-docker-flask/docker-compose.yml", "nobody"),
    ("003-docker-flask/exercise-mult/docker-compose.yml", "nobody"),
    ("003-docker-flask/exercise-mult/nginx.conf", "tutorials::t003"),
    ("003-docker-flask/nginx.conf", "tutorials::t003"),
    ("004-django-uwsgi/better/docker-compose.yml", "nobody"),
    ("004-django-uwsgi/better/my_nginx.conf", "tutorials::t004"),
    ("004-django-uwsgi/better/nginx.conf", "tutorials::t004"),
    ("004-django-uwsgi/better/nginx_origin.conf", "tutorials::t004"),
    ("004-django-uwsgi/docker-compose.yml", "nobody"),
    ("004-django-uwsgi/my_nginx.conf", "tutorials::t004"),
    ("004-django-uwsgi/nginx.conf", "tutorials::t004"),
    ("dashboard.conf", "dashboard"),
    ("drupal/site.conf", "php"),
    ("laravel/site.conf", "php"),
    ("microcaching.conf", "examples::microcaching"),
    ("nextcloud/site.conf", "php"),
    ("quickstart.conf", "examples"),
    ("wordpress/site.conf", "php"),
];

#[test]
fn every_example_is_listed_with_the_test_that_runs_it() {
    let mut found = Vec::new();
    collect(&project("nginx-examples"), "", &mut found);
    found.sort();
    assert_eq!(found, RUN_BY.map(|(file, _)| file));
}

fn collect(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else if !name.ends_with("README.md") {
            found.push(name);
        }
    }
}

/// `tidegate -p . -c nginx-examples/quickstart.conf` in the project's folder, as a visitor who is not root.
#[test]
fn the_quickstart_balances_over_its_own_three_servers() {
    let arguments = ["-p", ".", "-c", "nginx-examples/quickstart.conf"];
    // A nginx in tidegate's place wants root, for its folders.
    let more: &[&str] = if replaced() { &["-e", "stderr"] } else { &[] };
    let home = project("");
    let user: &[&str] = if replaced() { &[] } else { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] };
    let container = if rustix::process::getuid().is_root() { Container::new(Build::Docker) } else { None };
    if let Some(container) = container {
        let place = ["env", "-C", home.to_str().unwrap()];
        let words = [&place, user, &["/usr/sbin/nginx"], &arguments, more].concat();
        watch(container.start("the quickstart", &words));
    } else if [8080, 18081, 18082, 18083].iter().any(|port| wait::connectable(([127, 0, 0, 1], *port).into())) {
        component::missing("ports 8080 and 18081 to 18083");
    } else {
        let mut command = Command::new(binary());
        command.args(arguments).args(more).current_dir(home);
        watch(Program::start("the quickstart", command));
    }
}

fn watch(mut quickstart: Program) {
    wait::until("port 8080 is served", wait::SOON, || wait::connectable(([127, 0, 0, 1], 8080).into()));
    let asked: Vec<Answer> = (0..6).map(|_| client::get(8080, "/").expect(200)).collect();
    let texts: String = asked.iter().map(Answer::text).collect();
    assert_eq!(texts, "Server 1\nServer 2\nServer 3\n".repeat(2));
    assert_eq!(asked[0].header("Content-Type"), Some("text/plain"));
    let line = "127.0.0.1 \"GET / HTTP/1.1\" 200 from 127.0.0.1:18083\n";
    wait::until("requests are shown", wait::SOON, || quickstart.stdout().matches(line).count() == 2);
    quickstart.signal(Signal::INT);
    assert!(quickstart.wait(wait::SOON).success());
}
