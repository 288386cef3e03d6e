//! `init: true`: process 1 reaps orphans and passes signals on; the command runs as its child.
//! It is the container's first process itself, not a second program: the sealed keeper image holds this code already,
//! nothing has to be mounted into the container, and no file of ours is there to be overwritten (CVE-2019-5736).

use std::os::fd::AsFd;

use rustix::process::{Pid, WaitOptions};

use crate::failure::{Failure, Step};
use crate::sys;
use crate::sys::process::Fork;

/// Forks; returns in the child, which becomes the command. The parent stays until the command ends.
pub fn split() -> Result<(), Failure> {
    let all: Vec<i32> = (1..=64).collect();
    sys::signal::block(&all);
    match sys::process::fork().step("init", || "failed to fork the command from its init".to_owned())? {
        Fork::Child => {
            lead_the_terminal();
            Ok(())
        }
        Fork::Parent(command) => reap_until(command, &all),
    }
}

/// The command gets a process group of its own, in the foreground of the terminal if there is one.
fn lead_the_terminal() {
    // A fresh child can always lead a group; without a terminal there is no foreground.
    let _ = rustix::process::setpgid(None, None);
    if rustix::termios::isatty(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin().as_fd(), rustix::process::getpid());
    }
}

fn reap_until(command: Pid, all: &[i32]) -> ! {
    // Best effort: the name is for `ps`, and descriptors that stay open would only keep pipes alive longer.
    let _ = rustix::thread::set_name(c"docker-init");
    let _ = sys::process::close_all_from_3();
    loop {
        match sys::signal::wait_for(all) {
            libc::SIGCHLD => {
                while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                    if pid == command {
                        sys::process::exit_now(crate::warden::exit_code(status));
                    }
                }
            }
            // Not ours to pass on: they come from the terminal, for whom the foreground group gets its own.
            libc::SIGTTIN | libc::SIGTTOU => {}
            // The command may be gone already; its SIGCHLD is on the way.
            signal => _ = sys::signal::send_to_child(command.as_raw_nonzero().get(), signal),
        }
    }
}
