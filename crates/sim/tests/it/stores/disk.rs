//! A disk in memory that loses what was not synced: each sector of an unsynced write survives a power cut or does not.
//!
//! It also runs full, fails to sync, and is slow, when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use skep_model::IdSource;
use skep_store::wal::{Disk, DiskFile};

/// What a device writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub struct SimDisk {
    names: Mutex<Names>,
    pub faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// The machine is gone: nothing works any more.
    pub dead: AtomicBool,
    pub syncs_fail: AtomicBool,
    pub full: AtomicBool,
    pub sync_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    seen: BTreeMap<PathBuf, Arc<SimFile>>,
    /// Changes since the folder was synced, in order.
    unsynced: Vec<NameChange>,
    durable: BTreeMap<PathBuf, Arc<SimFile>>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Is(PathBuf, Arc<SimFile>),
    Gone(PathBuf),
    /// Whole or not at all.
    Renamed(PathBuf, PathBuf, Arc<SimFile>),
}

#[derive(Debug)]
struct SimFile {
    bytes: Mutex<Bytes>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Bytes {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl SimDisk {
    /// What is left after the power was cut now; this one is dead from here on.
    pub fn cut_power(&self, chance: &mut IdSource) -> SimDisk {
        self.faults.dead.store(true, SeqCst);
        let left = SimDisk::default();
        let mut names = lock(&self.names);
        // A journal keeps the order of a folder's changes.
        let kept = chance.below(names.unsynced.len() as u64 + 1) as usize;
        let changes: Vec<NameChange> = names.unsynced.drain(..kept).collect();
        changes.into_iter().for_each(|change| take(&mut names.durable, change));
        let mut files = BTreeMap::new();
        for (path, file) in &names.durable {
            let bytes = lock(&file.bytes).after_power_cut(chance);
            let unsynced = Vec::new();
            let bytes = Bytes { seen: bytes.clone(), durable: bytes, unsynced };
            files
                .insert(path.clone(), Arc::new(SimFile { bytes: Mutex::new(bytes), faults: Arc::clone(&left.faults) }));
        }
        *lock(&left.names) = Names { seen: files.clone(), durable: files, unsynced: Vec::new() };
        left
    }

    fn change(&self, change: NameChange) -> io::Result<()> {
        self.faults.check()?;
        let mut names = lock(&self.names);
        take(&mut names.seen, change.clone());
        names.unsynced.push(change);
        Ok(())
    }
}

impl Bytes {
    fn after_power_cut(&self, chance: &mut IdSource) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, written) in &self.unsynced {
            for (number, sector) in written.chunks(SECTOR).enumerate() {
                if chance.below(2) == 0 {
                    put(&mut bytes, offset + number * SECTOR, sector);
                }
            }
        }
        bytes
    }
}

impl Faults {
    fn check(&self) -> io::Result<()> {
        if self.dead.load(SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn take(names: &mut BTreeMap<PathBuf, Arc<SimFile>>, change: NameChange) {
    match change {
        NameChange::Is(path, file) => drop(names.insert(path, file)),
        NameChange::Gone(path) => drop(names.remove(&path)),
        NameChange::Renamed(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

impl Disk for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.faults.check()?;
        let names = lock(&self.names);
        let names = names.seen.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.check()?;
        let names = lock(&self.names);
        Ok(Arc::clone(names.seen.get(path).ok_or(io::ErrorKind::NotFound)?) as Arc<dyn DiskFile>)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.faults.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = Arc::new(SimFile { bytes: Mutex::default(), faults: Arc::clone(&self.faults) });
        self.change(NameChange::Is(path.to_owned(), Arc::clone(&file)))?;
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = lock(&self.names).seen.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(NameChange::Renamed(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !lock(&self.names).seen.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(NameChange::Gone(path.to_owned()))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        self.faults.check()?;
        let changes = std::mem::take(&mut names.unsynced);
        changes.into_iter().for_each(|change| take(&mut names.durable, change));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.faults.check()?;
        Ok(lock(&self.bytes).seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.check()?;
        let bytes = lock(&self.bytes);
        let rest = bytes.seen.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        self.faults.check()?;
        let mut bytes = lock(&self.bytes);
        let grows = bytes.seen.len() < offset as usize + written.len();
        if grows && self.faults.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut bytes.seen, offset as usize, written);
        bytes.unsynced.push((offset as usize, written.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let slow = self.faults.sync_ms.load(SeqCst);
        if slow > 0 {
            std::thread::sleep(Duration::from_millis(slow));
        }
        let mut bytes = lock(&self.bytes);
        // Under the lock: what a power cut did not take with it must not count as synced.
        self.faults.check()?;
        if self.faults.syncs_fail.load(SeqCst) {
            // What a kernel does: the pages count as clean, and what they held may be gone.
            return Err(io::Error::from_raw_os_error(5));
        }
        bytes.unsynced.clear();
        bytes.durable = bytes.seen.clone();
        Ok(())
    }
}
