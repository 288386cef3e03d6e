//! The container's first process: from a bare clone to the command behind its gate.

use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::mounts::{self, Opened};
use super::process::{Gate, Process, become_process, environment};
use super::root::Root;
use super::{Channel, Stdio, dev, filesystem, guard, install_pipes, install_terminal, leave_the_warden, rootfs};
use crate::failure::{Failure, Step};
use crate::plan::{CgroupNamespace, Network, Plan};
use crate::sys;
use crate::sys::mount::Depth;
use crate::warden::Membership;

#[derive(Debug)]
pub struct InitChild<'p> {
    pub plan: &'p Plan,
    pub stdio: Stdio,
    pub channel: Channel,
    pub membership: Membership,
    /// The namespace to join, opened by the warden; `None` for the host's or one that clone made.
    pub netns: Option<OwnedFd>,
    /// Whether this kernel's cgroups are v2 alone, where Docker's default is a namespace of one's own.
    pub cgroup_v2: bool,
}

/// Runs in the clone; never returns.
pub fn run(child: InitChild<'_>) -> ! {
    leave_the_warden();
    let failure = match set_up(&child) {
        Ok(()) => become_process(command(child.plan), &child.channel),
        Err(failure) => failure,
    };
    child.channel.fail(failure)
}

fn command(plan: &Plan) -> Process<'_> {
    let hostname = match &plan.hostname {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    Process {
        argv: &plan.argv,
        env: environment(&[&plan.env], &hostname, plan.tty),
        cwd: &plan.cwd,
        create_cwd: true,
        user: &plan.user,
        groups: &plan.groups,
        rlimits: &plan.rlimits,
        capabilities: plan.capabilities,
        seccomp: &plan.seccomp,
        no_new_privileges: plan.no_new_privileges,
        privileged: plan.privileged,
        gate: Gate::Closed,
        reaper: plan.init,
        dies_with_warden: plan.lease.is_some(),
    }
}

fn set_up(child: &InitChild<'_>) -> Result<(), Failure> {
    let plan = child.plan;
    child.membership.join()?;
    super::write_oom_score_adj(plan.oom_score_adj)?;
    set_up_namespaces(child)?;
    let sources = mounts::open_sources(plan)?;
    let root = build_root(plan, &sources)?;
    if let Stdio::Pipes { stdin, stdout, stderr } = &child.stdio {
        install_pipes(stdin, stdout, stderr)?;
    } else {
        let (master, slave) = dev::open_terminal(&root)?;
        dev::mount_console(&root, &slave)?;
        child.channel.send_terminal(&master);
        install_terminal(&slave)?;
    }
    enter_root(&root)?;
    drop(root);

    let root = Root::open(std::path::Path::new("/")).step("rootfs", || "failed to open the root".to_owned())?;
    guard::write_sysctls(&plan.network, &plan.sysctls)?;
    if !plan.privileged {
        guard::make_paths_read_only(&root, &plan.read_only_paths)?;
        guard::mask(&root, &plan.masked_paths)?;
    }
    // Docker creates the working directory even in a root that the container then cannot write to.
    root.ensure_dir(&plan.cwd).step("cwd", || format!("failed to make the working directory `{}`", plan.cwd))?;
    if plan.rootfs.read_only {
        filesystem::make_read_only(root.fd(), Depth::This)
            .step("rootfs", || "failed to make the root read-only".to_owned())?;
    }
    Ok(())
}

fn set_up_namespaces(child: &InitChild<'_>) -> Result<(), Failure> {
    let plan = child.plan;
    if let Some(netns) = &child.netns {
        sys::namespace::enter(netns.as_fd(), libc::CLONE_NEWNET)
            .step("network", || "failed to join the network namespace".to_owned())?;
    }
    if plan.network == Network::New {
        sys::net::loopback_up().step("network", || "failed to set the loopback device up".to_owned())?;
    }
    // Now, not at clone: on v1 this process joined its cgroup only a moment ago, and the namespace's root is where it is.
    let private = match plan.cgroup_namespace {
        CgroupNamespace::Default => child.cgroup_v2,
        CgroupNamespace::Private => true,
        CgroupNamespace::Host => false,
    };
    if private {
        sys::namespace::unshare(libc::CLONE_NEWCGROUP)
            .step("cgroup", || "failed to make a cgroup namespace".to_owned())?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .step("hostname", || format!("failed to set the hostname `{name}`"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .step("hostname", || format!("failed to set the domainname `{name}`"))?;
    }
    Ok(())
}

/// Everything that is mounted in the container, below `merged`.
fn build_root(plan: &Plan, sources: &[Opened<'_>]) -> Result<Root, Failure> {
    // From here on nothing that this process mounts can reach the host. Slave, not private: volumes that the host
    // unmounts must not be kept busy by the copies that `pivot_root` is about to drop.
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    rustix::mount::mount_change("/", flags)
        .step("rootfs", || "failed to separate mounts from the host's".to_owned())?;
    let root = rootfs::mount_overlay(&plan.rootfs)?;
    rootfs::mount_system(&root, plan)?;
    dev::populate(&root, plan)?;
    mounts::attach_all(&root, sources)?;
    Ok(root)
}

/// Makes `root` the root of this mount namespace and drops the host's whole tree from it.
fn enter_root(root: &Root) -> Result<(), Failure> {
    let what = || "failed to enter the container's root".to_owned();
    rustix::process::fchdir(root.fd()).step("rootfs", what)?;
    // With both arguments the same folder the old root ends up stacked on the new one, and needs no folder of its own.
    rustix::process::pivot_root(".", ".").step("rootfs", what)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("rootfs", what)?;
    rustix::process::chdir("/").step("rootfs", what)
}
