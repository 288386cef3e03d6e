//! One container's cgroup: limits in, processes in, counters out, everything killed, folders removed.
//!
//! The folder names are all the state there is, so that a handle can be had again after a restart.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

use super::devices::{self, DeviceAccess};
use super::limits::Limits;
use super::stats::{self, Stats};
use super::{CgroupError, sys, v1, v2};

/// Freezing waits for tasks in the kernel to come out; a folder is busy until its last process is reaped.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub struct Cgroup {
    dirs: Dirs,
    /// Open on v2 only.
    fd: Option<OwnedFd>,
    unenforced: Vec<Unenforced>,
}

/// A limit that was asked for and that this kernel does not enforce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unenforced {
    /// The file that takes the limit: `memory.max`, `devices`, …
    pub setting: &'static str,
    pub value: String,
    pub reason: String,
}

impl fmt::Display for Unenforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} is not enforced: {}", self.setting, self.value, self.reason)
    }
}

/// The container's folders. With any on v1, limits are there and `v2` is the hybrid's cgroup2.
#[derive(Debug)]
pub(super) struct Dirs {
    pub(super) v1: Vec<V1Dir>,
    pub(super) v2: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct V1Dir {
    pub(super) controllers: Vec<String>,
    pub(super) path: PathBuf,
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
}

impl Dirs {
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|dir| dir.path.as_path()).chain(self.v2.as_deref())
    }

    pub(super) fn any_exists(&self) -> bool {
        self.all().next().is_some()
    }
}

impl Cgroup {
    pub(super) fn new(dirs: Dirs) -> Result<Self, CgroupError> {
        let fd = match (&dirs.v2, dirs.v1.is_empty()) {
            (Some(path), true) => Some(open_dir(path)?),
            (Some(_), false) | (None, _) => None,
        };
        Ok(Self { dirs, fd, unenforced: Vec::new() })
    }

    /// Limits that were asked for at creation or by [`Cgroup::apply`] and cannot hold here: to be said per container.
    pub fn unenforced(&self) -> &[Unenforced] {
        &self.unenforced
    }

    /// The folder, one per hierarchy, in mount order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.dirs.all()
    }

    /// For `clone3(CLONE_INTO_CGROUP)`, on pure v2 only: there the child is born inside and [`Cgroup::join`] is not
    /// needed. `None` on v1 and hybrid, where only `join` reaches the limits.
    pub fn dir_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(OwnedFd::as_fd)
    }

    /// Writes limits, also anew while the container runs. Limits that are `None` are left as they are; device rules are
    /// only written at creation.
    pub fn apply(&mut self, limits: &Limits) -> Result<(), CgroupError> {
        let settings = if self.is_v2() { v2::settings(limits) } else { v1::settings(limits) };
        let mut at = 0;
        while let Some(setting) = settings.get(at) {
            let result = self.apply_one(setting);
            match (result, settings.get(at + 1)) {
                // v1 refuses memory above memsw: then memsw has to rise first.
                (Err(CgroupError::Write { source, .. }), Some(next))
                    if setting.file == "memory.limit_in_bytes"
                        && next.file == "memory.memsw.limit_in_bytes"
                        && source.raw_os_error() == Some(libc::EINVAL) =>
                {
                    self.apply_one(next)?;
                    self.apply_one(setting)?;
                    at += 2;
                }
                (result, _) => {
                    result?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, setting: &Setting) -> Result<(), CgroupError> {
        let result = match self.dir(setting.controller) {
            Some(dir) => write(&dir.join(setting.file), &setting.value),
            None => {
                self.report(setting.file, &setting.value, format!("the {} controller is off here", setting.controller));
                return Ok(());
            }
        };
        match result {
            Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let reason = match (setting.file.contains("sw"), self.is_v2()) {
                    (true, _) => "swap accounting is off (kernel command line: swapaccount=1)".to_owned(),
                    (false, true) => {
                        format!("the {} controller is off, or a parent cgroup holds processes", setting.controller)
                    }
                    (false, false) => "this kernel has no such setting".to_owned(),
                };
                self.report(setting.file, &setting.value, reason);
                Ok(())
            }
            result => result,
        }
    }

    /// Where bpf(2) is not permitted, or a parent cgroup allows less, the container runs without (all) its device rules
    /// and says so: its device nodes, its capabilities and its missing CAP_SYS_ADMIN still stand.
    pub(super) fn restrict_devices(&mut self, access: &DeviceAccess) -> Result<(), CgroupError> {
        let Some(rules) = access.rules() else {
            return Ok(());
        };
        let result = match (self.fd.as_ref(), self.dir("devices")) {
            (Some(cgroup), _) => sys::load_device_program(&devices::program(&rules))
                .and_then(|program| sys::attach_device_program(cgroup.as_fd(), program.as_fd()))
                .map_err(|error| format!("the kernel refused the device program: {error}")),
            (None, Some(dir)) => write_v1_devices(dir, &rules),
            (None, None) => Err("the devices controller is off here".to_owned()),
        };
        if let Err(reason) = result {
            self.report("devices", "deny all but Docker's list", reason);
        }
        Ok(())
    }

    fn report(&mut self, setting: &'static str, value: &str, reason: String) {
        self.unenforced.push(Unenforced { setting, value: value.to_owned(), reason });
    }

    /// Moves a process (all its threads) in, in every hierarchy. `0` is the caller itself, which is how a child in a new
    /// pid namespace moves without knowing its number outside.
    pub fn join(&self, pid: i32) -> Result<(), CgroupError> {
        for dir in self.dirs.all() {
            write(&dir.join("cgroup.procs"), &pid.to_string()).map_err(|error| match error {
                CgroupError::Write { path, source, .. } => CgroupError::Join { pid, path, source },
                other => other,
            })?;
        }
        Ok(())
    }

    /// Removes the cgroup where nothing is in it, neither a process nor a cgroup; else leaves it.
    pub fn remove_if_empty(&self) {
        for dir in self.dirs.all() {
            // In use, or gone already: both are fine.
            let _ = fs::remove_dir(dir);
        }
    }

    /// Processes in the cgroup and in cgroups below it, as this pid namespace numbers them. Those that it cannot see
    /// are left out. Empty also when the cgroup is gone.
    pub fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        match self.main_dir() {
            Some(dir) => collect_procs(dir, &mut pids)?,
            None => return Ok(pids),
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// SIGKILL to every process inside, none of which can fork its way out: `cgroup.kill` where there is one (Linux
    /// 5.14), else everything is frozen, signalled and thawed. Returns without waiting for the deaths; [`Cgroup::remove`]
    /// waits.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(dir) = &self.dirs.v2
            && write(&dir.join("cgroup.kill"), "1").is_ok()
        {
            if self.is_v2() {
                return Ok(());
            }
            // Hybrid: what moved itself out of the cgroup2 side is still in the v1 side, and a v1 freezer keeps the dying.
            return self.kill_each().and(self.thaw());
        }
        if self.procs()?.is_empty() {
            return Ok(());
        }
        let frozen = self.freeze();
        let killed = self.kill_each();
        // Also after an error: a frozen process never dies.
        let thawed = self.thaw();
        match frozen {
            Ok(()) => killed.and(thawed),
            // Without a freezer, a few rounds outrun any process that forks.
            Err(_) => (0..64).try_for_each(|_| self.kill_each()).and(thawed.or(Ok(()))),
        }
    }

    fn kill_each(&self) -> Result<(), CgroupError> {
        for pid in self.procs()?.into_iter().filter_map(Pid::from_raw) {
            // ESRCH: it died between the reading and the signal. EPERM cannot happen to root.
            kill_process(pid, Signal::KILL).ok();
        }
        Ok(())
    }

    /// Processes of this cgroup killed by the kernel for want of memory, so far. Read it before [`Cgroup::remove`]. 0
    /// where the memory controller is off: nothing kills there.
    pub fn oom_kills(&self) -> u64 {
        stats::oom_kills(self).unwrap_or(0)
    }

    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// Stops every process where it is and returns when all have stopped (`pause`).
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen(true)
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        let state = if frozen { "frozen" } else { "thawed" };
        let deadline = Instant::now() + PATIENCE;
        let (dir, is_v1) = match (self.v1_dir("freezer"), &self.dirs.v2) {
            (Some(dir), _) => (dir, true),
            (None, Some(dir)) => (dir.as_path(), false),
            (None, None) => return Err(CgroupError::NotFound { path: "freezer".into() }),
        };
        loop {
            let reached = if is_v1 {
                let wanted = if frozen { "FROZEN" } else { "THAWED" };
                // Written in each round: a v1 freezer can stay FREEZING while tasks fork, until told again.
                write(&dir.join("freezer.state"), wanted)?;
                read(&dir.join("freezer.state"))?.trim() == wanted
            } else {
                write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
                stats::keyed(dir, "cgroup.events", "frozen") == Some(u64::from(frozen))
            };
            if reached {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CgroupError::Stuck { path: dir.to_owned(), state, seconds: PATIENCE.as_secs() });
            }
            thread::sleep(STEP);
        }
    }

    /// Removes the folders, and cgroups that the container made below them. Waits some seconds for processes that were
    /// killed and are still dying; a cgroup that is gone already is a success.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + PATIENCE;
        for dir in self.dirs.all() {
            loop {
                match remove_tree(dir) {
                    Ok(()) => break,
                    Err(source) if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        thread::sleep(STEP);
                    }
                    Err(source) => return Err(CgroupError::Remove { path: dir.to_owned(), source }),
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_v2(&self) -> bool {
        self.dirs.v1.is_empty()
    }

    /// The folder where a controller's files are. On v2 they may be missing all the same.
    pub(super) fn dir(&self, controller: &str) -> Option<&Path> {
        match self.is_v2() {
            true => self.dirs.v2.as_deref(),
            false => self.v1_dir(controller),
        }
    }

    fn v1_dir(&self, controller: &str) -> Option<&Path> {
        let has = |dir: &&V1Dir| dir.controllers.iter().any(|c| c == controller);
        self.dirs.v1.iter().find(has).map(|dir| dir.path.as_path())
    }

    /// Where the processes are counted: the freezer's side on v1, because `kill` freezes what it reads.
    fn main_dir(&self) -> Option<&Path> {
        self.v1_dir("freezer").or_else(|| self.dirs.all().next())
    }
}

/// Makes the container's own folder, replacing an empty one of the same name.
pub(super) fn make_leaf(path: &Path) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Create { path: path.to_owned(), source };
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match remove_tree(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                Err(CgroupError::InUse { path: path.to_owned() })
            }
            Err(error) => Err(failed(error)),
            Ok(()) => fs::create_dir(path).map_err(failed),
        },
        result => result.map_err(failed),
    }
}

/// Writes an existing file in one write(2), as cgroup files want it.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let result = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        use io::Write;
        file.write_all(value.as_bytes())
    });
    result.map_err(|source| CgroupError::Write { path: path.to_owned(), value: value.to_owned(), source })
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn open_dir(path: &Path) -> Result<OwnedFd, CgroupError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| CgroupError::Read { path: path.to_owned(), source: error.into() })
}

fn write_v1_devices(dir: &Path, rules: &[devices::DeviceRule]) -> Result<(), String> {
    let write = |file: &str, line: &str| {
        write(&dir.join(file), line).map_err(|error| match error {
            CgroupError::Write { path, value, source } => format!("{}: {value}: {source}", path.display()),
            other => other.to_string(),
        })
    };
    write("devices.deny", "a")?;
    for rule in rules {
        let file = match rule.verdict {
            devices::Verdict::Allow => "devices.allow",
            devices::Verdict::Deny => "devices.deny",
        };
        write(file, &rule.v1_line())?;
    }
    Ok(())
}

fn collect_procs(dir: &Path, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // 0 is a process that this pid namespace cannot see.
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0)),
        // Gone, or a threaded cgroup, whose processes its domain lists.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => {}
        Err(source) => return Err(CgroupError::Read { path, source }),
    }
    for below in subdirs(dir) {
        collect_procs(&below, pids)?;
    }
    Ok(())
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    // A folder that cannot be listed is gone: cgroup folders are always readable to root.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// Only folders are removed: the files in them are the kernel's and go with them.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let below = subdirs(dir);
            if below.is_empty() {
                return Err(error);
            }
            below.iter().try_for_each(|dir| remove_tree(dir))?;
            fs::remove_dir(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
