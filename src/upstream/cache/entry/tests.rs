//! A request and its cache, without an upstream.

use super::*;
use crate::{
    http::{heads::RequestHead, in_memory, testing},
    upstream::cache::settings::{CachePath, Steps},
};
use std::io::Write;
use tempfile::TempDir;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";

/// A cache in a folder of its own.
struct World {
    folder: TempDir,
    zone: Arc<Zone>,
    caching: Caching,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut CachePath)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut path = CachePath {
            folder: folder.path().join("cache"),
            levels: vec![1, 2],
            use_temp_path: true,
            name: b"z".to_vec(),
            size: 1 << 20,
            inactive: 600,
            max_size: 1 << 30,
            min_free: 0,
            manager: Steps::default(),
            loader: Steps::default(),
        };
        change(&mut path);
        fs::create_dir(&path.folder).unwrap();
        Self { folder, zone: Arc::new(Zone::new(path)), caching: Caching::default() }
    }

    fn entry(&self) -> Box<Entry> {
        Entry::new(Arc::clone(&self.zone), Key::new(b"key".to_vec()), &self.caching, 4096, 0).unwrap()
    }

    /// The server begins anew over the same files.
    fn restart(&mut self) {
        self.zone = Arc::new(Zone::new(self.zone.path.clone()));
    }

    /// Has an answer kept, as far as the entry allows.
    fn keep(&self, mut entry: Box<Entry>, exchange: &Exchange, body: &str) {
        let start = entry.begin_file(exchange, HEAD).unwrap();
        let path = self.folder.path().join("written");
        let mut file = File::create_new(&path).unwrap();
        file.write_all(&[&start[..], body.as_bytes()].concat()).unwrap();
        let mut log = Log::default();
        entry.store(&path, &file, &mut log);
        assert_eq!(log.0, []);
        assert!(!path.exists());
    }

    /// What a request finds; with the body if there is one.
    async fn see(&self, exchange: &Exchange) -> (Found, String) {
        let mut entry = self.entry();
        let found = entry.open(exchange).await;
        (found, text(&entry))
    }

    fn files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            paths.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.zone.path.folder)
    }
}

/// The body of what was found.
fn text(entry: &Entry) -> String {
    match entry.body().0 {
        Body::Empty => String::new(),
        Body::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Body::File(file) => format!("{} bytes from {}", file.left, file.offset),
        _ => panic!("another body"),
    }
}

/// A request with these fields.
fn request(fields: &str) -> Box<Exchange> {
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    in_memory::exchange(Arc::new(testing::http("server { }")), RequestHead::of(head.as_bytes()).unwrap())
}

/// For the longest time there is.
fn forever() -> Validity {
    Validity { until: i64::MAX, ..Validity::default() }
}

#[tokio::test]
async fn what_was_kept_is_found_with_all_that_is_known_of_it() {
    let mut world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    assert_eq!(entry.open(&exchange).await, Found::Nothing);
    entry.validity = Validity { until: i64::MAX, updating: 3, error: 4 };
    entry.last_modified = 1_000_000;
    entry.etag = Bytes::from_static(b"\"e\"");
    world.keep(entry, &exchange, "body");
    for _ in 0..2 {
        let mut entry = world.entry();
        assert_eq!(entry.open(&exchange).await, Found::Fresh);
        assert_eq!((&entry.head()[..], text(&entry)), (HEAD, "body".into()));
        assert_eq!((entry.last_modified, &entry.etag[..]), (1_000_000, &b"\"e\""[..]));
        assert_eq!(entry.validity, Validity { until: i64::MAX, updating: 3, error: 4 });
        assert!(entry.path().exists());
        // Though nobody knows of it.
        drop(entry);
        world.restart();
    }
    assert_eq!(world.zone.size(), (0, true));
    world.see(&exchange).await;
    assert!(world.zone.size().0 >= 512);
}

#[tokio::test]
async fn a_long_answer_is_given_from_its_file() {
    let world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = forever();
    world.keep(entry, &exchange, &"x".repeat(PIECE + 1));
    let from = header_start(3) + HEAD.len();
    assert_eq!(world.see(&exchange).await, (Found::Fresh, format!("{} bytes from {from}", PIECE + 1)));
}

#[tokio::test]
async fn of_those_who_find_it_too_old_one_fetches_it_anew() {
    let world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = Validity { until: 1, ..Validity::default() };
    world.keep(entry, &exchange, "old");
    let mut first = world.entry();
    assert_eq!(first.open(&exchange).await, Found::Stale);
    assert!(!first.stale_updating() && !first.stale_error());
    assert_eq!(world.see(&exchange).await, (Found::Updating, "old".into()));
    // It gives up.
    drop(first);
    let mut second = world.entry();
    assert_eq!(second.open(&exchange).await, Found::Stale);
    // It leaves that to somebody else, who has more time.
    let mut other = world.entry();
    other.open(&exchange).await;
    other.take_turn(second.give_turn().unwrap());
    drop(second);
    assert_eq!(world.see(&exchange).await.0, Found::Updating);
    other.expire();
    other.validity = forever();
    other.close();
    world.keep(other, &exchange, "new");
    assert_eq!(world.see(&exchange).await, (Found::Fresh, "new".into()));
    assert_eq!(world.files(), 1);
}

#[tokio::test]
async fn an_answer_says_for_how_long_its_old_form_will_do() {
    let world = World::new();
    let exchange = request("");
    let now = exchange.connection.worker.clock.unix();
    for (updating, error) in [(0, 0), (now, 0), (0, now), (now, now)] {
        let mut entry = world.entry();
        entry.open(&exchange).await;
        entry.validity = Validity { until: 1, updating, error };
        world.keep(entry, &exchange, "old");
        let mut entry = world.entry();
        assert_eq!(entry.open(&exchange).await, Found::Stale);
        assert_eq!((entry.stale_updating(), entry.stale_error()), (updating > 0, error > 0));
    }
}

#[tokio::test]
async fn each_variant_has_a_file_of_its_own() {
    let mut world = World::new();
    let (a, b) = (request("X: a\r\n"), request("X: b\r\n"));
    for (exchange, body) in [(&a, "of a"), (&b, "of b")] {
        let mut entry = world.entry();
        assert_eq!(entry.open(exchange).await, Found::Nothing);
        entry.validity = forever();
        entry.vary(Bytes::from_static(b"X"));
        world.keep(entry, exchange, body);
    }
    assert_eq!(world.files(), 2);
    for _ in 0..2 {
        // In any order, from the beginning, too.
        assert_eq!(world.see(&b).await, (Found::Fresh, "of b".into()));
        assert_eq!(world.see(&a).await, (Found::Fresh, "of a".into()));
        assert_eq!(world.see(&request("X: c\r\n")).await.0, Found::Nothing);
        world.restart();
    }
    // One that depends on nothing any more takes the place of the first.
    let c = request("X: c\r\n");
    let mut entry = world.entry();
    entry.open(&c).await;
    entry.validity = forever();
    world.keep(entry, &c, "of all");
    for exchange in [&a, &b, &c] {
        assert_eq!(world.see(exchange).await, (Found::Fresh, "of all".into()));
    }
}

#[tokio::test]
async fn an_answer_that_still_holds_has_that_in_its_file() {
    let mut world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = Validity { until: 1, ..Validity::default() };
    world.keep(entry, &exchange, "old");
    let mut entry = world.entry();
    assert_eq!(entry.open(&exchange).await, Found::Stale);
    let before = fs::read(entry.path()).unwrap();
    entry.renew(&exchange, forever());
    let after = fs::read(entry.path()).unwrap();
    assert_eq!(before[super::super::file::FIXED..], after[super::super::file::FIXED..]);
    drop(entry);
    assert_eq!(world.see(&exchange).await, (Found::Fresh, "old".into()));
    world.restart();
    assert_eq!(world.see(&exchange).await, (Found::Fresh, "old".into()));
}

#[tokio::test]
async fn another_answer_in_its_place_is_not_touched() {
    let world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = Validity { until: 1, ..Validity::default() };
    world.keep(entry, &exchange, "old");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    let path = entry.path();
    let bytes = fs::read(&path).unwrap();
    fs::write(path.with_extension("new"), &bytes).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    entry.renew(&exchange, forever());
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::remove_file(&path).unwrap();
    entry.renew(&exchange, forever());
    assert!(!path.exists());
}

#[tokio::test]
async fn who_has_to_wait_goes_on_when_the_answer_is_there() {
    for arrives in [true, false] {
        let mut world = World::new();
        world.caching.lock = true;
        let exchange = request("");
        let mut first = world.entry();
        assert_eq!(first.open(&exchange).await, Found::Nothing);
        let mut second = world.entry();
        second.locking = second.locking.map(|locking| Locking { until: u64::MAX, ..locking });
        first.validity = forever();
        let fetching = async {
            // The other one waits by now.
            tokio::task::yield_now().await;
            match arrives {
                true => world.keep(first, &exchange, "here"),
                false => drop(first),
            }
        };
        let (found, ()) = tokio::join!(second.open(&exchange), fetching);
        assert_eq!(found, if arrives { Found::Fresh } else { Found::Nothing });
    }
}

#[tokio::test]
async fn who_must_not_wait_fetches_it_for_itself_alone() {
    let mut world = World::new();
    world.caching.lock = true;
    let exchange = request("");
    let mut first = world.entry();
    assert_eq!(first.open(&exchange).await, Found::Nothing);
    let mut second = world.entry();
    second.locking = second.locking.map(|locking| Locking { until: 0, ..locking });
    assert_eq!(second.open(&exchange).await, Found::Scarce);
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_none_at_all() {
    let world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = forever();
    world.keep(entry, &exchange, "body");
    let path = world.entry().path();
    let whole = fs::read(&path).unwrap();
    for (at, byte) in [(0, 4), (48, whole[48] ^ 1), (342, b'?'), (57, 0xff)] {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        fs::write(&path, bytes).unwrap();
        assert_eq!(world.see(&exchange).await.0, Found::Nothing, "{at}");
    }
    for length in [0, 100, 336, 345] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(world.see(&exchange).await.0, Found::Nothing, "{length}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(world.see(&exchange).await.0, Found::Nothing);
    // What cannot be read is told.
    fs::create_dir(&path).unwrap();
    assert_eq!(world.see(&exchange).await.0, Found::Failed);
}

#[tokio::test]
async fn an_error_has_no_file() {
    let world = World::new();
    let exchange = request("");
    let mut entry = world.entry();
    entry.open(&exchange).await;
    entry.validity = forever();
    entry.keep_error(504);
    drop(entry);
    assert_eq!(world.see(&exchange).await, (Found::Error(504), String::new()));
    assert_eq!(world.see(&exchange).await, (Found::Error(504), String::new()));
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn too_few_requests_and_too_many_keys_keep_an_answer_out() {
    let mut world = World::new();
    let exchange = request("");
    world.caching.min_uses = 2;
    assert_eq!((world.see(&exchange).await.0, world.see(&exchange).await.0), (Found::Scarce, Found::Nothing));
    // One key and no more.
    let world = World::with(|path| path.size = 4096 + 128);
    let entry = |key: &str| Entry::new(Arc::clone(&world.zone), Key::new(key.into()), &world.caching, 4096, 0).unwrap();
    let (mut first, mut second) = (entry("1"), entry("2"));
    assert_eq!(first.open(&exchange).await, Found::Nothing);
    assert_eq!(second.open(&exchange).await, Found::Failed);
    drop(first);
    assert_eq!(second.open(&exchange).await, Found::Nothing);
}

#[test]
fn key_and_head_have_to_fit_a_buffer() {
    let world = World::new();
    let entry = |length: usize, limit: usize| {
        Entry::new(Arc::clone(&world.zone), Key::new(vec![b'k'; length]), &world.caching, limit, 0)
    };
    assert_eq!(Entry::least_size(100), 336 + 6 + 100 + 1 + 256);
    assert!(entry(100, Entry::least_size(100) - 1).is_none());
    assert_eq!(entry(100, Entry::least_size(100)).map(|entry| entry.head_limit()), Some(256));
    // Its length is a number of 16 bits.
    assert!(entry(70_000, 1 << 20).is_none());
    let entry = entry(60_000, 1 << 20).unwrap();
    assert!(entry.fits(&[b'x'; 5000]) && !entry.fits(&[b'x'; 6000]));
}

#[test]
fn a_new_file_is_written_beside_the_old_one_only_if_that_is_wanted() {
    assert_eq!(World::new().entry().beside(), None);
    let world = World::with(|path| path.use_temp_path = false);
    let entry = world.entry();
    assert_eq!(entry.beside(), Some(entry.path()));
}
