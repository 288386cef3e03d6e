//! One run of a health check.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use skep_runtime::{Container, ExecExit, ExecIo, ExecPlan, ExecSession, Signal};

use super::health::OUTPUT_BYTES_MAX;

/// Runs `argv` in the container; blocks for at most `timeout` and a little.
///
/// Returns the exit code, -1 when it ran out of time or could not run, and what it printed, cut at
/// [`OUTPUT_BYTES_MAX`].
pub fn run(container: &Container, argv: &[String], timeout: Duration) -> (i32, String) {
    let session = match container.exec(&ExecPlan::new(argv.iter().cloned())) {
        Ok(session) => session,
        Err(error) => return (-1, error.to_string()),
    };
    let ExecSession { id, io, exit, .. } = session;
    let mut streams: Vec<OwnedFd> = match io {
        ExecIo::Pipes { stdout, stderr, .. } => vec![stdout, stderr],
        ExecIo::Terminal(terminal) => vec![terminal],
    };
    let deadline = Instant::now() + timeout;
    let mut output = Vec::new();
    loop {
        // The code is what counts: a probe that leaves a child behind holding its output is not waited for.
        match exit.try_wait() {
            Ok(Some(code)) => {
                streams.iter_mut().for_each(|stream| drain_ready(stream, &mut output));
                return (code, text(output));
            }
            Ok(None) => {}
            Err(error) => return (-1, error.to_string()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // It may have ended just now, then there is nothing to kill.
            let _ = container.signal_exec(id, Signal::KILL);
            return (-1, format!("health check exceeded timeout ({timeout:?})"));
        }
        wait(&exit, &mut streams, left, &mut output);
    }
}

fn wait(exit: &ExecExit, streams: &mut Vec<OwnedFd>, left: Duration, output: &mut Vec<u8>) {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(exit, PollFlags::IN)];
    fds.extend(streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    if rustix::event::poll(&mut fds, Some(&timeout)).is_err() {
        return;
    }
    let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
    drop(fds);
    let mut number = 0;
    streams.retain_mut(|stream| {
        let open = !ready[number] || read_some(stream, output);
        number += 1;
        open
    });
}

/// False at the end of the stream.
fn read_some(stream: &OwnedFd, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match rustix::io::read(stream, &mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            output.extend_from_slice(&buffer[..read]);
            output.truncate(OUTPUT_BYTES_MAX + 1);
            true
        }
    }
}

fn drain_ready(stream: &mut OwnedFd, output: &mut Vec<u8>) {
    loop {
        let mut fds = [PollFd::new(&*stream, PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if !matches!(ready, Ok(1..)) || !read_some(stream, output) {
            return;
        }
    }
}

fn text(output: Vec<u8>) -> String {
    let cut = output.len() > OUTPUT_BYTES_MAX;
    // Invalid bytes are shown as such.
    let mut text = String::from_utf8_lossy(&output).into_owned();
    if cut {
        text.truncate(text.floor_char_boundary(OUTPUT_BYTES_MAX));
        text.push_str("...");
    }
    text
}
