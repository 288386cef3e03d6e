//! What runs between clone and exec: the container's first process, and exec sessions.
//!
//! These are forks of a warden, which has one thread; so ordinary Rust is legal here, and the container's own
//! user files can be read at the only moment when that is possible. Every outcome goes to the warden over a
//! SEQPACKET socket that closes on exec: its end of file is the proof that the command runs.

mod copy_up;
mod dev;
mod exec;
mod filesystem;
mod guard;
mod init;
mod lookup;
mod mounts;
mod process;
mod reaper;
mod root;
mod rootfs;

use std::os::fd::{AsFd, OwnedFd};

pub use exec::{ExecChild, run as run_exec};
pub use init::{InitChild, run as run_init};

use crate::failure::Failure;
use crate::sys;
use crate::wire::{self, ChildMessage, ChildOrder};

/// Standard streams of a new process.
#[derive(Debug)]
pub enum Stdio {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal from the container's own devpts, made by the child.
    Terminal,
}

/// The child's end of the socket to its warden.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    pub fn new(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// Waits for the warden's next word; ends this process if the warden is gone.
    fn wait_for_order(&self) -> ChildOrder {
        match wire::receive(&self.0) {
            Ok(Some((order, _))) => order,
            Ok(None) | Err(_) => sys::process::exit_now(1),
        }
    }

    fn tell(&self, message: &ChildMessage) {
        if wire::send(&self.0, message, &[]).is_err() {
            sys::process::exit_now(1);
        }
    }

    fn send_terminal(&self, master: &OwnedFd) {
        if wire::send(&self.0, &ChildMessage::Terminal, &[master.as_fd()]).is_err() {
            sys::process::exit_now(1);
        }
    }

    /// Tells the warden and ends this process.
    pub fn fail(&self, failure: Failure) -> ! {
        let exit_code = failure.exit_code;
        self.tell(&ChildMessage::Failed(failure));
        sys::process::exit_now(exit_code)
    }
}

/// What both kinds of child do first: nobody may look into this process, and it belongs to no old session.
fn leave_the_warden() {
    // Neither can fail for a fresh child: DUMPABLE takes 0, and a child leads no process group.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::empty());
    // Quota or a kernel without keyrings must not stop a container; Docker goes on as well.
    let _ = sys::namespace::new_session_keyring();
}

fn write_oom_score_adj(value: i32) -> Result<(), Failure> {
    use crate::failure::Step;
    std::fs::write("/proc/self/oom_score_adj", value.to_string())
        .step("process", || format!("failed to set oom_score_adj to {value}"))
}

/// Puts pipes onto 0, 1 and 2.
fn install_pipes(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), Failure> {
    use crate::failure::Step;
    let what = || "failed to connect the standard streams".to_owned();
    rustix::stdio::dup2_stdin(stdin).step("stdio", what)?;
    rustix::stdio::dup2_stdout(stdout).step("stdio", what)?;
    rustix::stdio::dup2_stderr(stderr).step("stdio", what)
}

/// Puts a terminal onto 0, 1 and 2 and makes it the controlling one.
fn install_terminal(slave: &OwnedFd) -> Result<(), Failure> {
    use crate::failure::Step;
    install_pipes(slave, slave, slave)?;
    rustix::process::ioctl_tiocsctty(slave).step("stdio", || "failed to take the controlling terminal".to_owned())
}
