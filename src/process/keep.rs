//! Files that the server keeps up to date while it serves: the worker says what is to be in them, the master writes it.
//!
//! The worker may write nowhere; the master may. A file is written as another one beside it, made durable, and renamed:
//! whatever ends at whatever moment, there is the old text or the new one, whole. While a text is being written, those
//! that come after wait, and of these the last one alone is written.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{
    bundle::{
        codec::{Malformed, Reader, Writer},
        put_path, take_path,
    },
    errno::Errno,
    signals::Waker,
};

/// The longest text that is kept.
pub const LONGEST: usize = 16 << 20;

/// What goes over the channel at a time. Another piece follows when this one has arrived, so that neither side ever
/// waits for the other to read.
const PIECE: usize = 32 << 10;

/// The worker's end: texts that are to be written.
#[derive(Debug)]
pub struct Keeper {
    texts: Mutex<HashMap<PathBuf, Text>>,
    waker: Waker,
}

/// What is to be in one file.
#[derive(Debug)]
struct Text {
    /// The number of the newest text there is.
    newest: u64,
    /// The newest one, until it is on its way.
    next: Option<Vec<u8>>,
    /// The one that is on its way, its number, and how much of it the master has.
    sending: Option<(u64, Vec<u8>, usize)>,
    /// The number of the last one that was written or given up.
    done: watch::Sender<u64>,
}

/// One piece of a text, as the channel carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub path: PathBuf,
    pub number: u64,
    pub start: usize,
    pub last: bool,
    pub bytes: Vec<u8>,
}

/// What the master says to a piece: an empty text when all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub path: PathBuf,
    pub number: u64,
    pub fault: Vec<u8>,
}

impl Keeper {
    /// One that keeps nothing yet.
    pub(super) fn new() -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self { texts: Mutex::default(), waker: Waker::new()? }))
    }

    /// Has a text written. The number that comes back tells when it was: see [`Keeper::wait`].
    pub fn keep(&self, path: &Path, text: Vec<u8>) -> u64 {
        let mut texts = self.texts();
        let entry = texts.entry(path.to_path_buf()).or_insert_with(|| Text {
            newest: 0,
            next: None,
            sending: None,
            done: watch::Sender::new(0),
        });
        entry.newest += 1;
        entry.next = Some(text);
        let number = entry.newest;
        drop(texts);
        self.waker.wake();
        number
    }

    /// Ends when everything that was to be written to a file so far is written, or cannot be.
    pub async fn wait(&self, path: &Path) {
        let known = |text: &Text| (text.newest, text.done.subscribe());
        let Some((number, mut done)) = self.texts().get(path).map(known) else { return };
        // The sender lives as long as this does.
        let _ = done.wait_for(|done| *done >= number).await;
    }

    /// Wakes when there is something to send.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// What is to be sent now, for every file whose last piece has arrived.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        self.waker.clear();
        let mut pieces = Vec::new();
        for (path, text) in self.texts().iter_mut() {
            if text.sending.is_none() {
                pieces.extend(text.start(path));
            }
        }
        pieces
    }

    /// The master has taken a piece: the next one, if there is any.
    pub(super) fn received(&self, receipt: &Receipt) -> Option<Piece> {
        let mut texts = self.texts();
        let text = texts.get_mut(&receipt.path)?;
        let (number, bytes, start) = text.sending.as_mut().filter(|(number, _, _)| *number == receipt.number)?;
        *start = (*start + PIECE).min(bytes.len());
        if *start < bytes.len() && receipt.fault.is_empty() {
            return text.piece(&receipt.path);
        }
        text.done.send_replace(*number);
        text.sending = None;
        text.start(&receipt.path)
    }

    fn texts(&self) -> MutexGuard<'_, HashMap<PathBuf, Text>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Text {
    /// The first piece of the newest text, if one waits.
    fn start(&mut self, path: &Path) -> Option<Piece> {
        self.sending = Some((self.newest, self.next.take()?, 0));
        self.piece(path)
    }

    fn piece(&self, path: &Path) -> Option<Piece> {
        let (number, bytes, start) = self.sending.as_ref()?;
        let end = (start + PIECE).min(bytes.len());
        Some(Piece {
            path: path.to_path_buf(),
            number: *number,
            start: *start,
            last: end == bytes.len(),
            bytes: bytes[*start..end].to_vec(),
        })
    }
}

impl Piece {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        put_path(&mut writer, &self.path);
        writer.number(self.number);
        writer.number(self.start as u64);
        writer.number(self.last.into());
        writer.bytes(&self.bytes);
        writer.0
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(message);
        Ok(Self {
            path: take_path(&mut reader)?,
            number: reader.number()?,
            start: reader.small()?,
            last: reader.number()? != 0,
            bytes: reader.bytes()?.to_vec(),
        })
    }
}

impl Receipt {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        put_path(&mut writer, &self.path);
        writer.number(self.number);
        writer.bytes(&self.fault);
        writer.0
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(message);
        Ok(Self { path: take_path(&mut reader)?, number: reader.number()?, fault: reader.bytes()?.to_vec() })
    }
}

/// The master's end: texts of which pieces have come, by the file they are for.
#[derive(Debug, Default)]
pub(super) struct Arriving(HashMap<PathBuf, (u64, Vec<u8>)>);

impl Arriving {
    /// Takes a piece; the whole text when it was the last.
    pub(super) fn take(&mut self, piece: Piece) -> Result<Option<Vec<u8>>, Malformed> {
        let (number, bytes) = self.0.entry(piece.path.clone()).or_default();
        if piece.start == 0 {
            (*number, *bytes) = (piece.number, Vec::new());
        }
        if *number != piece.number || bytes.len() != piece.start || bytes.len() + piece.bytes.len() > LONGEST {
            self.0.remove(&piece.path);
            return Err(Malformed);
        }
        bytes.extend_from_slice(&piece.bytes);
        Ok(if piece.last { self.0.remove(&piece.path).map(|(_, bytes)| bytes) } else { None })
    }
}

/// Puts a text in the place of a file. What cannot be done comes back in nginx's words.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let failed = |call: &str, path: &Path| {
        let path = path.display().to_string();
        let call = call.to_owned();
        move |error: io::Error| format!("{call}() \"{path}\" failed ({})", Errno::from(error))
    };
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("unlink", &beside)(error)),
        _ => {}
    }
    // Nobody else's file is written to, whoever may write in the folder.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
    let mut file = opened.map_err(failed("open", &beside))?;
    let written = file.write_all(text).map_err(failed("write", &beside));
    let durable = written.and_then(|()| file.sync_all().map_err(failed("fsync", &beside)));
    let renamed = durable.and_then(|()| std::fs::rename(&beside, path).map_err(failed("rename", &beside)));
    if renamed.is_err() {
        // It is in nobody's way.
        let _ = std::fs::remove_file(&beside);
    }
    renamed?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that cannot be made durable loses the new name at worst, not the old text.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all there is to send until nothing is left; what arrived, whole, in order.
    fn deliver(keeper: &Keeper, arriving: &mut Arriving) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        let mut pieces = keeper.pieces();
        while let Some(piece) = pieces.pop() {
            let piece = Piece::decode(&piece.encode()).unwrap();
            assert!(piece.bytes.len() <= PIECE);
            let receipt = Receipt { path: piece.path.clone(), number: piece.number, fault: Vec::new() };
            whole.extend(arriving.take(piece).unwrap());
            pieces.extend(keeper.received(&Receipt::decode(&receipt.encode()).unwrap()));
        }
        whole
    }

    #[test]
    fn a_text_goes_in_pieces_and_of_those_that_wait_only_the_last() {
        let keeper = Keeper::new().unwrap();
        let (path, mut arriving) = (Path::new("/a"), Arriving::default());
        let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        keeper.keep(path, b"old".to_vec());
        keeper.keep(path, long.clone());
        assert_eq!(deliver(&keeper, &mut arriving), [long]);
        let first = keeper.pieces_of(path, b"one");
        keeper.keep(path, b"two".to_vec());
        keeper.keep(path, b"three".to_vec());
        assert!(keeper.pieces().is_empty(), "one is on its way");
        let receipt = Receipt { path: path.into(), number: first.number, fault: Vec::new() };
        let next = keeper.received(&receipt).unwrap();
        assert_eq!((next.bytes, next.last), (b"three".to_vec(), true));
    }

    impl Keeper {
        fn pieces_of(&self, path: &Path, text: &[u8]) -> Piece {
            self.keep(path, text.to_vec());
            self.pieces().remove(0)
        }
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_it_is_written_or_cannot_be() {
        let keeper = Keeper::new().unwrap();
        keeper.wait(Path::new("/never")).await;
        let piece = keeper.pieces_of(Path::new("/a"), b"text");
        let waiting = keeper.wait(Path::new("/a"));
        tokio::pin!(waiting);
        assert!(futures_pending(waiting.as_mut()).await);
        let receipt = Receipt { path: piece.path, number: piece.number, fault: b"no space".to_vec() };
        assert_eq!(keeper.received(&receipt), None);
        waiting.await;
    }

    async fn futures_pending(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[test]
    fn pieces_that_do_not_fit_together_are_refused() {
        let piece = |number, start, bytes: &[u8]| Piece {
            path: "/a".into(),
            number,
            start,
            last: false,
            bytes: bytes.to_vec(),
        };
        let mut arriving = Arriving::default();
        assert_eq!(arriving.take(piece(1, 0, b"ab")), Ok(None));
        assert_eq!(arriving.take(piece(1, 3, b"d")), Err(Malformed));
        assert_eq!(arriving.take(piece(2, 2, b"c")), Err(Malformed));
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers.conf");
        for text in ["one", "", "three"] {
            std::fs::write(folder.path().join("servers.conf.tmp"), "left behind").unwrap();
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        let fault = replace(&folder.path().join("none/x"), b"").unwrap_err();
        assert!(fault.starts_with("open() \"") && fault.ends_with("failed (2: No such file or directory)"), "{fault}");
    }
}
