//! The process that keeps a node's namespaces alive: a sleeper that a lab starts and ends.
//!
//! Files bound under `/run/netns` would do it too, but they are mounts in the machine's own mount namespace and outlive
//! everything; a process is found by its cgroup and killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::ProcessId;

/// The namespaces of one node, or of the world outside.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) process: ProcessId,
    /// `cgroup.procs` of the group in which everything of this node starts.
    pub(crate) procs: PathBuf,
}

/// Joins the group first, so that a lab killed at any moment leaves nothing that its cgroups do not name.
const HOLD: &str = r#"
echo $$ > "$1" || exit 1
exec unshare --net --mount --uts -- sh -c '
    echo "$1" > /proc/sys/kernel/hostname && echo ready && exec sleep infinity > /dev/null 2>&1
' sh "$2"
"#;

/// Joins the group, then the namespaces, in the working directory of the caller (`nsenter --mount` alone would go to `/`).
const ENTER: &str = r#"
echo $$ > "$1" || exit 125
pid=$2
shift 2
exec nsenter --net="/proc/$pid/ns/net" --mount="/proc/$pid/ns/mnt" --uts="/proc/$pid/ns/uts" --wdns="$PWD" -- "$@"
"#;

impl Holder {
    /// Starts the sleeper in namespaces of its own, with `hostname` and with processes starting in the group of `procs`.
    pub(crate) fn start(hostname: &str, procs: &Path) -> Result<Holder> {
        // A session of its own: Ctrl-C at the terminal ends the test, whose clean-up still needs the namespaces.
        let mut child = Command::new("setsid")
            .args(["sh", "-c", HOLD, "sh"])
            .arg(procs)
            .arg(hostname)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start `setsid unshare`; they come with the package util-linux")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the pipe was asked for")?;
        BufReader::new(stdout).read_line(&mut line).context("cannot hear from the namespace holder")?;
        if line.trim() != "ready" {
            let output = child.wait_with_output().context("cannot wait for the namespace holder")?;
            bail!(
                "cannot make the namespaces of {hostname}: {}; a lab needs root",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let pid = i32::try_from(child.id()).context("process number does not fit")?;
        let process = ProcessId::of(pid).context("the namespace holder ended at once")?;
        Ok(Holder { process, procs: procs.to_path_buf() })
    }

    /// A command that runs in these namespaces; its first own argument must be the program.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).arg(&self.procs).arg(self.process.pid.to_string());
        command
    }

    /// Runs `work` on a fresh thread inside the network namespace. A panic in it goes on in the caller.
    pub(crate) fn in_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.process.pid);
        let namespace =
            File::open(&path).with_context(|| format!("cannot open {path}; has the lab been taken down?"))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter the network namespace; a lab needs root")?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
