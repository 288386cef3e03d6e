//! A virtual machine with a kernel of its own, for what a namespace cannot show: another kernel, pure cgroup v2, power cuts.
//!
//! ```text
//! Kernel (Debian's, unpacked) ─┐
//! GuestRoot (a folder) ─▶ disk ├─▶ Vm: qemu in a lab node ─▶ the serial console's lines
//! more disks ──────────────────┘
//! ```
//! qemu runs in a node of a lab, so that it ends with the lab and a later sweep finds it. The guest has no network, and its
//! root disk forgets all writes at its end; what is to stay goes on a disk of its own.

mod guest;
mod initramfs;
mod kernel;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::tools;
pub use guest::GuestRoot;
pub use kernel::Kernel;

/// How much of the console an error shows.
const CONSOLE_LINES: usize = 60;

/// What a [`Vm`] is started with.
#[derive(Clone, Debug)]
pub struct VmConfig {
    pub memory_mib: u32,
    pub cpus: u8,
    /// Raw images; the guest's `/dev/vdb`, `/dev/vdc`, … in this order. They keep what the guest writes.
    pub disks: Vec<PathBuf>,
}

impl Default for VmConfig {
    fn default() -> VmConfig {
        VmConfig { memory_mib: 768, cpus: 2, disks: Vec::new() }
    }
}

/// A running virtual machine. Dropping it cuts its power.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    /// What qemu itself says.
    log: PathBuf,
    console: Arc<Console>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Console {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Vm {
    /// Starts a guest in `node`. `root` is a disk made by [`GuestRoot::into_disk`].
    pub fn start(node: &Node, kernel: &Kernel, root: &Path, config: &VmConfig) -> Result<Vm> {
        let initramfs = node.folder().join("initramfs");
        if !initramfs.exists() {
            let bytes = guest::boot_archive(kernel)?;
            fs::write(&initramfs, bytes).with_context(|| format!("cannot write {}", initramfs.display()))?;
        }
        let mut command = qemu(node, kernel, &initramfs, root, config)?;
        let log_file = node.folder().join("qemu.log");
        let log = File::create(&log_file).with_context(|| format!("cannot create {}", log_file.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut qemu = command.spawn().context("cannot start qemu")?;
        let stdout = qemu.stdout.take().context("the pipe was asked for")?;
        let console = Arc::new(Console::default());
        let reader = thread::spawn({
            let console = Arc::clone(&console);
            move || console.follow(stdout)
        });
        Ok(Vm { qemu, log: log_file, console, reader: Some(reader) })
    }

    /// Waits for a line for which `wanted` holds, among all lines so far and those to come, and answers it.
    pub fn wait_for(&self, patience: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.wait_for_count(patience, 1, wanted)
    }

    /// As [`Vm::wait_for`], for the `count`th such line.
    pub fn wait_for_count(&self, patience: Duration, count: u64, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience;
        let (mut read, mut found) = (0, 0);
        let mut seen = self.console.lock();
        loop {
            for line in &seen.lines[read..] {
                found += u64::from(wanted(line));
                if found == count {
                    return Ok(line.clone());
                }
            }
            read = seen.lines.len();
            if seen.ended {
                drop(seen);
                bail!("the guest ended before it said what was waited for:\n{}", self.tail());
            }
            seen = match self.console.wait(seen, deadline) {
                Some(seen) => seen,
                None => bail!("the guest did not say what was waited for within {patience:?}:\n{}", self.tail()),
            };
        }
    }

    /// Waits until the guest has switched itself off, and answers all lines of its console. A guest that could not run is
    /// an error.
    pub fn wait_end(mut self, patience: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + patience;
        let mut seen = self.console.lock();
        while !seen.ended {
            seen = match self.console.wait(seen, deadline) {
                Some(seen) => seen,
                None => bail!("the guest still runs after {patience:?}:\n{}", self.tail()),
            };
        }
        drop(seen);
        let lines = self.end()?;
        if lines.is_empty() {
            bail!("the guest said nothing: {}", self.said_by_qemu());
        }
        Ok(lines)
    }

    /// Cuts the power at once (SIGKILL), and answers all lines that its console had let out.
    pub fn cut_power(mut self) -> Result<Vec<String>> {
        self.qemu.kill().context("cannot kill qemu")?;
        self.end()
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.console.lock().lines.clone()
    }

    fn end(&mut self) -> Result<Vec<String>> {
        self.qemu.wait().context("cannot wait for qemu")?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow::anyhow!("the console's reader panicked"))?;
        }
        Ok(self.lines())
    }

    fn tail(&self) -> String {
        let lines = self.lines();
        format!("{}\n{}", lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n"), self.said_by_qemu())
    }

    fn said_by_qemu(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(qemu's log cannot be read: {error})"))
    }
}

impl Drop for Vm {
    /// After an orderly end there is nothing left to kill, which is no failure.
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

impl Console {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; `None` at the deadline.
    fn wait<'a>(&self, seen: MutexGuard<'a, Seen>, deadline: Instant) -> Option<MutexGuard<'a, Seen>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        Some(self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// A line that the power cut left unfinished is dropped: nobody was told.
    fn follow(&self, stdout: ChildStdout) {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) && line.ends_with(b"\n") {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push(text);
            self.changed.notify_all();
            line.clear();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// An empty ext4 file system of `mib` mebibytes, as a file that takes space only as it fills.
pub fn make_disk(file: &Path, mib: u64, content: Option<&Path>) -> Result<()> {
    let disk = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    disk.set_len(mib << 20).with_context(|| format!("cannot size {}", file.display()))?;
    let mut command = Command::new(tools::find_tool("mkfs.ext4")?);
    // Built in one go and checked by nobody: the guest's own writes are what counts.
    command.args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    let output = command.arg(file).stdin(Stdio::null()).output().context("cannot run mkfs.ext4")?;
    if !output.status.success() {
        bail!("cannot make the disk {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn qemu(node: &Node, kernel: &Kernel, initramfs: &Path, root: &Path, config: &VmConfig) -> Result<Command> {
    let mut command = node.command(tools::find_tool("qemu-system-x86_64")?);
    // Emulated: slower, but the same on every machine. Where machines are virtual themselves, a /dev/kvm may be there and fail.
    command.args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    command.arg("-m").arg(config.memory_mib.to_string()).arg("-smp").arg(config.cpus.to_string());
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet loglevel=0 panic=-1 cgroup_no_v1=all"]);
    command.arg("-drive").arg(format!("file={},if=virtio,format=raw,snapshot=on", root.display()));
    for disk in &config.disks {
        // Writes go to the host's page cache and the guest's flushes to the disk: a cut loses what the guest had not flushed.
        command.arg("-drive").arg(format!("file={},if=virtio,format=raw,cache=writeback", disk.display()));
    }
    command.env("TMPDIR", node.folder());
    Ok(command)
}
