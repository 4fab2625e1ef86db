//! The first process of a container: nobody else takes care of orphans, and the runtime's signals come to it.

use crate::support::client::{self, Connection};
use crate::support::container::{Build, Container};
use crate::support::program::send;
use crate::support::{measure, replaced, wait};
use rustix::process::Signal;

const CONF: &str = "error_log /var/log/nginx/error.log notice; events {} http { access_log off; server { listen 80; \
                    location / { return 200 one; } location = /pid { return 200 $pid; } } }";

#[test]
fn process_1_reaps_orphans_and_ends_by_the_runtimes_signal() {
    let Some(container) = Container::new(Build::Docker) else { return };
    container.write("/etc/nginx/nginx.conf", CONF);
    let words = container.nginx_words(&["-g", "daemon off;"]);
    let mut program = container.start_as_init("the container", &words);
    container.wait_for_port(80);
    let init = Container::init(&program);
    client::get(80, "/").expect(200);
    assert_eq!(container.read("/run/nginx.pid"), "1\n");

    // A process whose parent ends becomes a child of process 1, and stays a zombie unless that cares.
    let inside = format!("--pid=/proc/{init}/ns/pid");
    let orphan = "sh -c 'echo $$ >/run/orphan; exec sleep 0.2' >/dev/null 2>&1 </dev/null &";
    container.run(&["nsenter", &inside, "--", "sh", "-c", orphan]).succeeded();
    wait::until("the orphan has ended", wait::SOON, || {
        let log = container.read("/var/log/nginx/error.log");
        let pid = container.read("/run/orphan").trim().to_owned();
        !pid.is_empty() && log.contains(&format!("unknown process {pid} exited with code 0"))
    });
    client::get(80, "/").expect(200);

    // A killed worker is replaced in here as everywhere.
    let workers = measure::children(init);
    for worker in &workers {
        send(*worker, Signal::KILL);
    }
    wait::until("others are there", wait::SOON, || {
        let now = measure::children(init);
        !now.is_empty() && now.iter().all(|worker| !workers.contains(worker))
    });
    client::get(80, "/").expect(200);

    // `docker stop` of nginx's image.
    let mut idle = Connection::open(80);
    idle.get("/").expect(200);
    send(init, Signal::QUIT);
    assert!(idle.closes_within(wait::SOON));
    assert_eq!(program.wait(wait::SOON).code(), Some(0));
    assert!(!container.exists("/run/nginx.pid") || replaced());
}
