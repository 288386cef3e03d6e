//! Zero-filled files that stand ready to become segments.
//!
//! Overwriting blocks that were written before costs one flush; growing a file costs two and the
//! journal. So the writer takes a spare when a segment is full, purged segments become spares, and
//! a thread of its own fills new ones. The spares are also the reserve for a full disk.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::WalError;
use super::disk::Disk;
use super::segment::fill_zero;

const PREFIX: &str = "spare-";
/// The name of a spare while it is filled; worthless after a crash.
pub(crate) const UNFINISHED: &str = "filling";

/// How many spares to have ready. More than this come only from purges, and are removed.
const READY: usize = 2;
const MOST: usize = 8;

/// Whether the name is that of a finished spare.
pub(crate) fn is_spare(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The spares of a folder, and the thread that makes more.
pub(crate) struct Spares {
    shared: Arc<Shared>,
    wanted: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    size: u64,
    ready: Mutex<Ready>,
}

#[derive(Default)]
struct Ready {
    names: Vec<String>,
    /// For names that were not used yet in this run.
    next: u64,
}

impl Spares {
    /// Takes over the spares that are there; ones of another size are removed.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, size: u64, found: Vec<String>) -> Result<Spares, WalError> {
        let mut ready = Ready::default();
        for name in found {
            let path = dir.join(&name);
            let number = name[PREFIX.len()..].parse::<u64>().unwrap_or(0);
            ready.next = ready.next.max(number + 1);
            let file = disk.open(&path).map_err(WalError::io("open", &path))?;
            if file.size().map_err(WalError::io("measure", &path))? == size {
                ready.names.push(name);
            } else {
                disk.remove(&path).map_err(WalError::io("remove", &path))?;
            }
        }
        let shared = Arc::new(Shared { disk: Arc::clone(disk), dir: dir.to_owned(), size, ready: Mutex::new(ready) });
        let (wanted, requests) = mpsc::channel();
        let filler = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("wal-spares".to_owned())
            .spawn(move || filler.fill(&requests))
            .map_err(WalError::io("start the thread that fills", dir))?;
        Ok(Spares { shared, wanted: Some(wanted), thread: Some(thread) })
    }

    /// A spare's path, if one is ready.
    pub(crate) fn take(&self) -> Option<PathBuf> {
        let name = self.shared.ready().names.pop()?;
        Some(self.shared.dir.join(name))
    }

    /// Asks for as many as should be ready; does not wait.
    pub(crate) fn refill(&self) {
        if let Some(wanted) = &self.wanted
            && self.count() < READY
        {
            // The thread ends only when this sender does, so the send cannot fail.
            wanted.send(()).ok();
        }
    }

    /// How many are ready.
    pub(crate) fn count(&self) -> usize {
        self.shared.ready().names.len()
    }

    /// Makes a file that is no longer needed a spare. The caller syncs the folder.
    pub(crate) fn recycle(&self, path: &Path, size: u64) -> Result<(), WalError> {
        let disk = &self.shared.disk;
        let mut ready = self.shared.ready();
        if size != self.shared.size || ready.names.len() >= MOST {
            return disk.remove(path).map_err(WalError::io("remove", path));
        }
        let name = ready.new_name();
        let to = self.shared.dir.join(&name);
        disk.rename(path, &to).map_err(WalError::io("rename a segment to", &to))?;
        ready.names.push(name);
        Ok(())
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fills spare log segments panicked");
        }
    }
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, requests: &Receiver<()>) {
        while requests.recv().is_ok() {
            while self.ready().names.len() < READY {
                if let Err(error) = self.make() {
                    // The log goes on with what it has; the writer fails only when it needs room.
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot prepare a log segment: the reserve for a full disk is not complete"
                    );
                    break;
                }
            }
        }
    }

    fn make(&self) -> Result<(), WalError> {
        let unfinished = self.dir.join(UNFINISHED);
        let file = self.disk.create(&unfinished).map_err(WalError::io("create", &unfinished))?;
        fill_zero(&*file, 0, self.size).map_err(WalError::io("fill with zeros", &unfinished))?;
        file.sync().map_err(WalError::io("sync", &unfinished))?;
        let name = self.ready().new_name();
        let to = self.dir.join(&name);
        self.disk.rename(&unfinished, &to).map_err(WalError::io("rename a spare to", &to))?;
        self.ready().names.push(name);
        Ok(())
    }
}

impl Ready {
    fn new_name(&mut self) -> String {
        self.next += 1;
        format!("{PREFIX}{}", self.next - 1)
    }
}
