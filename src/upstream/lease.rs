//! A connection to an upstream while one request has it.

use super::{link::Link, pool::Key, wire::answer::AnswerBody};
use crate::http::worker::Worker;
use std::rc::Rc;

/// A connection that belongs to one request until its answer has ended. Dropped before, it is closed.
pub struct Lease {
    pub worker: Rc<Worker>,
    pub key: Key,
    pub link: Box<Link>,
    /// It may serve others afterwards.
    pub keep: bool,
}

impl Lease {
    /// Others may use it, once the rest of the answer has come.
    pub fn give_back(self, rest: Option<AnswerBody>) {
        self.worker.pool.put(&self.key, self.link, rest, self.worker.clock.instant());
    }
}
