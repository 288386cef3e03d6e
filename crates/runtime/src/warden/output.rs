//! From the container's standard streams to its log file.
//! A log that cannot be written (a full disk) loses lines, counted and told once; it never blocks the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::io::Errno;

use crate::failure::Failure;
use crate::logs::{Stream, Writer};
use crate::plan::LogPlan;

/// The kernel hands out at most a pipe's worth at once; this much is enough to keep up.
const READ_BYTES: usize = 16 << 10;

pub struct Output {
    sources: Vec<(Stream, OwnedFd)>,
    writer: Option<Writer>,
    told_of_loss: bool,
    path: PathBuf,
}

impl Output {
    pub fn open(plan: &LogPlan) -> Result<Output, Failure> {
        let writer = Writer::open(&plan.path, plan.rotation).map_err(|error| {
            Failure::new("log", format!("failed to open the log `{}`: {error}", plan.path.display()))
        })?;
        Ok(Output { sources: Vec::new(), writer: Some(writer), told_of_loss: false, path: plan.path.clone() })
    }

    /// Reads from `fd` from now on, without ever waiting for it.
    pub fn add(&mut self, stream: Stream, fd: OwnedFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        self.sources.push((stream, fd));
        Ok(())
    }

    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().map(|(_, fd)| fd.as_fd())
    }

    /// One read from each source that is `ready`.
    pub fn pump(&mut self, ready: &[bool]) {
        let mut buffer = [0u8; READ_BYTES];
        for index in (0..self.sources.len()).rev() {
            if ready.get(index) == Some(&true) {
                self.read_one(index, &mut buffer);
            }
        }
    }

    /// Everything that is still in the pipes, and unfinished lines, to the file. For after the last process's death.
    pub fn drain(&mut self) {
        let mut buffer = [0u8; READ_BYTES];
        for index in (0..self.sources.len()).rev() {
            while self.read_one(index, &mut buffer) {}
        }
        if let Some(writer) = &mut self.writer {
            writer.flush();
        }
    }

    pub fn close(&mut self) {
        self.sources.clear();
        self.writer = None;
    }

    /// True if there may be more. A source that ended is dropped (a terminal ends with EIO).
    fn read_one(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        match rustix::io::read(&self.sources[index].1, &mut *buffer) {
            Ok(0) => {}
            Ok(read) => {
                let stream = self.sources[index].0;
                self.write(stream, &buffer[..read]);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            Err(_) => {}
        }
        self.sources.swap_remove(index);
        false
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(writer) = &mut self.writer else { return };
        writer.write(stream, bytes, SystemTime::now());
        if writer.dropped_bytes() > 0 && !self.told_of_loss {
            self.told_of_loss = true;
            eprintln!("skep-warden: log lines are lost, `{}` cannot be written", self.path.display());
        }
    }
}
