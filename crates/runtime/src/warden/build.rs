//! From a plan to a container that waits behind its gate; or, on failure, to nothing at all.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::WaitOptions;

use super::lease::Lease;
use super::output::Output;
use super::streams::{self, OurEnds};
use super::{Membership, Warden, raw};
use crate::cgroup::{self, Cgroup, CgroupHost};
use crate::child::{self, Channel, InitChild};
use crate::failure::{Failure, Step};
use crate::logs::Stream;
use crate::plan::{Network, Plan, Sharing};
use crate::recovery::cgroup_failure;
use crate::run_dir::{self, RunDir};
use crate::sys;
use crate::sys::process::{Fork, Spawned};
use crate::wire::{self, ChildMessage, State};

/// Makes it; also returns what the user should be told although it works.
pub fn build(run_dir: RunDir, id: &str, plan: &OwnedFd) -> Result<(Warden, Vec<String>), Failure> {
    let bytes = wire::read_all(plan).step("plan", || "failed to read the plan".to_owned())?;
    let plan = Plan::decode(&bytes)?;
    if plan.id != id {
        return Err(Failure::new("plan", format!("the plan is of container `{}`, not of `{id}`", plan.id)));
    }
    let listener = make_folder(&run_dir, id, &bytes)?;
    let folder = run_dir.container(id);
    drop(bytes);
    let built = build_container(run_dir, &plan, listener);
    if built.is_err() {
        // The failure is what the user needs; a folder that stays is found, and removed, as lost.
        let _ = std::fs::remove_dir_all(folder);
    }
    built
}

/// The run folder appears complete, with its socket: whoever sees it can connect.
fn make_folder(run_dir: &RunDir, id: &str, plan: &[u8]) -> Result<OwnedFd, Failure> {
    let folder = run_dir.container(id);
    if folder.exists() {
        return Err(Failure::new("run folder", format!("container `{id}` exists already")));
    }
    let new = run_dir.unfinished(id);
    let what = || format!("failed to make the run folder `{}`", folder.display());
    std::fs::create_dir(&new).step("run folder", what)?;
    std::fs::write(new.join("plan"), plan).step("run folder", what)?;
    let listener = run_dir::listen(&new, run_dir::CONTROL_SOCKET).step("run folder", what)?;
    match rustix::fs::rename(&new, &folder) {
        Ok(()) => Ok(listener),
        Err(errno) => {
            // Another warden was faster with the same name, or the disk is full: nothing of this attempt may stay.
            let _ = std::fs::remove_dir_all(&new);
            Err(errno).step("run folder", what)
        }
    }
}

fn build_container(run_dir: RunDir, plan: &Plan, listener: OwnedFd) -> Result<(Warden, Vec<String>), Failure> {
    let host = CgroupHost::detect().map_err(cgroup_failure)?;
    let output = Output::open(&plan.log)?;
    let lease = plan.lease.as_ref().map(Lease::new).transpose();
    let lease = lease.step("lease", || "failed to make the lease's timer".to_owned())?;
    let cgroup = host.create(&plan.cgroup.parent, &plan.id, &plan.cgroup.limits).map_err(cgroup_failure)?;
    let warnings = cgroup.unenforced().iter().map(ToString::to_string).collect();
    let started = Starter { plan, host: &host, cgroup: &cgroup }.start(output);
    let started = match started {
        Ok(started) => started,
        Err(failure) => {
            // Its processes are gone; an empty cgroup that stays is replaced by the next one of its name.
            let _ = cgroup.remove();
            return Err(failure);
        }
    };
    let Started { init, gate, output, ours, terminal, signals } = started;
    let mut warden = Warden {
        run_dir,
        id: plan.id.clone(),
        state: State::Created { pid: raw(init.pid) },
        init,
        gate: Some(gate),
        cgroup,
        output,
        stdin: ours.stdin,
        terminal,
        stop_signal: plan.stop_signal.number(),
        stop_asked: false,
        lease,
        pid_sharing: plan.pid,
        listener,
        signals,
        connections: Vec::new(),
        sessions: Vec::new(),
        sessions_made: 0,
        released: false,
    };
    warden.set_state(warden.state.clone());
    Ok((warden, warnings))
}

struct Starter<'p> {
    plan: &'p Plan,
    host: &'p CgroupHost,
    cgroup: &'p Cgroup,
}

struct Started {
    init: Spawned,
    gate: OwnedFd,
    output: Output,
    ours: OurEnds,
    terminal: Option<OwnedFd>,
    signals: OwnedFd,
}

impl Starter<'_> {
    /// Clones the first process and brings it to its gate, or leaves no process behind.
    fn start(&self, mut output: Output) -> Result<Started, Failure> {
        let what = || "failed to start the container's first process".to_owned();
        let signals = sys::signal::descriptor(&[libc::SIGCHLD]).step("clone", what)?;
        let (stdio, mut ours) = streams::make(self.plan.tty, self.plan.open_stdin).step("stdio", what)?;
        let (gate, theirs) = streams::channel().step("clone", what)?;
        let netns = self.open_netns()?;
        let membership = Membership::of(self.cgroup)?;
        let forked = sys::process::clone_into(self.namespaces(), membership.birthplace()).step("clone", what)?;
        let init = match forked {
            Fork::Parent(spawned) => spawned,
            Fork::Child => {
                drop(gate);
                child::run_init(InitChild {
                    plan: self.plan,
                    stdio,
                    channel: Channel::new(theirs),
                    netns,
                    membership,
                    cgroup_v2: self.host.mode() == cgroup::Mode::V2,
                })
            }
        };
        drop((stdio, theirs, netns, membership));
        let mut finish = || -> Result<Option<OwnedFd>, Failure> {
            let terminal = await_ready(&gate)?;
            for (stream, fd) in [(Stream::Stdout, ours.stdout.take()), (Stream::Stderr, ours.stderr.take())] {
                if let Some(fd) = fd {
                    output.add(stream, fd).step("stdio", what)?;
                }
            }
            if let Some(terminal) = &terminal {
                let copy = terminal.try_clone().step("stdio", what)?;
                output.add(Stream::Stdout, copy).step("stdio", what)?;
            }
            Ok(terminal)
        };
        match finish() {
            Ok(terminal) => Ok(Started { init, gate, output, ours, terminal, signals }),
            Err(failure) => {
                // It may have ended by itself; what matters is that it is reaped before its cgroup is removed.
                let _ = sys::signal::send(init.pidfd.as_fd(), libc::SIGKILL);
                let _ = rustix::process::waitpid(Some(init.pid), WaitOptions::empty());
                Err(failure)
            }
        }
    }

    fn namespaces(&self) -> libc::c_int {
        let mut kinds = libc::CLONE_NEWNS;
        if self.plan.pid == Sharing::Private {
            kinds |= libc::CLONE_NEWPID;
        }
        if self.plan.ipc == Sharing::Private {
            kinds |= libc::CLONE_NEWIPC;
        }
        if self.plan.hostname.is_some() {
            kinds |= libc::CLONE_NEWUTS;
        }
        if self.plan.network == Network::New {
            kinds |= libc::CLONE_NEWNET;
        }
        kinds
    }

    fn open_netns(&self) -> Result<Option<OwnedFd>, Failure> {
        let Network::Path(path) = &self.plan.network else { return Ok(None) };
        let open = |path: &Path| rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        open(path).map(Some).step("network", || format!("failed to open the network namespace `{}`", path.display()))
    }
}

/// The terminal, if it made one, once everything before the command is done.
fn await_ready(gate: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    let mut terminal = None;
    loop {
        match wire::receive::<ChildMessage>(gate) {
            Ok(Some((ChildMessage::Ready, _))) => return Ok(terminal),
            Ok(Some((ChildMessage::Terminal, descriptors))) => terminal = descriptors.into_iter().next(),
            Ok(Some((ChildMessage::Failed(failure), _))) => return Err(failure),
            Ok(None) | Err(_) => return Err(died()),
        }
    }
}

/// Without a word: killed from outside, most likely for want of memory.
fn died() -> Failure {
    let message = "the container's first process was killed while it was set up: is its memory limit too small?";
    Failure::new("clone", message.to_owned())
}
