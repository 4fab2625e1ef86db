//! What a client sent: read whole, into memory or a file, or passed on as it comes.

use super::{
    arriving::Arriving,
    body::{Body, FileBody},
    body_file::{self, BodyFile},
    heads::{Cut, Incoming},
};
use crate::{config::values::TempPath, observe::error_log::Level};
use bytes::{Bytes, BytesMut};
use std::{
    fs::File,
    future::poll_fn,
    io::Write,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What the client sent, or is going to send.
#[derive(Default)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    /// To be passed on as it comes.
    arriving: Option<Box<Arriving>>,
    /// To be written here as it is read.
    file: Option<(File, BodyFile)>,
    read: Read,
    received: u64,
    streamed: bool,
    /// Where it goes if it is too long for the memory.
    folder: Option<Box<TempPath>>,
    /// What there is to log.
    note: Option<(Level, String)>,
}

#[derive(Default)]
enum Read {
    #[default]
    Nothing,
    Memory(Bytes),
    File {
        file: Arc<File>,
        name: Option<BodyFile>,
        length: u64,
    },
}

/// Why a request's body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    #[error("client intended to send too large chunked body")]
    TooLarge,
    #[error("client timed out")]
    Timeout,
    /// Bad framing.
    #[error("client sent invalid chunked body")]
    Bad,
    #[error("client prematurely closed connection")]
    Gone,
    #[error("a temporary file could not be written")]
    Disk,
}

/// What bounds the reading of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// `client_max_body_size`; 0 is none.
    pub max: u64,
    /// `client_body_buffer_size`: more goes to a temporary file.
    pub memory: usize,
    /// `client_body_timeout`: the longest gap.
    pub gap: Duration,
}

impl From<Cut> for RequestBodyError {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Invalid => Self::Bad,
            Cut::Gone => Self::Gone,
        }
    }
}

impl RequestBody {
    pub fn new(incoming: Option<Incoming>) -> Self {
        Self { incoming, ..Self::default() }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The body, if it is in memory.
    pub fn memory(&self) -> Option<&Bytes> {
        match &self.read {
            Read::Memory(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The temporary file's name, if the body is in one that has a name.
    pub fn file_name(&self) -> Option<&[u8]> {
        match &self.read {
            Read::File { name, .. } => name.as_ref().map(BodyFile::name),
            _ => None,
        }
    }

    /// Leaves the file of the body to whoever has taken it away.
    pub fn release_file(&mut self) {
        if let Read::File { name: Some(name), .. } = &mut self.read {
            name.release();
        }
    }

    /// The length, once it was read whole.
    pub fn length(&self) -> Option<u64> {
        match &self.read {
            Read::Nothing => None,
            Read::Memory(bytes) => Some(bytes.len() as u64),
            Read::File { length, .. } => Some(*length),
        }
    }

    /// Whether the announced length is above `client_max_body_size`.
    pub fn too_large(&self, max: u64) -> bool {
        let announced = self.incoming.as_ref().and_then(Incoming::left);
        max != 0 && announced.is_some_and(|length| length > max)
    }

    /// Has the body written to a file with a name as it is read.
    pub fn read_to(&mut self, file: (File, BodyFile)) {
        self.file = Some(file);
    }

    /// Has the body written to a file in this folder if it is too long for the memory.
    pub fn spill_into(&mut self, folder: TempPath) {
        self.folder = Some(Box::new(folder));
    }

    /// Takes what there is to log about the file it was written to.
    pub fn note(&mut self) -> Option<(Level, String)> {
        self.note.take()
    }

    fn spill(&mut self) -> Result<(File, Option<BodyFile>), RequestBodyError> {
        let Some(folder) = &self.folder else {
            return tempfile::tempfile().map(|file| (file, None)).map_err(|_| RequestBodyError::Disk);
        };
        match body_file::spill(folder) {
            Ok((file, name, text)) => {
                self.note = Some((Level::Warn, text));
                Ok((file, Some(name)))
            }
            Err(text) => {
                self.note = Some((Level::Crit, text));
                Err(RequestBodyError::Disk)
            }
        }
    }

    /// Reads the body whole: into memory, or beyond the limit into a temporary file.
    ///
    /// # Errors
    /// [`RequestBodyError`] says whose fault it was.
    pub async fn read(&mut self, limits: BodyLimits) -> Result<(), RequestBodyError> {
        let Some(mut incoming) = self.incoming.take() else {
            if let Some(file) = self.file.take() {
                // It may have been read for somebody else.
                return self.put_into(file);
            }
            if matches!(self.read, Read::Nothing) {
                self.read = Read::Memory(Bytes::new());
            }
            return Ok(());
        };
        let mut first: Option<Bytes> = None;
        let mut memory = BytesMut::new();
        let (mut file, mut name) = self.file.take().map_or((None, None), |(file, name)| (Some(file), Some(name)));
        loop {
            let piece = tokio::time::timeout(limits.gap, poll_fn(|cx| incoming.poll_piece(cx))).await;
            let Some(piece) = piece.map_err(|_| RequestBodyError::Timeout)? else { break };
            let piece = piece?;
            self.received += piece.len() as u64;
            if limits.max != 0 && self.received > limits.max {
                return Err(RequestBodyError::TooLarge);
            }
            if let Some(file) = &mut file {
                file.write_all(&piece).map_err(|_| RequestBodyError::Disk)?;
            } else if first.is_none() && memory.is_empty() && piece.len() <= limits.memory {
                first = Some(piece);
            } else {
                memory.extend_from_slice(&first.take().unwrap_or_default());
                memory.extend_from_slice(&piece);
                if memory.len() > limits.memory {
                    let mut temporary;
                    (temporary, name) = self.spill()?;
                    temporary.write_all(&memory).map_err(|_| RequestBodyError::Disk)?;
                    memory = BytesMut::new();
                    file = Some(temporary);
                }
            }
        }
        self.read = match file {
            Some(file) => Read::File { file: Arc::new(file), name, length: self.received },
            None => Read::Memory(first.unwrap_or_else(|| memory.freeze())),
        };
        Ok(())
    }

    /// Writes a body that was read whole to a file with a name (`client_body_in_file_only`).
    ///
    /// # Errors
    /// [`RequestBodyError::Disk`].
    pub fn put_into(&mut self, (file, name): (File, BodyFile)) -> Result<(), RequestBodyError> {
        let length = self.length().unwrap_or(0);
        let mut pieces = self.replay();
        let mut cx = Context::from_waker(Waker::noop());
        // What was kept is there at once.
        while let Poll::Ready(Some(piece)) = pieces.poll_next(&mut cx) {
            let piece = piece.map_err(|_| RequestBodyError::Disk)?;
            (&file).write_all(&piece).map_err(|_| RequestBodyError::Disk)?;
        }
        self.read = Read::File { file: Arc::new(file), name: Some(name), length };
        Ok(())
    }

    /// Reads what has come already, to pass the rest on as it comes. A body that is whole by then is like any that was
    /// read before it is sent (`request_body_no_buffering`).
    ///
    /// # Errors
    /// [`RequestBodyError`] says whose fault it was.
    pub async fn read_early(&mut self, limits: BodyLimits) -> Result<(), RequestBodyError> {
        let Some(incoming) = self.incoming.take() else { return self.read(limits).await };
        let mut arriving = Box::new(Arriving::new(incoming, limits));
        if poll_fn(|cx| Poll::Ready(arriving.take_early(cx))).await? {
            let whole = arriving.into_joined();
            self.received = whole.len() as u64;
            self.read = Read::Memory(whole);
        } else {
            self.arriving = Some(arriving);
        }
        Ok(())
    }

    /// A body that was read whole, once more from its start, for one attempt to send it.
    pub fn replay(&self) -> Body {
        match &self.read {
            Read::Nothing => Body::Empty,
            Read::Memory(bytes) => Body::from(bytes.clone()),
            Read::File { file, length, .. } => {
                Body::File(FileBody { file: Arc::clone(file), offset: 0, left: *length })
            }
        }
    }

    /// A body that was read whole, for another request beside this one.
    pub fn share(&self) -> Self {
        let read = match &self.read {
            Read::Nothing => Read::Nothing,
            Read::Memory(bytes) => Read::Memory(bytes.clone()),
            Read::File { file, length, .. } => Read::File { file: Arc::clone(file), name: None, length: *length },
        };
        Self { read, received: self.received, ..Self::default() }
    }

    /// The body is passed on as it comes, and cannot be had twice.
    pub fn is_streaming(&self) -> bool {
        self.streamed || self.incoming.is_some() || self.arriving.is_some()
    }

    /// The body was, or is being, passed on as it comes.
    pub fn streamed(&self) -> bool {
        self.streamed
    }

    /// Takes the body to pass it on as it comes.
    pub fn take_stream(&mut self) -> Option<Box<Arriving>> {
        let arriving = self.arriving.take()?;
        self.streamed = true;
        Some(arriving)
    }

    /// Gives up what was not read, so that somebody may read it to its end behind the answer. Whether there is any.
    pub fn take_unread(&mut self) -> bool {
        self.incoming.take().is_some() | self.arriving.take().is_some()
    }
}
