//! The end-to-end tests: the program itself, started as its users start it.
//!
//! The program under test is the one cargo just built; `TIDEGATE_TEST_BINARY=/usr/sbin/nginx` puts another in its place,
//! so that every expectation can be held against a real nginx first. [`support`] says what the tests stand on, and which
//! other components they use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by a panic"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "shown when a test fails")]
#![allow(clippy::disallowed_methods, reason = "the methods are those of a server; a test binds and waits as it likes")]
#![allow(dead_code, reason = "a topic that is switched off leaves helpers unused")]

mod api;
mod balancing;
mod buffering;
mod cache;
mod chaos;
mod dashboard;
mod examples;
mod fuzz_corpus;
mod health;
mod life;
mod lint;
mod load;
mod logs;
mod metrics;
mod php;
mod requests;
mod support;
mod tidy;
mod tutorials;
mod versus;
