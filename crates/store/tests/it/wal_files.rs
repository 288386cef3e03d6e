//! Segments: full ones, recycled ones, missing ones, and disks that fail.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};

use skep_store::DataKey;
use skep_store::wal::{Ballot, LogPos, RealDisk, Record, Wal, WalError, WalOptions};
use tempfile::TempDir;

use crate::disks::{FaultyDisk, MemDisk};
use crate::wal_cut::{append, entry, options};

const SEGMENT: u64 = 16 * 1024;

fn pos(index: u64) -> LogPos {
    LogPos { term: 1, node: 1, index }
}

fn fill(wal: &Wal, indexes: std::ops::Range<u64>) {
    for index in indexes {
        append(wal, vec![Record::Entry(entry(index, 1000))]);
    }
}

fn segments(disk: &MemDisk) -> Vec<String> {
    let names = disk.contents().into_keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("seg-")).collect()
}

#[test]
fn purged_segments_are_recycled_and_the_vote_survives() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    let ballot = Ballot { term: 7, node: 3, committed: false };
    append(&wal, vec![Record::Vote(ballot)]);
    let mut most = 0;
    for round in 0..20 {
        fill(&wal, round * 10..round * 10 + 10);
        append(&wal, vec![Record::Purge(pos(round * 10 + 4))]);
        wal.note_committed(pos(round * 10 + 9));
        most = most.max(disk.contents().len());
    }
    wal.close();
    assert!(most <= 12, "{most} files for a log that is purged all the time");
    let (wal, recovered) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    let checkpoint = recovered.checkpoint;
    assert_eq!(checkpoint.vote, Some(ballot));
    assert_eq!(checkpoint.committed, Some(pos(199)));
    assert_eq!((checkpoint.purged, checkpoint.last), (Some(pos(194)), Some(pos(199))));
    assert_eq!(recovered.entries.iter().map(|entry| entry.pos.index).collect::<Vec<_>>(), [195, 196, 197, 198, 199]);
    assert!(recovered.has_proposals);
    fill(&wal, 200..210);
    wal.close();
}

#[test]
fn record_larger_than_a_segment_gets_its_own() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    append(&wal, vec![Record::Entry(entry(0, 10)), Record::Entry(entry(1, 300_000)), Record::Entry(entry(2, 10))]);
    assert_eq!(wal.read_from(1).unwrap()[0], entry(1, 300_000));
    fill(&wal, 3..9);
    append(&wal, vec![Record::Purge(pos(8))]);
    wal.close();
    let (_, recovered) = Wal::open(options(disk, SEGMENT)).unwrap();
    assert_eq!(recovered.checkpoint.last, Some(pos(8)));
}

#[test]
fn truncated_entries_are_replaced_on_disk_too() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    fill(&wal, 0..10);
    append(&wal, vec![Record::TruncateAfter(Some(pos(4))), Record::Entry(entry(5, 17)), Record::Entry(entry(6, 18))]);
    append(&wal, vec![Record::TruncateAfter(Some(pos(5)))]);
    let read = |wal: &Wal, index| wal.read_from(index).unwrap().first().cloned();
    for wal in [wal.clone(), {
        wal.close();
        Wal::open(options(disk, SEGMENT)).unwrap().0
    }] {
        assert_eq!(read(&wal, 4), Some(entry(4, 1000)));
        assert_eq!(read(&wal, 5), Some(entry(5, 17)));
        assert_eq!(read(&wal, 6), None);
    }
}

#[test]
fn missing_segment_is_named() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    fill(&wal, 0..20);
    wal.close();
    let names = segments(&disk);
    assert!(names.len() >= 4, "{names:?}");
    for missing in &names[..names.len() - 1] {
        let mut contents = disk.contents();
        contents.remove(&Path::new("/log").join(missing));
        let error = Wal::open(options(MemDisk::with(contents), SEGMENT)).map(drop).expect_err("entries are missing");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

/// A crash between two renames of a purge leaves the older name and loses the newer one.
#[test]
fn leftovers_of_a_purge_are_cleared() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    fill(&wal, 0..20);
    let before = disk.contents();
    append(&wal, vec![Record::Purge(pos(15))]);
    wal.close();
    let mut contents = disk.contents();
    let first = Path::new("/log/seg-0000000000000001");
    assert!(!contents.contains_key(first));
    contents.insert(first.to_owned(), before[first].clone());
    let disk = MemDisk::with(contents);
    let (_, recovered) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    assert_eq!(recovered.entries.front().map(|entry| entry.pos.index), Some(16));
    assert!(!segments(&disk).contains(&"seg-0000000000000001".to_owned()));
}

/// A crash while a full segment is followed by a new one.
#[test]
fn unfinished_new_segment_is_dropped_but_damage_under_it_is_not() {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap();
    fill(&wal, 0..3);
    wal.close();
    let mut contents = disk.contents();
    contents.insert("/log/seg-0000000000000002".into(), vec![0; SEGMENT as usize]);
    let (wal, recovered) = Wal::open(options(MemDisk::with(contents.clone()), SEGMENT)).unwrap();
    assert_eq!(recovered.checkpoint.last, Some(pos(2)));
    assert_eq!(recovered.torn, Some(("seg-0000000000000002".to_owned(), 0)));
    fill(&wal, 3..20);
    wal.close();

    contents.get_mut(Path::new("/log/seg-0000000000000001")).unwrap()[4096 + 50] ^= 1;
    let damaged = Wal::open(options(MemDisk::with(contents.clone()), SEGMENT)).map(drop);
    assert!(matches!(damaged, Err(WalError::Damaged { offset: 4096, .. })), "{damaged:?}");

    // The header of the only segment.
    contents.remove(Path::new("/log/seg-0000000000000002"));
    contents.get_mut(Path::new("/log/seg-0000000000000001")).unwrap()[20] ^= 1;
    let other_key = WalOptions { key: DataKey::from_bytes([1; 32]), ..options(Arc::default(), SEGMENT) };
    for options in [options(Arc::default(), SEGMENT), other_key] {
        let options = WalOptions { disk: MemDisk::with(contents.clone()), ..options };
        let damaged = Wal::open(options).map(drop);
        assert!(matches!(damaged, Err(WalError::Damaged { offset: 0, .. })), "{damaged:?}");
    }
}

#[test]
fn wrong_key_and_wrong_manager_are_told_apart_from_damage() {
    let disk = Arc::new(MemDisk::default());
    Wal::open(options(Arc::clone(&disk), SEGMENT)).unwrap().0.close();
    let other = WalOptions { key: DataKey::from_bytes([1; 32]), ..options(Arc::clone(&disk), SEGMENT) };
    assert!(matches!(Wal::open(other), Err(WalError::WrongKey { .. })));
    let other = WalOptions { node: 2, ..options(Arc::clone(&disk), SEGMENT) };
    assert!(matches!(Wal::open(other), Err(WalError::WrongNode { found: 1, given: 2, .. })));
}

fn on_faulty_disk(dir: &TempDir) -> (Arc<FaultyDisk>, WalOptions) {
    let disk = Arc::new(FaultyDisk::default());
    let options = WalOptions {
        dir: dir.path().to_owned(),
        disk: Arc::clone(&disk) as Arc<_>,
        ..options(Arc::default(), SEGMENT)
    };
    (disk, options)
}

#[test]
fn failed_sync_ends_the_log_and_loses_nothing_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (disk, options) = on_faulty_disk(&dir);
    let (wal, _) = Wal::open(options.clone()).unwrap();
    fill(&wal, 0..7);
    disk.faults.syncs_fail.store(true, SeqCst);
    let (done, results) = mpsc::channel();
    for index in [7, 8] {
        let done = done.clone();
        let record = Record::Entry(entry(index, 10));
        wal.append(vec![record], Box::new(move |result| done.send(result).unwrap()));
    }
    let first = results.recv().unwrap().expect_err("a failed sync is no acknowledgement");
    assert!(first.to_string().contains("cannot sync"), "{first}");
    // The disk says that it works again: too late, since nobody knows what it kept.
    disk.faults.syncs_fail.store(false, SeqCst);
    results.recv().unwrap().expect_err("nothing is acknowledged after a failure");
    wal.close();
    let (_, recovered) = Wal::open(WalOptions { disk: Arc::new(RealDisk), ..options }).unwrap();
    assert!(recovered.entries.len() >= 7);
    for (index, found) in (0..7).zip(&recovered.entries) {
        assert_eq!(*found, entry(index, 1000));
    }
}

#[test]
fn full_disk_uses_the_reserve_then_stops_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let (disk, options) = on_faulty_disk(&dir);
    let (wal, _) = Wal::open(options.clone()).unwrap();
    while wal.metrics().spares < 2 {
        fill(&wal, 0..0);
        append(&wal, vec![]);
        std::thread::yield_now();
    }
    disk.faults.full.store(true, SeqCst);
    let mut kept = 0;
    let halted = loop {
        let (done, durable) = mpsc::channel();
        wal.append(vec![Record::Entry(entry(kept, 1000))], Box::new(move |result| done.send(result).unwrap()));
        match durable.recv().unwrap() {
            Ok(()) => kept += 1,
            Err(halted) => break halted,
        }
    };
    assert!(kept > 6, "two segments in reserve hold more than {kept} entries");
    assert!(halted.to_string().contains("no storage space"), "{halted}");
    wal.close();
    disk.faults.full.store(false, SeqCst);
    let (wal, recovered) = Wal::open(options).unwrap();
    assert_eq!(recovered.checkpoint.last, Some(pos(kept - 1)));
    fill(&wal, kept..kept + 5);
    wal.close();
}
