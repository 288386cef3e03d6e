//! How a new process gets into the container's cgroups without stopping the whole machine.
//!
//! Moving another process takes a lock that every fork and exit on the machine reads, and taking it waits for an RCU
//! grace period: 5 to 15 ms here. Two ways around it need no such lock: being born into a cgroup (v2, CLONE_INTO_CGROUP),
//! and a single thread moving itself (v1, `0` into `tasks`; Linux 5.18). So the child moves itself, before anything else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};

use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};

#[derive(Debug)]
pub struct Membership {
    /// `tasks` of each v1 hierarchy.
    v1: Vec<PathBuf>,
    v2: Option<OwnedFd>,
}

impl Membership {
    pub fn of(cgroup: &Cgroup) -> Result<Membership, Failure> {
        let mut membership = Membership { v1: Vec::new(), v2: None };
        for folder in cgroup.paths() {
            let tasks = folder.join("tasks");
            if tasks.exists() {
                membership.v1.push(tasks);
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())
                .step("cgroup", || format!("failed to open the cgroup `{}`", folder.display()))?;
            membership.v2 = Some(folder);
        }
        Ok(membership)
    }

    /// What the child is to be cloned into.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(OwnedFd::as_fd)
    }

    /// In the child: the rest.
    pub fn join(&self) -> Result<(), Failure> {
        self.v1.iter().try_for_each(|tasks| {
            std::fs::write(tasks, "0").step("cgroup", || format!("failed to join the cgroup `{}`", tasks.display()))
        })
    }
}
