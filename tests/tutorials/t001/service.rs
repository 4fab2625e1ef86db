//! The service: what Debian's package ships to start, reload, rotate, upgrade and stop a `/usr/sbin/nginx` does it to this
//! one. The unit's own lines are run, and the init script's own text; systemd itself is not needed.

use super::super::lines_with;
use super::{Debian, ENABLED};
use crate::support::client::{self, Connection};
use crate::support::component::{self, find, need};
use crate::support::program::Ran;
use crate::support::{measure, wait};

const UNIT: &str = "/lib/systemd/system/nginx.service";
const SCRIPT: &str = "/etc/init.d/nginx";
const LOG: &str = "/var/log/nginx/access.log";

/// Debian's machine where the package has put this file.
fn debian_with(file: &str) -> Option<Debian> {
    if !need(&["start-stop-daemon"]) || find(file).is_none() && !component::missing(&format!("nginx-common's {file}")) {
        return None;
    }
    Debian::new()
}

/// A site that says one word.
fn say(debian: &Debian, word: &str) {
    debian.0.write(ENABLED, format!("server {{ listen 80; location / {{ return 200 {word}; }} }}\n"));
}

#[track_caller]
fn expect(word: &str) {
    wait::until(&format!("it says {word}"), wait::SOON, || client::get(80, "/").expect(200).text() == word);
}

#[test]
fn the_units_own_lines_start_reload_and_stop_it() {
    let Some(debian) = debian_with(UNIT) else { return };
    let unit = debian.0.read(UNIT);
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key} in {UNIT}")).to_owned()
    };
    // A `-` says that the outcome does not matter. In what is left, quotes mean to systemd what they mean to a shell.
    let run = |key: &str| -> Ran { debian.0.run(&["sh", "-c", value(key).trim_start_matches('-')]) };
    assert_eq!((value("Type").as_str(), value("PIDFile").as_str()), ("forking", "/run/nginx.pid"));

    say(&debian, "one");
    run("ExecStartPre").succeeded();
    run("ExecStart").succeeded();
    // As soon as the command returns, systemd looks for the pid file, and for a process of that number.
    let master = debian.0.master().expect("a pid");
    assert!(measure::command_line(master).starts_with("nginx: master process /usr/sbin/nginx -g daemon on;"));
    debian.0.wait_for_port(80);
    expect("one");

    say(&debian, "two");
    run("ExecReload").succeeded();
    expect("two");
    assert_eq!(debian.0.master(), Some(master));

    debian.0.write(ENABLED, "server { lisen 80; }\n");
    for key in ["ExecStartPre", "ExecReload"] {
        let ran = run(key);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let fault = format!("unknown directive \"lisen\" in {ENABLED}:1");
        assert_eq!(lines_with(&ran.stderr, &["[emerg]", &fault]).len(), 1, "{ran:?}");
    }
    assert_eq!((client::get(80, "/").expect(200).text().as_str(), debian.0.master()), ("two", Some(master)));

    let mut kept = Connection::open(80);
    kept.get("/").expect(200);
    run("ExecStop").silently();
    assert!(!debian.0.exists("/run/nginx.pid") && !debian.0.listens(80) && measure::started(master).is_none());
    assert!(kept.closes_within(wait::SOON));
    assert_eq!(run("ExecStop").code, Some(1), "there is nothing to stop");
    // And up again, as `systemctl restart` does.
    say(&debian, "three");
    run("ExecStartPre").succeeded();
    run("ExecStart").succeeded();
    debian.0.wait_for_port(80);
    expect("three");
}

#[test]
fn the_service_script_starts_reloads_rotates_upgrades_and_stops_it() {
    let Some(debian) = debian_with(SCRIPT) else { return };
    let service = |word: &str| debian.0.run(&["sh", SCRIPT, word]);
    say(&debian, "one");
    assert_ne!(service("status").code, Some(0));
    service("configtest").succeeded();
    service("start").succeeded();
    debian.0.wait_for_port(80);
    expect("one");
    let first = debian.0.master().expect("a pid");
    service("status").succeeded();
    // A second start finds it running.
    service("start").succeeded();
    assert_eq!(debian.0.master(), Some(first));

    for (order, word) in [("reload", "two"), ("force-reload", "three")] {
        say(&debian, word);
        service(order).succeeded();
        expect(word);
    }
    debian.0.write(ENABLED, "server { lisen 80; }\n");
    for order in ["configtest", "reload", "restart"] {
        let ran = service(order);
        assert!(ran.stdout.contains("failed"), "{order}: {ran:?}");
        expect("three");
    }
    assert_eq!(debian.0.master(), Some(first));

    say(&debian, "four");
    wait::until("requests are logged", wait::SOON, || debian.0.read(LOG).contains("GET / "));
    debian.0.run(&["mv", LOG, "/var/log/nginx/access.log.1"]).silently();
    service("rotate").succeeded();
    wait::until("the new log is written to", wait::SOON, || {
        client::get(80, "/after").expect(200);
        debian.0.read(LOG).contains("GET /after ")
    });

    service("restart").succeeded();
    debian.0.wait_for_port(80);
    expect("four");
    let second = debian.0.master().expect("a pid");
    assert_ne!(second, first);

    say(&debian, "upgraded");
    service("upgrade").succeeded();
    expect("upgraded");
    wait::until("the old one has gone", wait::SOON, || measure::started(second).is_none());
    assert!(!debian.0.exists("/run/nginx.pid.oldbin"));
    let third = debian.0.master().expect("a pid");
    assert_ne!(third, second);
    service("status").succeeded();

    service("stop").succeeded();
    assert!(!debian.0.listens(80) && !debian.0.exists("/run/nginx.pid") && measure::started(third).is_none());
    assert_ne!(service("status").code, Some(0));
}
