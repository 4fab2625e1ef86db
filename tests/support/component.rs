//! The other programs a test uses: what to do when one is missing, and the Python packages of the tutorials' apps.

use super::{program, project};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Whether all these commands are installed (CONTRIBUTING.md lists their packages). If not, says so.
///
/// # Panics
/// Where `CI` is set: there everything is installed.
pub(crate) fn need(commands: &[&str]) -> bool {
    let absent: Vec<&str> = commands.iter().copied().filter(|command| find(command).is_none()).collect();
    absent.is_empty() || missing(&absent.join(", "))
}

/// Says that a test is left out because of what is missing. Always false.
///
/// # Panics
/// Where `CI` is set.
pub(crate) fn missing(what: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} needs {what}");
    // Written past the capture of test output, as nobody reads the output of a test that passes.
    let notice = format!("\n*** NOTICE: {test} IS SKIPPED: it needs {what} (see CONTRIBUTING.md)\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), notice.as_bytes());
    false
}

/// Where a command is, as the shell would look for it, and then as root's shell would.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(command))
        .find(|path| path.is_file())
}

/// The virtual environment with Tornado, Flask and Django, made on first use; nothing, said aloud, when that fails.
/// To be called before a container is entered, from where the package index cannot be reached.
pub(crate) fn venv() -> Option<&'static Path> {
    static VENV: OnceLock<Option<PathBuf>> = OnceLock::new();
    VENV.get_or_init(|| make_venv("fixtures/apps/requirements.txt", "test-venv")).as_deref()
}

/// The program that holds the API to its description, in an environment of its own; nothing, said aloud, without it.
pub(crate) fn schemathesis() -> Option<PathBuf> {
    static VENV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let venv = VENV.get_or_init(|| make_venv("fixtures/api/requirements.txt", "test-venv-api"));
    venv.as_ref().map(|venv| venv.join("bin/schemathesis"))
}

/// The versions are those of a file; a copy of it in the environment says that it is complete.
fn make_venv(requirements: &str, folder: &str) -> Option<PathBuf> {
    let requirements = project(requirements);
    let wanted = fs::read_to_string(&requirements).expect("requirements.txt");
    // The folder for temporary files is `tmp` in cargo's target folder.
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").join(folder);
    let stamp = venv.join("complete");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Some(venv);
    }
    // uWSGI's plugin is built against the system's own Python.
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| find(python).is_some());
    let Some(python) = python else {
        missing("python3");
        return None;
    };
    let mut create = Command::new(python);
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    for step in [create, install] {
        let text = format!("{step:?}");
        let ran = program::run_within(Duration::from_secs(600), step);
        if ran.code != Some(0) {
            let packages = wanted.lines().collect::<Vec<_>>().join(", ");
            missing(&format!("{packages} in {} ({text}: {}{})", venv.display(), ran.stdout, ran.stderr));
            return None;
        }
    }
    fs::write(&stamp, wanted).expect("write");
    Some(venv)
}
