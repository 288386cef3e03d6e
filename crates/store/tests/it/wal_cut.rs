//! The log cut and damaged at every place: what was acknowledged before the place is kept, an
//! interrupted end is dropped, and damage is an error, never other data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use skep_store::DataKey;
use skep_store::wal::{Ballot, EntryRecord, LogPos, PayloadKind, Record, Recovered, Wal, WalError, WalOptions};

use crate::disks::MemDisk;

const SEGMENT: u64 = 128 * 1024;
const BLOCK: u64 = 4096;

pub fn options(disk: Arc<MemDisk>, segment_bytes: u64) -> WalOptions {
    let key = DataKey::from_bytes([9; 32]);
    WalOptions { dir: PathBuf::from("/log"), disk, key, node: 1, segment_bytes, keep_bytes: usize::MAX, lock: None }
}

pub fn entry(index: u64, size: usize) -> EntryRecord {
    let payload: Vec<u8> = (0..size).map(|i| (index as usize * 31 + i) as u8).collect();
    let kind = PayloadKind::Normal;
    EntryRecord { pos: LogPos { term: 1, node: 1, index }, kind, payload: Bytes::from(payload) }
}

/// Appends and waits until it is durable.
pub fn append(wal: &Wal, records: Vec<Record>) {
    let (done, durable) = mpsc::channel();
    wal.append(records, Box::new(move |result| done.send(result).unwrap()));
    durable.recv().unwrap().expect("the disk works");
}

/// The bytes of a log in one segment, and where each acknowledged entry ends.
fn written() -> (Vec<u8>, Vec<(u64, EntryRecord)>) {
    let disk = Arc::new(MemDisk::default());
    let (wal, _) = Wal::open(options(Arc::clone(&disk), SEGMENT)).expect("a fresh log opens");
    append(&wal, vec![Record::Vote(Ballot { term: 1, node: 1, committed: true })]);
    let start = wal.metrics().bytes_written - BLOCK;
    let mut acknowledged = Vec::new();
    for index in 0.. {
        let entry = entry(index, (index as usize * 769) % 5000);
        append(&wal, vec![Record::Entry(entry.clone())]);
        let end = BLOCK + wal.metrics().bytes_written - start;
        acknowledged.push((end, entry));
        if end > BLOCK + 96 * 1024 {
            break;
        }
    }
    wal.close();
    let bytes = disk.contents().remove(Path::new(SEGMENT_PATH)).expect("the log has one segment");
    (bytes, acknowledged)
}

const SEGMENT_PATH: &str = "/log/seg-0000000000000001";

fn open(bytes: Vec<u8>) -> Result<(Arc<MemDisk>, Wal, Recovered), WalError> {
    let disk = MemDisk::with(BTreeMap::from([(PathBuf::from(SEGMENT_PATH), bytes)]));
    let (wal, recovered) = Wal::open(options(Arc::clone(&disk), SEGMENT))?;
    Ok((disk, wal, recovered))
}

/// Runs `check` for each place, on all cores.
fn everywhere(places: Vec<u64>, check: impl Fn(u64) + Sync) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for core in 0..cores {
            let (places, check) = (&places, &check);
            scope.spawn(move || places.iter().skip(core).step_by(cores).for_each(|place| check(*place)));
        }
    });
}

fn check_kept(recovered: &Recovered, acknowledged: &[(u64, EntryRecord)], cut: u64) {
    let least = acknowledged.iter().take_while(|(end, _)| *end <= cut).count();
    let found = recovered.entries.len();
    assert!(found >= least, "cut at {cut}: {found} entries, {least} were acknowledged before it");
    for (found, (_, written)) in recovered.entries.iter().zip(acknowledged) {
        assert_eq!(found, written, "cut at {cut}");
    }
    assert_eq!(recovered.checkpoint.vote.map(|vote| vote.term), Some(1), "cut at {cut}: the vote");
}

fn check_goes_on(disk: &Arc<MemDisk>, wal: &Wal, recovered: &Recovered, cut: u64) {
    let next = recovered.checkpoint.next_index();
    append(wal, vec![Record::Entry(entry(next, 700))]);
    wal.close();
    let (wal, again) = Wal::open(options(Arc::clone(disk), SEGMENT)).expect("what was written after a cut opens");
    assert_eq!(again.entries.len(), recovered.entries.len() + 1, "cut at {cut}");
    assert_eq!(again.entries.back(), Some(&entry(next, 700)), "cut at {cut}");
    assert_eq!(again.torn, None, "cut at {cut}");
    wal.close();
}

#[test]
fn log_cut_at_every_byte_of_its_last_64_kib_keeps_what_was_acknowledged() {
    let (bytes, acknowledged) = written();
    let end = acknowledged.last().unwrap().0;
    everywhere((end - 64 * 1024..=end).collect(), |cut| {
        let (disk, wal, recovered) = open(bytes[..cut as usize].to_vec()).expect("a cut log opens");
        check_kept(&recovered, &acknowledged, cut);
        if cut % 31 == 0 || cut % BLOCK < 2 {
            check_goes_on(&disk, &wal, &recovered, cut);
        }
    });
}

/// As a power cut leaves a preallocated file: the length is there, the end was not written.
#[test]
fn log_whose_end_was_never_written_keeps_what_was_acknowledged() {
    let (bytes, acknowledged) = written();
    let end = acknowledged.last().unwrap().0;
    for stale in [0x00, 0xa5] {
        everywhere((end - 64 * 1024..=end).step_by(7).collect(), |cut| {
            let mut bytes = bytes.clone();
            bytes[cut as usize..].fill(stale);
            let (disk, wal, recovered) = open(bytes).expect("an unfinished log opens");
            check_kept(&recovered, &acknowledged, cut);
            if cut % 13 == 0 {
                check_goes_on(&disk, &wal, &recovered, cut);
            }
        });
    }
}

#[test]
fn flipped_bits_are_found_and_never_read_as_data() {
    let (bytes, acknowledged) = written();
    let end = acknowledged.last().unwrap().0;
    let last_start = acknowledged[acknowledged.len() - 2].0;
    everywhere((0..end).step_by(11).collect(), |at| {
        let mut bytes = bytes.clone();
        bytes[at as usize] ^= 1 << (at % 8);
        match open(bytes) {
            Ok((_, _, recovered)) => {
                for (found, (_, written)) in recovered.entries.iter().zip(&acknowledged) {
                    assert_eq!(found, written, "bit flipped at {at}");
                }
                // Padding carries nothing. The last frame cannot be told from an interrupted write.
                let lost = acknowledged.len() - recovered.entries.len();
                assert!(lost == 0 || (lost == 1 && at >= last_start), "bit flipped at {at}: {lost} entries lost");
            }
            Err(WalError::Damaged { path, offset, .. }) => {
                assert_eq!(path, Path::new(SEGMENT_PATH));
                assert!(offset <= at && at < offset + 8 * BLOCK, "bit flipped at {at}, reported at {offset}");
            }
            Err(WalError::Format { .. }) => assert!((8..10).contains(&at), "bit flipped at {at}"),
            Err(other) => panic!("bit flipped at {at}: {other}"),
        }
    });
}
