//! One more process in a running container: enter its namespaces, then the same last steps as its first process.
//! The PID namespace was entered by the warden before the clone, since it holds for children only.

use std::os::fd::{AsFd, OwnedFd};

use super::process::{Gate, Process, become_process, environment};
use super::root::Root;
use super::{Channel, Stdio, dev, install_pipes, install_terminal, leave_the_warden};
use crate::failure::{Failure, Step};
use crate::plan::{ExecPlan, Plan, Seccomp};
use crate::sys;
use crate::warden::Membership;

#[derive(Debug)]
pub struct ExecChild<'p> {
    /// The container's own plan.
    pub plan: &'p Plan,
    pub exec: &'p ExecPlan,
    pub stdio: Stdio,
    pub channel: Channel,
    pub membership: Membership,
    /// The container's first process.
    pub init: OwnedFd,
}

/// Runs in the clone; never returns.
pub fn run(child: ExecChild<'_>) -> ! {
    leave_the_warden();
    let failure = match enter(&child) {
        Ok(()) => become_process(command(&child), &child.channel),
        Err(failure) => failure,
    };
    child.channel.fail(failure)
}

fn command<'p>(child: &ExecChild<'p>) -> Process<'p> {
    let (plan, exec) = (child.plan, child.exec);
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let privileged = plan.privileged || exec.privileged;
    Process {
        argv: &exec.argv,
        env: environment(&[&plan.env, &exec.env], &hostname, exec.tty),
        cwd: exec.cwd.as_ref().unwrap_or(&plan.cwd),
        create_cwd: false,
        user: exec.user.as_ref().unwrap_or(&plan.user),
        groups: &plan.groups,
        rlimits: &plan.rlimits,
        capabilities: plan.capabilities,
        seccomp: if exec.privileged { &Seccomp::Unconfined } else { &plan.seccomp },
        no_new_privileges: plan.no_new_privileges,
        privileged,
        gate: Gate::Open,
        reaper: false,
        dies_with_warden: false,
    }
}

fn enter(child: &ExecChild<'_>) -> Result<(), Failure> {
    child.membership.join()?;
    super::write_oom_score_adj(child.plan.oom_score_adj)?;
    let kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;
    sys::namespace::enter(child.init.as_fd(), kinds).step("exec", || "failed to enter the container".to_owned())?;
    match &child.stdio {
        Stdio::Pipes { stdin, stdout, stderr } => install_pipes(stdin, stdout, stderr),
        Stdio::Terminal => {
            let root = Root::open(std::path::Path::new("/")).step("exec", || "failed to open the root".to_owned())?;
            let (master, slave) = dev::open_terminal(&root)?;
            child.channel.send_terminal(&master);
            install_terminal(&slave)
        }
    }
}
