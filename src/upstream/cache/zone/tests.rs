//! What is known of files, step by step.

use super::*;
use crate::upstream::cache::settings::Steps;

/// Seconds, where it is no matter when.
const NOW: u64 = 100;

const FILE: Facts = Facts { uniq: 7, body_start: 400, fs_size: 4096 };

fn path(folder: &str) -> CachePath {
    CachePath {
        folder: folder.into(),
        levels: vec![1, 2],
        use_temp_path: true,
        name: b"z".to_vec(),
        size: 1 << 20,
        inactive: 600,
        max_size: 1 << 30,
        min_free: 0,
        manager: Steps::default(),
        loader: Steps::default(),
    }
}

fn zone() -> Zone {
    Zone::new(path("/c"))
}

/// With room for so many keys.
fn small(keys: usize) -> Zone {
    Zone::new(CachePath { size: PAGE + keys * NODE, ..path("/nowhere") })
}

fn key(number: u8) -> Digest {
    [number; 16]
}

/// A first look.
fn ask(zone: &Zone, number: u8) -> Known {
    zone.hold(&key(number), 1, false, 100).0
}

/// An answer is there, and nobody has to do with it.
fn keep(zone: &Zone, number: u8, fs_size: u64) {
    ask(zone, number);
    zone.stored(&key(number), Ok(Facts { fs_size, ..FILE }));
}

const fn file() -> Known {
    Known::Enough { file: true, error: 0 }
}

#[test]
fn a_key_is_new_until_its_answer_is_there() {
    let zone = zone();
    assert_eq!(zone.hold(&key(1), 1, false, 100), (Known::New, Facts::default()));
    // Somebody else, and the first one again.
    assert_eq!(ask(&zone, 1), Known::Enough { file: false, error: 0 });
    assert_eq!(zone.hold(&key(1), 1, true, 100).0, Known::Enough { file: false, error: 0 });
    zone.stored(&key(1), Ok(FILE));
    assert_eq!(zone.hold(&key(1), 1, true, 100), (file(), FILE));
    assert_eq!(zone.size().0, 4096);
    // Another one in its place.
    zone.stored(&key(1), Ok(Facts { fs_size: 8192, ..FILE }));
    assert_eq!(zone.size().0, 8192);
    assert_eq!(ask(&zone, 2), Known::New);
}

#[test]
fn an_answer_that_could_not_be_stored_leaves_nothing() {
    let zone = zone();
    ask(&zone, 1);
    zone.stored(&key(1), Err(400));
    assert_eq!(ask(&zone, 1), Known::Enough { file: false, error: 0 });
    assert_eq!(zone.size().0, 0);
}

#[test]
fn so_many_requests_have_to_come_first() {
    let zone = zone();
    let ask = || zone.hold(&key(1), 3, false, 100).0;
    assert_eq!([ask(), ask(), ask()], [Known::New, Known::TooFew, Known::Enough { file: false, error: 0 }]);
    // One that looks again is not another one.
    let again = || zone.hold(&key(2), 2, true, 100).0;
    assert_eq!(zone.hold(&key(2), 2, false, 100).0, Known::New);
    assert_eq!([again(), again()], [Known::TooFew, Known::TooFew]);
    // What is there is given to anybody.
    zone.stored(&key(2), Ok(FILE));
    assert_eq!(zone.hold(&key(2), 9, false, 100).0, file());
}

#[test]
fn a_key_without_an_answer_is_forgotten_when_nobody_has_to_do_with_it() {
    let zone = zone();
    ask(&zone, 1);
    ask(&zone, 1);
    zone.release(&key(1), None, 1);
    assert_eq!(ask(&zone, 1), Known::Enough { file: false, error: 0 });
    zone.release(&key(1), None, 1);
    zone.release(&key(1), None, 1);
    assert_eq!(ask(&zone, 1), Known::New);
    // How often it was asked for is kept where that counts.
    zone.hold(&key(2), 2, false, 100);
    zone.release(&key(2), None, 2);
    assert_eq!(zone.hold(&key(2), 2, false, 100).0, Known::Enough { file: false, error: 0 });
    // And a file is never forgotten.
    keep(&zone, 3, 4096);
    ask(&zone, 3);
    zone.release(&key(3), None, 1);
    assert_eq!(ask(&zone, 3), file());
}

#[test]
fn an_error_is_remembered_for_its_time() {
    let zone = zone();
    let at = |now| zone.hold(&key(1), 1, false, now).0;
    assert_eq!(at(100), Known::New);
    zone.release(&key(1), Some((502, 110)), 1);
    assert_eq!(at(110), Known::Enough { file: false, error: 502 });
    // Who was given it tells the same status, and no time.
    zone.release(&key(1), Some((502, 0)), 1);
    assert_eq!(at(110), Known::Enough { file: false, error: 502 });
    assert_eq!((at(111), at(111)), (Known::New, Known::Enough { file: false, error: 0 }));
    zone.release(&key(1), Some((504, 200)), 1);
    assert_eq!(at(111), Known::Enough { file: false, error: 504 });
    zone.stored(&key(1), Ok(FILE));
    assert_eq!(at(111), file());
}

#[test]
fn one_fetches_what_is_missing_and_others_wait_until_its_lock_is_too_old() {
    let zone = zone();
    ask(&zone, 1);
    assert!(zone.fetched(&key(1), 1000).is_none());
    assert_eq!(zone.lock_out(&key(1), 1000, 50), Some(1050));
    assert_eq!((zone.lock_out(&key(1), 1000, 50), zone.lock_out(&key(1), 1049, 50)), (None, None));
    assert_eq!(zone.fetched(&key(1), 1049).map(|(_, until)| until), Some(1050));
    assert!(zone.fetched(&key(1), 1050).is_none());
    assert_eq!(zone.lock_out(&key(1), 1050, 50), Some(1100));
    // The first one ends: it was not its turn any more.
    zone.give_up(&key(1), 1050);
    assert_eq!(zone.lock_out(&key(1), 1060, 50), None);
    zone.give_up(&key(1), 1100);
    assert_eq!(zone.lock_out(&key(1), 1060, 50), Some(1110));
    // Nobody waits for what nobody has asked for.
    assert!(zone.lock_out(&key(9), 0, 1).is_none() && zone.fetched(&key(9), 0).is_none());
}

#[tokio::test]
async fn who_waits_is_told_when_an_answer_is_there_or_will_not_be() {
    for stored in [true, false] {
        let zone = zone();
        ask(&zone, 1);
        let time = zone.lock_out(&key(1), 0, 1000).unwrap();
        let (first, _) = zone.fetched(&key(1), 0).unwrap();
        let (second, _) = zone.fetched(&key(1), 0).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let told = first.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        match stored {
            true => zone.stored(&key(1), Ok(FILE)),
            false => zone.give_up(&key(1), time),
        }
        told.await;
        assert!(zone.fetched(&key(1), 0).is_none());
    }
}

#[test]
fn one_fetches_anew_what_is_too_old() {
    let zone = zone();
    keep(&zone, 1, 4096);
    let turn = zone.begin_update(&key(1));
    assert!(turn.is_some());
    assert_eq!(zone.begin_update(&key(1)), None);
    zone.give_up(&key(1), turn.unwrap());
    assert_eq!(zone.begin_update(&key(1)), turn);
    zone.stored(&key(1), Ok(FILE));
    assert_eq!(zone.begin_update(&key(1)), turn);
    assert_eq!(zone.begin_update(&key(9)), None);
}

#[test]
fn a_file_that_is_found_is_known_from_then_on() {
    let zone = zone();
    assert!(zone.is_cold());
    ask(&zone, 1);
    zone.found(&key(1), FILE);
    assert_eq!((ask(&zone, 1), zone.size().0), (file(), 4096));
    // Once.
    zone.found(&key(1), FILE);
    assert_eq!(zone.size().0, 4096);
    // What the loader finds does not change what is known already.
    assert!(zone.add(&key(1), 8192, 100) && zone.add(&key(2), 512, 100));
    assert_eq!((zone.size().0, ask(&zone, 2)), (4096 + 512, file()));
    // Nobody has asked for it.
    zone.found(&key(9), FILE);
    assert_eq!(zone.size().0, 4096 + 512);
}

#[test]
fn what_nobody_asks_for_goes_when_its_time_is_over() {
    let zone = Zone::new(CachePath { inactive: 60, ..path("/c") });
    assert_eq!(zone.expire_one(100), Out::Wait(10));
    let at = |number, now| zone.hold(&key(number), 1, false, now);
    for number in [1, 2] {
        at(number, 100);
        zone.stored(&key(number), Ok(FILE));
    }
    assert_eq!([zone.expire_one(100), zone.expire_one(155)], [Out::Wait(10), Out::Wait(5)]);
    // The first is in use.
    at(1, 130);
    assert_eq!(zone.expire_one(160), Out::Delete(key(2)));
    assert_eq!(zone.size().0, 4096);
    assert_eq!(zone.expire_one(160), Out::Wait(1));
    zone.deleted(&key(2));
    assert_eq!(at(2, 160).0, Known::New);
    zone.release(&key(2), None, 1);
    assert_eq!(zone.expire_one(189), Out::Wait(1));
    // Whoever still has to do with it is told of, and it has its time once more.
    assert_eq!(zone.expire_one(190), Out::Held(key(1), 1));
    assert_eq!(zone.expire_one(190), Out::Wait(10));
    zone.release(&key(1), None, 1);
    assert_eq!(zone.expire_one(250), Out::Delete(key(1)));
    zone.deleted(&key(1));
    assert_eq!((zone.expire_one(250), zone.size().0), (Out::Wait(10), 0));
}

#[test]
fn a_key_without_a_file_goes_without_a_word() {
    let zone = zone();
    zone.hold(&key(1), 2, false, 100);
    zone.release(&key(1), None, 2);
    assert_eq!([zone.expire_one(700), zone.expire_one(700)], [Out::Forgotten, Out::Wait(10)]);
}

#[test]
fn a_file_that_is_asked_for_while_it_is_removed_stays_known() {
    let zone = zone();
    keep(&zone, 1, 4096);
    assert_eq!(zone.force_one(NOW), Out::Delete(key(1)));
    assert_eq!(ask(&zone, 1), file());
    zone.deleted(&key(1));
    // A new file takes the place of the old one.
    assert_eq!(zone.hold(&key(1), 1, true, 100).0, file());
    zone.stored(&key(1), Ok(FILE));
    assert_eq!(zone.size().0, 4096);
    assert_eq!(zone.force_one(NOW), Out::Delete(key(1)));
}

#[test]
fn the_oldest_goes_first_unless_somebody_has_to_do_with_it() {
    let zone = zone();
    assert_eq!(zone.force_one(NOW), Out::Wait(10));
    (1..=4).for_each(|number| keep(&zone, number, 4096));
    // The first is used again; the second is being used.
    ask(&zone, 1);
    zone.release(&key(1), None, 1);
    ask(&zone, 2);
    let order: Vec<_> = (0..4).map(|_| zone.force_one(NOW)).collect();
    assert_eq!(order, [Out::Delete(key(3)), Out::Delete(key(4)), Out::Delete(key(1)), Out::Wait(1)]);
}

#[test]
fn many_that_are_in_use_are_passed_over_in_a_few_looks() {
    let zone = zone();
    (1..=31).for_each(|number| keep(&zone, number, 4096));
    for number in 1..=30 {
        ask(&zone, number);
    }
    ask(&zone, 31);
    zone.release(&key(31), None, 1);
    let looks: Vec<_> = (0..3).map(|_| zone.force_one(NOW)).collect();
    assert_eq!(looks, [Out::Wait(1), Out::Delete(key(31)), Out::Wait(1)]);
}

#[test]
fn files_are_too_many_by_their_bytes() {
    let zone = Zone::new(CachePath { max_size: 10_000, ..path("/c") });
    keep(&zone, 1, 4096);
    keep(&zone, 2, 4096);
    assert!(!zone.is_over());
    keep(&zone, 3, 4096);
    assert!(zone.is_over());
    assert!(matches!(zone.force_one(NOW), Out::Delete(_)));
    assert!(!zone.is_over());
}

#[test]
fn where_there_is_no_room_for_a_key_the_oldest_one_goes() {
    let zone = small(4);
    for number in 1..=4 {
        keep(&zone, number, 4096);
    }
    assert!(!zone.is_over());
    assert_eq!(ask(&zone, 5), Known::New);
    assert_eq!((zone.size().0, ask(&zone, 2)), (3 * 4096, file()));
    // From now on there are to be fewer.
    assert!(zone.is_over());
    for number in [2, 3, 4, 5] {
        ask(&zone, number);
    }
    assert_eq!(ask(&zone, 6), Known::NoRoom);
    assert!(!zone.add(&key(7), 512, 100));
    assert!(zone.add(&key(3), 512, 100));
}

#[test]
fn a_reload_goes_on_with_what_is_known_of_the_same_files() {
    let first = zone();
    keep(&first, 1, 4096);
    first.count(Status::Hit, 10);
    let adopted = |path: CachePath| {
        let second = Zone::new(path);
        second.adopt(&first);
        (ask(&second, 1), second.size().0, second.tally(Status::Hit).responses.get())
    };
    assert_eq!(adopted(CachePath { inactive: 5, max_size: 1, ..path("/c") }), (file(), 4096, 1));
    assert_eq!(adopted(path("/other")), (Known::New, 0, 0));
    assert_eq!(adopted(CachePath { levels: vec![], ..path("/c") }), (Known::New, 0, 0));
    // What serves already is not taken anything from.
    let third = zone();
    keep(&third, 2, 512);
    third.adopt(&first);
    assert_eq!((third.size().0, ask(&third, 2)), (512, file()));
}

#[test]
fn words_and_counts_stand_for_how_a_request_fared() {
    let words = Status::ALL.map(Status::word);
    assert_eq!(words, ["MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT"]);
    let zone = zone();
    for (number, status) in Status::ALL.into_iter().enumerate() {
        zone.count(status, number as u64);
        zone.count(status, 1);
        let tally = zone.tally(status);
        assert_eq!((tally.responses.get(), tally.bytes.get()), (2, number as u64 + 1));
    }
    zone.reset();
    assert_eq!(zone.tally(Status::Hit).bytes.get(), 0);
    assert_eq!(zone.file(&key(0xab)), std::path::Path::new("/c/b/ba").join("ab".repeat(16)));
}

#[test]
fn a_file_that_is_not_the_answer_any_more_goes_with_its_key() {
    let zone = zone();
    let at = |now| zone.hold(&key(1), 1, false, now).0;
    keep(&zone, 1, 4096);
    assert_eq!(at(100), file());
    // It was too old, and an error came in its place.
    zone.release(&key(1), Some((502, 110)), 1);
    assert_eq!((at(111), zone.size().0), (Known::New, 4096));
    zone.release(&key(1), None, 1);
    assert_eq!(zone.force_one(NOW), Out::Delete(key(1)));
    zone.deleted(&key(1));
    assert_eq!((zone.force_one(NOW), zone.size().0), (Out::Wait(10), 0));
    // Or another answer comes.
    keep(&zone, 1, 4096);
    at(100);
    zone.release(&key(1), Some((502, 110)), 1);
    at(111);
    zone.stored(&key(1), Ok(Facts { fs_size: 512, ..FILE }));
    assert_eq!((at(111), zone.size().0), (file(), 512));
}

#[test]
fn a_file_that_comes_while_another_one_is_removed_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let zone = Zone::new(CachePath { levels: vec![], ..path(folder.path().to_str().unwrap()) });
    for arrived in [true, false] {
        keep(&zone, 1, 4096);
        assert_eq!(zone.force_one(NOW), Out::Delete(key(1)));
        ask(&zone, 1);
        if arrived {
            std::fs::write(zone.file(&key(1)), "new").unwrap();
        }
        zone.stored(&key(1), Ok(Facts { fs_size: 512, ..FILE }));
        zone.deleted(&key(1));
        assert_eq!(zone.size().0, if arrived { 512 } else { 0 });
        assert_eq!(ask(&zone, 1), if arrived { file() } else { Known::New });
        zone.release(&key(1), None, 1);
        if arrived {
            std::fs::remove_file(zone.file(&key(1))).unwrap();
            assert_eq!(zone.force_one(NOW), Out::Delete(key(1)));
            zone.deleted(&key(1));
        }
    }
}
