//! The wardens that a keeper knows: a pidfd to each, own children and adopted ones alike.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open};

use crate::recovery;
use crate::run_dir::{self, RunDir};

#[derive(Debug)]
struct Known {
    id: String,
    pidfd: OwnedFd,
}

#[derive(Debug)]
pub struct Wardens(Vec<Known>);

impl Wardens {
    /// Finds the wardens of an earlier keeper by their sockets, and ends containers that have none any more.
    pub fn adopt(run_dir: &RunDir) -> Wardens {
        let mut wardens = Wardens(Vec::new());
        run_dir.sweep();
        let ids = match run_dir.ids() {
            Ok(ids) => ids,
            Err(error) => {
                eprintln!("skep-keeper: failed to read the run folder: {error}");
                return wardens;
            }
        };
        for id in ids {
            // The pidfd is opened while the connection stands, so the number still means the process that listens.
            let found = run_dir::connect(&run_dir.container(&id), run_dir::CONTROL_SOCKET)
                .and_then(|(_connection, pid)| Ok(pidfd_open(pid, PidfdFlags::empty())?));
            match found {
                Ok(pidfd) => wardens.0.push(Known { id, pidfd }),
                Err(_) => end(run_dir, &id),
            }
        }
        wardens
    }

    /// A child that was just forked, so its number cannot have been reused.
    pub fn add(&mut self, id: String, pid: Pid) {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => self.0.push(Known { id, pidfd }),
            Err(errno) => eprintln!("skep-keeper: failed to watch the supervisor of `{id}`: {errno}"),
        }
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|known| known.id == id)
    }

    /// No longer watches a warden that has nothing left to look after.
    pub fn forget(&mut self, id: &str) {
        self.0.retain(|known| known.id != id);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn pidfds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|known| known.pidfd.as_fd())
    }

    /// Forgets those whose pidfd is `ready`, which means dead, and reaps every child.
    /// A warden that ended in order has removed its run folder; one that has not is lost.
    pub fn bury(&mut self, ready: &[bool], run_dir: &RunDir) {
        for index in (0..ready.len()).rev().filter(|index| ready[*index]) {
            let dead = self.0.swap_remove(index);
            if run_dir.container(&dead.id).exists() {
                end(run_dir, &dead.id);
            }
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

fn end(run_dir: &RunDir, id: &str) {
    match recovery::end_lost(run_dir, id) {
        Ok(()) => eprintln!("skep-keeper: container `{id}`: {}", recovery::SUPERVISOR_LOST),
        Err(failure) => eprintln!("skep-keeper: failed to end the lost container `{id}`: {failure}"),
    }
}
