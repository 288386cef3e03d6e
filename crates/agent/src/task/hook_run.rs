//! One hook under way: its end, and the last that it said. Without a thread of its own, since a hook may take long.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use skep_runtime::{ClientError, Container, ExecExit, ExecIo, ExecPlan, ExecSession};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::driver::blocking;

/// The end of a hook's output that is kept, and what of its last line is told.
const TAIL_BYTES: usize = 4096;
const LINE_BYTES: usize = 300;
/// A killed process may still be seen for a moment.
const KILL_ROUNDS: usize = 5;
const CHUNK_BYTES: usize = 4096;
/// What a pipe holds, unless somebody changed that.
const PIPE_BYTES: usize = 64 << 10;

/// Dropped before its end, the hook is killed.
pub(super) struct Run {
    session: Session,
    exit: AsyncFd<Exit>,
    /// Errors come last, where they are apart.
    streams: Vec<Stream>,
}

/// What a hook writes to, and the last that it wrote there.
struct Stream {
    /// None at its end.
    pipe: Option<AsyncFd<OwnedFd>>,
    tail: Vec<u8>,
}

struct Session {
    container: String,
    leader: i32,
    over: bool,
}

/// Gives tokio the descriptor that the exit comes over.
struct Exit(ExecExit);

impl AsRawFd for Exit {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Run {
    pub async fn start(container: &Container, plan: &ExecPlan) -> Result<Run, String> {
        let (container, plan) = (container.clone(), plan.clone());
        // What is begun there and not waited for is killed, too.
        let started = blocking(move || -> Result<_, ClientError> {
            let ExecSession { pid, io, exit, .. } = container.exec(&plan)?;
            Ok((Session { container: container.id().to_owned(), leader: pid, over: false }, io, exit))
        });
        let (session, io, exit) = started.await.map_err(|error| error.to_string())?;
        let streams = match io {
            ExecIo::Pipes { stdout, stderr, .. } => vec![stdout, stderr],
            ExecIo::Terminal(terminal) => vec![terminal],
        };
        let watched = || -> std::io::Result<_> {
            let watched = streams.into_iter().map(watch_stream);
            let streams = watched.map(|pipe| Ok(Stream { pipe: Some(pipe?), tail: Vec::new() }));
            let streams = streams.collect::<std::io::Result<_>>()?;
            Ok((watch_exit(exit)?, streams))
        };
        let (exit, streams) = watched().map_err(|error| error.to_string())?;
        Ok(Run { session, exit, streams })
    }

    /// Its process on the host, which leads a session of its own.
    pub fn leader(&self) -> i32 {
        self.session.leader
    }

    /// The exit code; its output is read all the while.
    pub async fn ended(&mut self) -> Result<i32, String> {
        loop {
            // The code is what counts: a hook that leaves a child behind holding its output is not waited for.
            match self.exit.get_ref().0.try_wait() {
                Ok(None) => {}
                ended => {
                    self.session.over = true;
                    self.read_rest();
                    return ended.map(|code| code.unwrap_or_default()).map_err(|error| error.to_string());
                }
            }
            let Self { exit, streams, .. } = self;
            let (mut out, mut err) = ([0; CHUNK_BYTES], [0; CHUNK_BYTES]);
            let (stream, read) = tokio::select! {
                ready = exit.readable() => {
                    ready.map_err(|error| error.to_string())?.clear_ready();
                    continue;
                }
                read = read_some(streams.first(), &mut out) => (0, &out[..read]),
                read = read_some(streams.get(1), &mut err) => (1, &err[..read]),
            };
            keep_tail(&mut streams[stream].tail, read);
            if read.is_empty() {
                streams[stream].pipe = None;
            }
        }
    }

    /// What was written before the end, as far as it can matter.
    fn read_rest(&mut self) {
        let mut buffer = [0; CHUNK_BYTES];
        for Stream { pipe, tail } in &mut self.streams {
            let Some(pipe) = pipe else { continue };
            for _ in 0..PIPE_BYTES / CHUNK_BYTES {
                match rustix::io::read(pipe.get_ref(), &mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => keep_tail(tail, &buffer[..read]),
                }
            }
        }
    }

    /// The last line that has something on it; of the errors, where there is one.
    pub fn last_line(&self) -> Option<String> {
        self.streams.iter().rev().find_map(|stream| last_line(&stream.tail))
    }
}

fn last_line(tail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line[..line.floor_char_boundary(LINE_BYTES)].to_owned())
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.over {
            kill_session(&self.container, self.leader);
        }
    }
}

/// Kills a hook with all that it started and that did not leave its session.
///
/// Its number alone would not do: by now it may be somebody else's.
pub(super) fn kill_session(container: &str, leader: i32) {
    let of_session = |pid: Pid| session_of(pid) == Some(leader);
    for _ in 0..KILL_ROUNDS {
        let mut killed = false;
        for pid in processes().filter(|pid| of_session(*pid)) {
            // Held, it keeps its number until the signal.
            let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if of_session(pid) && is_within(pid, container) {
                killed |= pidfd_send_signal(&held, Signal::KILL).is_ok();
            }
        }
        // What was started meanwhile is found by another look.
        if !killed {
            return;
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let found = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    found.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// See proc_pid_stat(5). Not by getsid(2): of the kernel's own threads it tells 0, which is no process number.
fn session_of(pid: Pid) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(3)?.parse().ok()
}

fn is_within(pid: Pid, container: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_pid())).unwrap_or_default();
    groups.lines().any(|line| line.split('/').any(|part| part == container))
}

#[expect(deprecated, reason = "the new constructor is unsafe; the descriptor is owned by what is registered")]
fn watch_exit(exit: ExecExit) -> std::io::Result<AsyncFd<Exit>> {
    AsyncFd::with_interest(Exit(exit), Interest::READABLE)
}

#[expect(deprecated, reason = "the new constructor is unsafe; the descriptor is owned by what is registered")]
fn watch_stream(stream: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    rustix::fs::fcntl_setfl(&stream, rustix::fs::fcntl_getfl(&stream)? | OFlags::NONBLOCK)?;
    AsyncFd::with_interest(stream, Interest::READABLE)
}

/// 0 at the end of the stream; never resolves for one that is closed.
async fn read_some(stream: Option<&Stream>, buffer: &mut [u8]) -> usize {
    let Some(stream) = stream.and_then(|stream| stream.pipe.as_ref()) else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = stream.readable().await else { return 0 };
        match ready.try_io(|stream| Ok(rustix::io::read(stream.get_ref(), &mut *buffer)?)) {
            Ok(Ok(read)) => return read,
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Err(_)) => return 0,
            // Not ready after all.
            Err(_) => {}
        }
    }
}

fn keep_tail(tail: &mut Vec<u8>, read: &[u8]) {
    tail.extend_from_slice(read);
    tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
}
