//! The line between the master and its worker: framed messages with descriptors beside them, over a socket pair.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// The most descriptors one `sendmsg` carries (Linux: `SCM_MAX_FD`).
const BATCH: usize = 253;

/// No bundle is longer.
const LONGEST: u64 = 1 << 32;

/// What the master takes from a worker: a line of text. Whoever breaks into a worker gains nothing here.
const LONGEST_ANSWER: u64 = 1 << 16;

/// How long one side waits for the other to take or give the rest of a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To the worker: serve this bundle. The first message, and each reload.
    Serve = 1,
    /// To the worker: these logs were reopened.
    Reopen,
    /// To the worker: finish what is under way, then end.
    Quit,
    /// To the worker: end now.
    Terminate,
    /// To the worker: there was to be another bundle, and why there is none.
    Refused,
    /// To the master: the bundle serves.
    Serving,
    /// To the master: it does not, and why.
    Fault,
    /// To the master: somebody asked the worker to reopen its logs.
    PleaseReopen,
    /// To the master: a piece of what is to be in a file.
    Keep,
    /// To the worker: it was taken.
    Kept,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::{Fault, Keep, Kept, PleaseReopen, Quit, Refused, Reopen, Serve, Serving, Terminate};
        let all = [Serve, Reopen, Quit, Terminate, Refused, Serving, Fault, PleaseReopen, Keep, Kept];
        all.into_iter().find(|&kind| kind as u32 == number)
    }
}

/// One message as it arrived.
#[derive(Debug)]
pub(super) struct Message {
    pub kind: Kind,
    pub body: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// One end of the line.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// The longest message to take, in bytes.
    longest: u64,
}

impl Channel {
    /// The master's end and the worker's; they close on `exec`.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::patient(ours, LONGEST_ANSWER)?, Self::patient(theirs, LONGEST)?))
    }

    /// The worker's end, inherited over `exec`.
    pub(super) fn inherited(descriptor: OwnedFd) -> io::Result<Self> {
        Self::patient(UnixStream::from(descriptor), LONGEST)
    }

    fn patient(stream: UnixStream, longest: u64) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, longest })
    }

    /// Sends one message. The order on the line: head, descriptors in batches of one byte each, body.
    pub(super) fn send(&self, kind: Kind, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut head = [0; 16];
        head[..4].copy_from_slice(&(kind as u32).to_le_bytes());
        head[4..8].copy_from_slice(&u32::try_from(descriptors.len()).map_err(io::Error::other)?.to_le_bytes());
        head[8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        (&self.stream).write_all(&head)?;
        for batch in descriptors.chunks(BATCH) {
            self.send_batch(batch)?;
        }
        (&self.stream).write_all(body)
    }

    fn send_batch(&self, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::retry_on_intr(|| sendmsg(&self.stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty()))?;
        Ok(())
    }

    /// Waits for one message; `None` when the other side is gone.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let mut head = [0; 16];
        let mut filled = 0;
        while filled < head.len() {
            match (&self.stream).read(&mut head[filled..]) {
                Ok(0) => return Ok(None),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let kind = Kind::from_number(number(0)).ok_or_else(malformed)?;
        let count = number(4) as usize;
        let length = u64::from(number(8)) | u64::from(number(12)) << 32;
        // Descriptors go to workers only.
        if length > self.longest || (count > 0 && self.longest < LONGEST) {
            return Err(malformed());
        }
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            let batch = self.receive_batch()?;
            if batch.is_empty() {
                return Err(malformed());
            }
            descriptors.extend(batch);
        }
        let mut body = Vec::new();
        (&self.stream).take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Ok(None);
        }
        Ok(Some(Message { kind, body, descriptors }))
    }

    fn receive_batch(&self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = RecvFlags::empty();
        rustix::io::retry_on_intr(|| recvmsg(&self.stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags))?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        #[cfg(not(target_os = "linux"))]
        for descriptor in &descriptors {
            use std::os::fd::AsRawFd;
            super::sys::set_close_on_exec(descriptor.as_raw_fd(), true)
                .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        Ok(descriptors)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_in_order_however_many() {
        let (ours, theirs) = Channel::pair().unwrap();
        let files: Vec<std::fs::File> = (0..300).map(|_| tempfile::tempfile().unwrap()).collect();
        for (number, mut file) in files.iter().enumerate() {
            write!(file, "{number}").unwrap();
        }
        let body = vec![7; 1 << 20];
        let sender = {
            let body = body.clone();
            std::thread::spawn(move || {
                let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                ours.send(Kind::Serve, &body, &descriptors).unwrap();
                ours.send(Kind::Quit, b"", &[]).unwrap();
            })
        };
        let message = theirs.receive().unwrap().unwrap();
        assert_eq!((message.kind, message.body.len()), (Kind::Serve, body.len()));
        assert_eq!(message.descriptors.len(), 300);
        for (number, descriptor) in message.descriptors.into_iter().enumerate() {
            use std::io::Seek;
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            let mut file = std::fs::File::from(descriptor);
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
        assert_eq!(theirs.receive().unwrap().unwrap().kind, Kind::Quit);
        sender.join().unwrap();
        assert!(theirs.receive().unwrap().is_none());
    }

    #[test]
    fn the_master_takes_short_answers_only() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(Kind::Fault, b"why", &[]).unwrap();
        assert_eq!(ours.receive().unwrap().unwrap().body, b"why");
        theirs.send(Kind::Fault, &vec![0; 1 << 17], &[]).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(Kind::Fault, b"", &[theirs.as_fd()]).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
