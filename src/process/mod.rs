//! The life of the process: a privileged master that opens and supervises, one unprivileged worker that serves.
//!
//! ```text
//! command line ─ start ─▶ Program::read ─▶ Needs ─ files, sockets, pid ─▶ Cycle ─ daemon ─▶ master
//!                         (asks Recorder)                                                      │ bundle + descriptors
//!                                                                                              ▼ over a channel
//!                                                 Program::serve ◀─ threads ◀─ Program::read ─ worker
//! ```
//! Only this room forks, opens, binds, handles signals or holds `unsafe`. It knows no directive: what it drives is a
//! [`Program`], and what that needs opened is plain data, [`needs::Needs`].

#![allow(clippy::disallowed_methods, reason = "what others may not do is done here")]

pub mod allocator;
mod bundle;
mod channel;
mod command;
mod daemon;
mod errno;
mod files;
mod invocation;
pub mod keep;
mod line;
mod log;
mod master;
pub mod needs;
mod pid;
pub mod profile;
mod program;
pub mod reloads;
mod resolve;
mod resources;
mod signals;
mod sockets;
mod start;
mod sys;
mod syslog;
mod tcp;
mod title;
pub mod turn;
mod user;
pub mod worker;

pub use self::{
    errno::Errno,
    files::LogFile,
    invocation::{Invocation, Options, Order},
    line::Line,
    log::{Level, console},
    program::{Opened, Program, Reading, Ready, Report},
    resolve::look_up,
    resources::{Call, Facts, ReadError, Recorder, Resources},
    start::run,
    syslog::{Lost, Syslog},
    tcp::{TcpInfo, local_address, tcp_info},
};
