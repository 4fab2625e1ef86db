//! `--lint`: what a configuration says that may not be meant.

use crate::support::program::{Ran, run};
use crate::support::scratch::Scratch;
use crate::support::{binary, replaced};
use std::process::Command;

/// What is told of what stands in `http`.
fn lint(http: &str, pictures: &str) -> Ran {
    let folder = Scratch::new();
    folder.write("nginx.conf", format!("error_log stderr;\npid nginx.pid;\nevents {{}}\nhttp {{\n{http}\n}}\n"));
    let mut command = Command::new(binary());
    command.args(["--lint", "-e", "stderr", "-c", "nginx.conf", "-p"]).arg(folder.path());
    command.env("TIDEGATE_PICTURES", pictures);
    run(command).succeeded()
}

#[test]
fn what_may_not_be_meant_is_told_of_a_configuration_that_is_right() {
    if replaced() {
        return;
    }
    let http = "access_log off; server {\n listen 127.0.0.1:1;\n location / { proxy_pass http://$arg_to; } }";
    let told = lint(http, "never").stderr;
    let text = "\"proxy_pass\" goes wherever \"$arg_to\" says, which is for clients to choose in ";
    assert!(told.contains(text) && told.contains("nginx.conf:7\n") && told.contains(" test is successful\n"), "{told}");
    let drawn = lint(http, "always").stderr;
    for line in
        ["                         ^^^^^^^^^^^^^^", "help: let a `map` with the servers that are allowed choose"]
    {
        assert!(drawn.contains(line), "{drawn}");
    }
}

#[test]
fn nothing_is_told_of_what_is_meant() {
    if replaced() {
        return;
    }
    let http = "access_log off; map $arg_to $app { default a; b b; } upstream a { server 127.0.0.1:1; }
                server { listen 127.0.0.1:1; location / { proxy_pass http://$app; } }";
    let told = lint(http, "never").stderr;
    assert!(!told.contains("[warn]") && !told.contains("[notice]"), "{told}");
}
