//! Tutorial 004: Django in two uWSGI containers, reached over unix sockets in shared volumes, weights 4 and 6; static
//! files by `alias`.

mod balance;
mod pages;
mod statics;

use super::{ask_times, expect_lines, python};
use crate::support::client::Answer;
use crate::support::component::{need, venv};
use crate::support::container::{Build, Container};
use crate::support::program::Program;
use crate::support::wait;

/// The reader's containers in one: the volumes, the image's tree with the tutorial's two files.
struct Compose {
    container: Container,
    venv: String,
}

impl Compose {
    /// `docker-compose up`, up to where the programs start. The folder is the tutorial's or that of its branch.
    fn new(folder: &str) -> Option<Self> {
        if !need(&["uwsgi", "python3"]) {
            return None;
        }
        let venv = venv()?;
        let container = Container::new(Build::Docker)?;
        for volume in ["/docker_api", "/docker_api2"] {
            container.copy_all("fixtures/apps/django", volume);
        }
        let folder = format!("nginx-examples/004-django-uwsgi{folder}");
        // The Dockerfile's steps. The volume ./log hides the image's symlinks to the container's output.
        container.copy(&format!("{folder}/nginx.conf"), "/etc/nginx/nginx.conf");
        container.copy(&format!("{folder}/my_nginx.conf"), "/etc/nginx/sites-available/my_nginx.conf");
        container.link("/etc/nginx/sites-available/my_nginx.conf", "/etc/nginx/sites-enabled/my_nginx.conf");
        let compose = Self { container, venv: venv.to_str().expect("a path in UTF-8").to_owned() };
        let python = python(venv);
        let collect = ["env", "-C", "/docker_api", &python, "-B", "manage.py", "collectstatic", "--noinput"];
        compose.container.run(&collect).succeeded();
        Some(compose)
    }

    /// `uwsgi --ini uwsgi.ini` in the volume `/docker_api`.
    fn start_api(&self) -> Program {
        self.start_uwsgi("/docker_api", "uwsgi.ini", "/docker_api/app.sock")
    }

    /// `uwsgi --ini uwsgi2.ini` in the volume `/docker_api2`.
    fn start_api2(&self) -> Program {
        self.start_uwsgi("/docker_api2", "uwsgi2.ini", "/docker_api2/app2.sock")
    }

    fn start_uwsgi(&self, folder: &str, ini: &str, socket: &str) -> Program {
        let uwsgi = self.start_uwsgi_with(&[], folder, ini);
        wait::until(&format!("{socket} is served"), wait::SOON, || self.container.listens_at(socket));
        uwsgi
    }

    fn start_uwsgi_with(&self, variables: &[&str], folder: &str, ini: &str) -> Program {
        let place = [&["env", "-C", folder], variables].concat();
        let uwsgi = ["uwsgi", "--plugin", "python3", "--home", &self.venv, "--ini", ini];
        self.container.start_as_init(&format!("uWSGI in {folder}"), &[place.as_slice(), &uwsgi].concat())
    }

    /// `docker stop`: all of it is killed in the end, and the socket's file stays.
    fn stop(&self, mut uwsgi: Program, socket: &str) {
        uwsgi.kill();
        wait::until("nobody listens any more", wait::SOON, || !self.container.listens_at(socket));
        assert!(self.container.exists(socket));
    }

    /// `CMD nginx -g 'daemon off;'`
    fn start_nginx(&self) -> Program {
        let nginx = self.container.start_as_init("nginx", &self.container.nginx_words(&["-g", "daemon off;"]));
        self.container.wait_for_port(80);
        nginx
    }

    fn error_log(&self) -> String {
        self.container.read("/var/log/nginx/error.log")
    }
}

/// 1 for api, 2 for api2.
fn instance(answer: &Answer) -> String {
    match answer.header("X-Instance") {
        Some("docker_api") => "1",
        Some("docker_api2") => "2",
        other => panic!("{other:?} answered: {answer:?}"),
    }
    .to_owned()
}
