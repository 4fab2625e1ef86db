//! Who answers: 4 to 6, before, while and after one of them is away.

use super::{Compose, ask_times, expect_lines, instance};
use crate::support::client;
use crate::support::{replaced, wait};
use std::time::Duration;

#[test]
fn the_files_pass_the_test_without_any_socket() {
    let Some(compose) = Compose::new("") else { return };
    let said = "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n\
                nginx: configuration file /etc/nginx/nginx.conf test is successful\n";
    assert_eq!(compose.container.nginx(&["-t"]).succeeded().stderr, said);
    // Log files come to be where the volume hides the image's symlinks.
    assert!(compose.container.exists("/var/log/nginx/access.log"));
    assert!(compose.container.exists("/var/log/nginx/error.log"));
}

#[test]
fn started_before_uwsgi_it_answers_502_and_then_works() {
    let Some(compose) = Compose::new("") else { return };
    let _nginx = compose.start_nginx();
    client::get(80, "/api/").expect(502);
    for socket in ["/docker_api/app.sock", "/docker_api2/app2.sock"] {
        let failed =
            format!("connect() to unix:{socket} failed (2: No such file or directory) while connecting to upstream");
        let upstream = format!("upstream: \"uwsgi://unix:{socket}:\"");
        expect_lines(1, || compose.error_log(), &["[crit]", &failed, &upstream]);
    }
    client::get(80, "/api/").expect(502);
    expect_lines(1, || compose.error_log(), &["[error]", "no live upstreams while connecting to upstream"]);
    // Static files do not depend on them.
    client::get(80, "/static/demo/page.html").expect(200);
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    wait::until("the site works", Duration::from_secs(15), || client::get(80, "/api/").status == 200);
}

#[test]
fn of_ten_requests_four_and_six_in_this_order() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let nginx = compose.start_nginx();
    for _ in 0..10 {
        assert_eq!(ask_times(4, "/api/", instance).concat(), "2121");
        // They are not asked for static files, so these do not count.
        client::get(80, "/static/demo/page.html").expect(200);
        assert_eq!(ask_times(6, "/api/", instance).concat(), "221212");
    }
    let workers = crate::support::measure::children(super::Container::init(&nginx));
    assert!(!workers.is_empty());
    for worker in workers {
        // `user root;` is meant: the sockets are root's.
        assert_eq!(crate::support::measure::owner(worker), Some(0));
    }
    let log = || compose.container.read("/var/log/nginx/access.log");
    expect_lines(100, log, &["127.0.0.1 - - [", "] \"GET /api/ HTTP/1.1\" 200 ", " \"-\" \"-\" \"-\""]);
}

#[test]
fn one_stopped_is_left_out_and_comes_back_step_by_step() {
    let Some(compose) = Compose::new("") else { return };
    let (api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    assert_eq!(ask_times(10, "/api/", instance).concat(), "2121221212");
    compose.stop(api, "/docker_api/app.sock");
    assert_eq!(ask_times(10, "/api/", instance).concat(), "2222222222");
    let refused =
        "connect() to unix:/docker_api/app.sock failed (111: Connection refused) while connecting to upstream";
    let disabled = "upstream server temporarily disabled while connecting to upstream";
    for words in [["[error]", refused], ["[warn]", disabled]] {
        expect_lines(1, || compose.error_log(), &words);
    }
    let _api = compose.start_api();
    // It is not asked before more than ten whole seconds have gone; requests meanwhile would change the weights.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(ask_times(20, "/api/", instance).concat(), "22221212212122121221");
}

#[test]
fn over_tcp_and_by_name_it_is_the_same() {
    let Some(compose) = Compose::new("/better") else { return };
    let ran = compose.container.nginx(&["-g", "daemon off;"]);
    let line = |number: u8, at: u8| {
        let file = "/etc/nginx/sites-available/my_nginx.conf";
        format!("nginx: [emerg] host not found in upstream \"demo_api_{number}:8001\" in {file}:{at}\n")
    };
    // nginx stops at the first fault, tidegate tells them all, nginx's first.
    let text = if replaced() { line(1, 7) } else { line(1, 7) + &line(2, 8) };
    assert_eq!((ran.code, ran.stderr), (Some(1), text));

    compose.container.write("/etc/hosts", "127.0.0.2 demo_api_1\n127.0.0.3 demo_api_2\n");
    let start = |folder, address| compose.start_uwsgi_with(&[&format!("ADDRESS={address}")], folder, "uwsgi_tcp.ini");
    let (_api, _api2) = (start("/docker_api", "127.0.0.2"), start("/docker_api2", "127.0.0.3"));
    compose.container.wait_for("127.0.0.2:8001");
    compose.container.wait_for("127.0.0.3:8001");
    let _nginx = compose.start_nginx();
    assert_eq!(ask_times(20, "/api/", instance).concat(), "21212212122121221212");
}

#[test]
fn the_images_own_file_serves_the_default_page() {
    let Some(compose) = Compose::new("/better") else { return };
    compose.container.copy("nginx-examples/004-django-uwsgi/better/nginx_origin.conf", "/etc/nginx/nginx.conf");
    let _nginx = compose.start_nginx();
    assert!(client::get(80, "/").expect(200).text().contains("Welcome to nginx!"));
}
