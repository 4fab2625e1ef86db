//! A log file that the configuration names: known when it is read, open when the generation serves.

use crate::process::LogFile;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// A place for an open log file. Lines written before it is open are lost; nothing serves before.
#[derive(Debug)]
pub struct LogSlot {
    path: PathBuf,
    file: OnceLock<Arc<LogFile>>,
}

impl LogSlot {
    pub fn new(path: &[u8]) -> Self {
        Self { path: crate::config::scope::bytes_to_path(path).to_path_buf(), file: OnceLock::new() }
    }

    /// The path as it was completed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its file.
    pub fn attach(&self, file: Arc<LogFile>) {
        // A slot that has its file keeps it: reopening replaces the file inside.
        let _ = self.file.set(file);
    }

    /// Appends whole lines with one call.
    pub fn write(&self, lines: &[u8]) {
        if let Some(file) = self.file.get() {
            // A log that cannot be written has nobody left to tell.
            let _ = file.write(lines);
        }
    }
}
