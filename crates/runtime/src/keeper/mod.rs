//! The keeper: a small single-threaded process, one per node, that forks a warden for each container.
//!
//! It is the wardens' parent and subreaper: when one dies before its container is released, the keeper kills what is
//! left and writes the container down as lost. It holds no container's streams or state, so that its own death costs
//! nothing: the next keeper finds the wardens by their sockets. It outlives the daemon that started it.

mod daemonize;
mod wardens;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};

use crate::failure::Failure;
use crate::plan::is_valid_id;
use crate::run_dir::{self, RunDir};
use crate::sys;
use crate::sys::process::Fork;
use crate::warden::{self, Order};
use crate::wire::{self, KeeperReply, KeeperRequest, WireError};

use wardens::Wardens;

/// Exit code of a keeper that found another one alive.
pub const ALREADY_RUNNING: u8 = 3;

/// The whole program: `skep-keeper RUN_DIR CGROUP_PARENT`.
/// Returns in the process that was started, when the keeper serves in the background or cannot.
pub fn main(arguments: Vec<String>) -> ExitCode {
    // Whatever the starter leaked would otherwise stay open in every warden.
    if let Err(errno) = sys::process::close_all_from_3() {
        eprintln!("failed to close inherited descriptors: {errno}");
        return ExitCode::FAILURE;
    }
    // Signals that the starter ignored or blocked, SIGCHLD above all, and its umask would hold for every container.
    sys::signal::reset_all();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let [run_dir, cgroup_parent] = arguments.as_slice() else {
        eprintln!("usage: skep-keeper RUN_DIR CGROUP_PARENT (started by `skep daemon`)");
        return ExitCode::from(2);
    };
    let run_dir = RunDir::new(run_dir);
    match daemonize::prepare(&run_dir, cgroup_parent) {
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
        Ok(None) => ExitCode::from(ALREADY_RUNNING),
        Ok(Some(prepared)) => match daemonize::into_background(&run_dir) {
            Ok(Fork::Parent(_)) => ExitCode::SUCCESS,
            Ok(Fork::Child) => serve(run_dir, prepared),
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        },
    }
}

/// What the keeper holds while it serves; a warden drops all of it right after the fork.
struct Keeper {
    run_dir: RunDir,
    prepared: daemonize::Prepared,
    connections: Vec<OwnedFd>,
    wardens: Wardens,
}

/// What one round of the loop led to.
enum Next {
    Continue,
    /// We are the fork: become a warden.
    BecomeWarden(Order),
    Stop,
}

fn serve(run_dir: RunDir, prepared: daemonize::Prepared) -> ! {
    let wardens = Wardens::adopt(&run_dir);
    let mut keeper = Keeper { run_dir, prepared, connections: Vec::new(), wardens };
    loop {
        match keeper.wait_for_events() {
            Next::Continue => {}
            Next::BecomeWarden(order) => {
                drop(keeper);
                warden::run(order)
            }
            Next::Stop => {
                // Whoever connects from now on gets a refusal instead of silence.
                let _ = std::fs::remove_file(keeper.run_dir.path().join(run_dir::KEEPER_SOCKET));
                sys::process::exit_now(0)
            }
        }
    }
}

impl Keeper {
    fn wait_for_events(&mut self) -> Next {
        let mut fds = vec![
            PollFd::new(&self.prepared.signals, PollFlags::IN),
            PollFd::new(&self.prepared.listener, PollFlags::IN),
        ];
        fds.extend(self.connections.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.wardens.pidfds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        if rustix::event::poll(&mut fds, None).is_err() {
            return Next::Continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (connections, wardens) = ready[2..].split_at(self.connections.len());

        if ready[0] {
            sys::signal::drain(self.prepared.signals.as_fd());
        }
        self.wardens.bury(wardens, &self.run_dir);
        let asking: Vec<usize> = (0..connections.len()).rev().filter(|index| connections[*index]).collect();
        for index in asking {
            match self.serve_connection(index) {
                Next::Continue => {}
                next => return next,
            }
        }
        if ready[1]
            && let Some(connection) = run_dir::accept(&self.prepared.listener)
        {
            self.connections.push(connection);
        }
        Next::Continue
    }

    /// A connection carries pings, or one creation: its warden answers that one and takes the connection along.
    fn serve_connection(&mut self, index: usize) -> Next {
        let received = wire::receive::<KeeperRequest>(&self.connections[index]);
        let (reply, next) = match received {
            Ok(Some((KeeperRequest::Ping, _))) => (KeeperReply::Alive { pid: own_pid() }, Next::Continue),
            Ok(Some((KeeperRequest::Create { id }, descriptors))) => match self.create(index, id, descriptors) {
                Ok(next) => return next,
                Err(failure) => (KeeperReply::Failed(failure), Next::Continue),
            },
            Ok(Some((KeeperRequest::Stop, _))) => match self.wardens.count() {
                0 => (KeeperReply::Stopping, Next::Stop),
                count => {
                    let message = format!("the keeper cannot stop while it looks after {count} containers");
                    (KeeperReply::Failed(Failure::new("stop", message)), Next::Continue)
                }
            },
            Err(WireError::Socket(rustix::io::Errno::AGAIN)) => return Next::Continue,
            Ok(None) | Err(WireError::Socket(_)) => {
                self.connections.swap_remove(index);
                return Next::Continue;
            }
            Err(error) => {
                let failure = Failure::new("request", format!("the running keeper is of another version: {error}"));
                (KeeperReply::Failed(failure), Next::Continue)
            }
        };
        if wire::send(&self.connections[index], &reply, &[]).is_err() {
            self.connections.swap_remove(index);
        }
        next
    }

    fn create(&mut self, index: usize, id: String, descriptors: Vec<OwnedFd>) -> Result<Next, Failure> {
        if !is_valid_id(&id) {
            return Err(Failure::new("plan", format!("invalid container id `{id}`")));
        }
        if self.wardens.has(&id) {
            if self.run_dir.container(&id).exists() {
                return Err(Failure::new("plan", format!("container `{id}` exists already")));
            }
            // Its warden has told the end already and is only still on its way out.
            self.wardens.forget(&id);
        }
        let Some(plan) = descriptors.into_iter().next() else {
            return Err(Failure::new("plan", "the request came without its plan".to_owned()));
        };
        let fork = sys::process::fork()
            .map_err(|errno| Failure::errno("clone", "failed to start the container's supervisor", errno))?;
        let connection = self.connections.swap_remove(index);
        match fork {
            Fork::Child => Ok(Next::BecomeWarden(Order { run_dir: self.run_dir.clone(), id, plan, connection })),
            Fork::Parent(pid) => {
                self.wardens.add(id, pid);
                Ok(Next::Continue)
            }
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
