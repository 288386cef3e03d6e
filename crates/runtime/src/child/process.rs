//! The last steps of both kinds of child: user, environment, working directory, privileges, and exec.
//!
//! The order is the point. Everything that needs privilege comes before they are dropped; the filter comes last but
//! for the final drop, since without no_new_privs installing it needs CAP_SYS_ADMIN; and a command that waits behind
//! the gate has already been found. After the filter only capset, execve and (on failure) sendmsg and exit are called.

use std::ffi::CString;

use rustix::fs::{FileType, Gid, OFlags, ResolveFlags, Uid, major, minor};
use rustix::io::Errno;
use rustix::process::Resource as KernelResource;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::root::Root;
use super::{Channel, lookup, reaper};
use crate::failure::{Failure, Step};
use crate::plan::{Resource, Rlimit, Seccomp};
use crate::seccomp::Instruction;
use crate::user::{self, ResolvedUser};
use crate::wire::ChildMessage;
use crate::{caps, defaults, sys};

/// A user file larger than this is not read: a container may not make its starter swallow gigabytes.
const USER_FILE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub struct Process<'p> {
    pub argv: &'p [String],
    pub env: Vec<String>,
    pub cwd: &'p str,
    pub create_cwd: bool,
    pub user: &'p str,
    pub groups: &'p [String],
    pub rlimits: &'p [Rlimit],
    pub capabilities: u64,
    pub seccomp: &'p Seccomp,
    pub no_new_privileges: bool,
    pub privileged: bool,
    pub gate: Gate,
    pub reaper: bool,
    /// Killed by the kernel when its warden ends, should nobody be there to do it.
    pub dies_with_warden: bool,
}

/// Whether the command waits for the warden's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Closed,
    Open,
}

/// Becomes the command. Returns only if that failed.
pub fn become_process(process: Process<'_>, channel: &Channel) -> Failure {
    match try_become(process, channel) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_become(process: Process<'_>, channel: &Channel) -> Result<std::convert::Infallible, Failure> {
    let root = Root::open(std::path::Path::new("/")).step("process", || "failed to open the root".to_owned())?;
    let user = resolve_user(&root, &process)?;
    own_stdio(&user)?;
    enter_cwd(&root, process.cwd, process.create_cwd)?;
    drop(root);
    for limit in process.rlimits {
        set_rlimit(limit)?;
    }
    sys::process::close_on_exec_from_3()
        .step("process", || "failed to close what the container must not get".to_owned())?;
    let mut env = process.env;
    if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", user.home));
    }

    let granted =
        rustix::thread::capabilities(None).step("capabilities", || "failed to read capabilities".to_owned())?;
    let wanted =
        if process.privileged { granted.permitted.bits() } else { process.capabilities & granted.permitted.bits() };
    let filter: Vec<libc::sock_filter> = match process.seccomp {
        Seccomp::Filter(filter) if !process.privileged => filter.iter().map(kernel_instruction).collect(),
        Seccomp::Filter(_) | Seccomp::Unconfined => Vec::new(),
    };
    let kept = if filter.is_empty() { wanted } else { wanted | (caps::SYS_ADMIN & granted.permitted.bits()) };
    become_user(&user, wanted, kept)?;
    let path = lookup::find(&process.argv[0], &env)?;
    let (path, argv, env) = (c_string(&path)?, c_strings(process.argv)?, c_strings(&env)?);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));

    if process.gate == Gate::Closed {
        channel.tell(&ChildMessage::Ready);
        channel.wait_for_order();
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step("process", || "failed to set no_new_privs".to_owned())?;
    }
    if !filter.is_empty() {
        sys::seccomp::install(&filter).step("seccomp", || "failed to install the system-call filter".to_owned())?;
    }
    set_capabilities(&user, wanted, 0)?;
    if process.dies_with_warden {
        // Not earlier: a change of user takes it back.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .step("process", || "failed to tie the container to its supervisor".to_owned())?;
    }
    if process.reaper {
        reaper::split()?;
    }
    sys::signal::reset_all();
    Err(lookup::exec_failure(&process.argv[0], sys::process::execve(&path, &argv, &env)))
}

/// Docker's additions, then `given` in order; a later value of a name replaces an earlier one where it stands, and a name
/// without a value takes it away.
pub fn environment(given: &[&[String]], hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={hostname}")];
    if tty {
        env.push(format!("TERM={}", defaults::TERM));
    }
    for entry in given.iter().flat_map(|list| list.iter()) {
        let name = entry.split('=').next().unwrap_or_default();
        let known = env.iter().position(|old| old.split('=').next() == Some(name));
        match (known, entry.contains('=')) {
            (Some(known), true) => env[known].clone_from(entry),
            (Some(known), false) => drop(env.remove(known)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn kernel_instruction(instruction: &Instruction) -> libc::sock_filter {
    let Instruction { code, jt, jf, k } = *instruction;
    libc::sock_filter { code, jt, jf, k }
}

fn resolve_user(root: &Root, process: &Process<'_>) -> Result<ResolvedUser, Failure> {
    let passwd = read_user_file(root, "/etc/passwd")?;
    let group = read_user_file(root, "/etc/group")?;
    user::resolve(process.user, &passwd, &group, process.groups)
        .map_err(|error| Failure::new("user", error.to_string()))
}

/// A regular file or nothing; an image without the file has no names.
fn read_user_file(root: &Root, path: &str) -> Result<Vec<u8>, Failure> {
    let what = || format!("failed to read `{path}` of the container");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = match root.open_at(path, flags, ResolveFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.step("user", what)?,
    };
    let stat = rustix::fs::fstat(&file).step("user", what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as usize > USER_FILE_BYTES_MAX {
        return Err(Failure::new("user", format!("{}: not a regular file of at most 16 MiB", what())));
    }
    crate::wire::read_all(&file).step("user", what)
}

/// Lets the user open /dev/stdout and the like again. /dev/null is the host's and stays as it is.
fn own_stdio(user: &ResolvedUser) -> Result<(), Failure> {
    let what = || "failed to give the user its standard streams".to_owned();
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let stat = rustix::fs::fstat(fd).step("stdio", what)?;
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
        if !is_null && stat.st_uid != user.uid {
            rustix::fs::fchown(fd, Some(Uid::from_raw(user.uid)), None).step("stdio", what)?;
        }
    }
    Ok(())
}

/// Enters the working directory and makes sure that it lies inside the container (CVE-2024-21626).
fn enter_cwd(root: &Root, cwd: &str, create: bool) -> Result<(), Failure> {
    let what = || format!("failed to enter the working directory `{cwd}`");
    let folder = if create { root.ensure_dir(cwd) } else { root.resolve(cwd) };
    rustix::process::fchdir(folder.step("cwd", what)?).step("cwd", what)?;
    let now = rustix::process::getcwd(Vec::new()).step("cwd", what)?;
    if now.as_bytes().first() != Some(&b'/') {
        return Err(Failure::new("cwd", format!("{}: it is outside the container", what())));
    }
    Ok(())
}

fn set_rlimit(limit: &Rlimit) -> Result<(), Failure> {
    let resource = match limit.resource {
        Resource::Core => KernelResource::Core,
        Resource::Cpu => KernelResource::Cpu,
        Resource::Data => KernelResource::Data,
        Resource::Fsize => KernelResource::Fsize,
        Resource::Locks => KernelResource::Locks,
        Resource::Memlock => KernelResource::Memlock,
        Resource::Msgqueue => KernelResource::Msgqueue,
        Resource::Nice => KernelResource::Nice,
        Resource::Nofile => KernelResource::Nofile,
        Resource::Nproc => KernelResource::Nproc,
        Resource::Rss => KernelResource::Rss,
        Resource::Rtprio => KernelResource::Rtprio,
        Resource::Rttime => KernelResource::Rttime,
        Resource::Sigpending => KernelResource::Sigpending,
        Resource::Stack => KernelResource::Stack,
        Resource::As => KernelResource::As,
    };
    rustix::process::setrlimit(resource, rustix::process::Rlimit { current: limit.soft, maximum: limit.hard })
        .step("rlimit", || format!("failed to set the ulimit `{}`", limit.resource.name()))
}

/// Drops the bounding set to `wanted` and changes user, keeping `kept` in hand until the filter is in place.
/// Inheritable and ambient sets stay empty (CVE-2022-29162).
fn become_user(user: &ResolvedUser, wanted: u64, kept: u64) -> Result<(), Failure> {
    let what = || "failed to drop capabilities".to_owned();
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if wanted & 1 << number != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break, // beyond the last one that this kernel has
            Err(errno) => return Err(errno).step("capabilities", what),
        }
    }
    rustix::thread::set_keep_capabilities(true).step("capabilities", what)?;
    let what = || format!("failed to become user {}:{}", user.uid, user.gid);
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&groups).step("user", what)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("user", what)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("user", what)?;
    rustix::thread::set_keep_capabilities(false).step("capabilities", what)?;
    rustix::thread::clear_ambient_capability_set().step("capabilities", what)?;
    set_capabilities(user, kept, caps::SYS_ADMIN & kept)
}

/// Finding and running the command must see what its user may do, so a user other than root has in effect only
/// `for_others` of what is permitted.
fn set_capabilities(user: &ResolvedUser, permitted: u64, for_others: u64) -> Result<(), Failure> {
    let effective = CapabilitySet::from_bits_retain(if user.uid == 0 { permitted } else { for_others });
    let permitted = CapabilitySet::from_bits_retain(permitted);
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).step("capabilities", || "failed to set capabilities".to_owned())
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new("exec", format!("`{text}` holds a zero byte")))
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| c_string(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_variable_replaces_the_default_in_place() {
        let given = ["A=1".to_owned(), "PATH=/bin".to_owned(), "A=2".to_owned()];
        assert_eq!(environment(&[&given], "box", false), ["PATH=/bin", "HOSTNAME=box", "A=2"]);
    }
}
