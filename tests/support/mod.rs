//! What the tests stand on: the program under test, the components beside it, clients, backends, containers.
//!
//! - [`server::Server`] runs the program over one file in a fresh directory, on free ports.
//! - [`daemon::Daemon`] is the same as a daemon, found by its pid file.
//! - [`container::Container`] runs it as a tutorial's reader does: own file tree, own network, port 80.
//! - [`backend::Backend`] is an upstream server in a thread of the test, [`program::Program`] a real one.
//! - [`names::Names`] is a name server.
//! - [`client`] sends bytes and reads answers; [`wait::until`] waits for a condition, never blindly.
//! - [`component::need`] tells what else must be installed.
//!
//! Everything a test starts ends with the value that stands for it. When the test fails, what the programs wrote is
//! printed.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod component;
pub(crate) mod container;
pub(crate) mod daemon;
pub(crate) mod measure;
pub(crate) mod names;
pub(crate) mod ports;
pub(crate) mod program;
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod wait;
pub(crate) mod wrk;

mod selftest;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_TEST_BINARY")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_tidegate").map(PathBuf::from))
        .expect("TIDEGATE_TEST_BINARY or a built tidegate")
}

/// Whether another program stands in tidegate's place, so that what only tidegate does cannot be asked of it.
pub(crate) fn replaced() -> bool {
    std::env::var_os("TIDEGATE_TEST_BINARY").is_some()
}

/// Held by tests that keep the whole machine busy, and by those that a busy machine would disturb: one at a time.
pub(crate) fn machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a variable of the environment says, if it is set.
///
/// # Panics
/// When it says something else than is asked for.
pub(crate) fn setting<N: FromStr>(name: &str) -> Option<N> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
}

/// A file or folder of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What stands in error pages, in front of a version if there is one, and in the `Server` header.
pub(crate) fn signature() -> &'static str {
    if replaced() { "nginx/1.22.1" } else { "tidegate" }
}
