//! One configuration in force, as the master holds it: what it was told, and what it opened (`ngx_cycle_t`).

use std::os::fd::{AsFd, BorrowedFd};

use crate::process::{
    bundle::{Bundle, Handle},
    files::{self, LogFiles},
    log::Log,
    needs::Needs,
    sockets::Listeners,
};

/// Everything a worker must be handed, now or when it is replaced.
#[derive(Debug)]
pub(crate) struct Cycle {
    pub bundle: Bundle,
    pub needs: Needs,
    pub listeners: Listeners,
    pub logs: LogFiles,
}

/// Something the configuration names could not be opened; the log says what.
#[derive(Debug, thiserror::Error)]
#[error("could not open what the configuration names")]
pub(crate) struct NotOpened;

impl Cycle {
    /// Opens what `needs` names, taking over from `previous` sockets that stay. With `test`, as `-t` does.
    /// In nginx's order: directories, logs, sockets.
    pub(crate) fn open(
        bundle: Bundle,
        needs: Needs,
        previous: &Listeners,
        test: bool,
        log: &Log,
    ) -> Result<Self, NotOpened> {
        files::create_directories(&needs, log).map_err(|_| NotOpened)?;
        let logs = files::open_logs(&needs, log).map_err(|_| NotOpened)?;
        let listeners =
            Listeners::open(&needs.listeners, needs.threads(), previous, test, log).map_err(|_| NotOpened)?;
        Ok(Self { bundle, needs, listeners, logs })
    }

    /// The message for a worker, and the descriptors beside it.
    pub(crate) fn message(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        let (mut names, mut descriptors) = self.log_descriptors();
        for bound in self.listeners.iter() {
            names.push(bound.handle());
            descriptors.push(bound.as_fd());
        }
        (self.bundle.encode(&names), descriptors)
    }

    /// The logs, named.
    pub(crate) fn log_descriptors(&self) -> (Vec<Handle>, Vec<BorrowedFd<'_>>) {
        self.logs.iter().map(|(path, file)| (Handle::Log(path.clone()), file.as_fd())).unzip()
    }
}
