//! The same files and the same bytes through Debian's nginx and through tidegate: what comes back must be equal.
//!
//! `fixtures/versus/NAME.conf` is the body of an `http` block, `NAME.requests` what is sent to it (see [`cases`]).
//! `fixtures/faults/NAME.conf` are whole files that `-t` must refuse, or accept with a warning, in nginx's words.
//!
//! The oracle is `/usr/sbin/nginx`, or what `TIDEGATE_TEST_NGINX` names. Without it the comparisons are skipped with a
//! notice, except where `CI` is set: there its absence is a failure. `TIDEGATE_TEST_BINARY` puts another program in
//! tidegate's place; nginx against nginx shows that the harness itself sees no difference where there is none.

pub(crate) mod backend;
mod cases;
mod compare;
mod faults;
mod malformed;
mod pairs;
mod picks;
pub(crate) mod support;
mod wire;
