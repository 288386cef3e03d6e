//! Logs, exec sessions and examinations that a manager asks for, each in a tokio task of its own.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use skep_api::{
    AgentMessage, ExecInput, ExecOutput, ExecSpec, LogEntry, LogOptions, ManagerTarget, OutputStream, ProbePart,
};
use skep_model::{NodeId, TaskId};
use skep_runtime::logs::{Entry, ReadOptions, Reader, Stream};
use skep_runtime::{Container, ExecIo, ExecPlan, ExecSession, Signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::examine::Examiner;
use crate::node::{Node, chain, system_time, timestamp};

/// Entries sent in one message.
const ENTRIES: usize = 256;
/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(100);
const CHUNK: usize = 16 << 10;

/// Requests under way. Clones share them.
#[derive(Clone)]
pub struct Relay {
    node: Arc<Node>,
    node_id: NodeId,
    examiner: Examiner,
    open: Arc<Mutex<HashMap<u64, Open>>>,
}

struct Open {
    cancelled: CancellationToken,
    input: Option<mpsc::UnboundedSender<ExecInput>>,
}

impl Relay {
    pub fn new(node: Arc<Node>, node_id: NodeId, examiner: Examiner) -> Self {
        Self { node, node_id, examiner, open: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().expect("no holder of this lock panics")
    }

    /// Sends a task's log.
    pub fn log(&self, request: u64, task: TaskId, options: LogOptions, to: mpsc::Sender<AgentMessage>) {
        let cancelled = CancellationToken::new();
        self.open().insert(request, Open { cancelled: cancelled.clone(), input: None });
        let relay = self.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                sent = relay.send_log(request, task, options, &to) => sent.err(),
                () = cancelled.cancelled() => None,
            };
            relay.end(request, error, to).await;
        });
    }

    async fn send_log(
        &self,
        request: u64,
        task: TaskId,
        options: LogOptions,
        to: &mpsc::Sender<AgentMessage>,
    ) -> Result<(), String> {
        let path = self.node.container_dir(&task.to_string()).join("log.json");
        let read = ReadOptions {
            tail: options.tail,
            since: options.since.map(system_time),
            until: None,
            follow: options.follow,
        };
        let mut reader = blocking(move || Reader::open(path, read))
            .await
            .map_err(|error| format!("the log cannot be read: {error}"))?;
        loop {
            let (entries, back, failed) = blocking(move || {
                let mut entries = Vec::new();
                let mut failed = None;
                while entries.len() < ENTRIES {
                    match reader.poll_next() {
                        Ok(Some(entry)) => entries.push(entry),
                        Ok(None) => break,
                        Err(error) => {
                            failed = Some(format!("the log cannot be read further: {error}"));
                            break;
                        }
                    }
                }
                (entries, reader, failed)
            })
            .await;
            reader = back;
            let full = entries.len() == ENTRIES;
            if !entries.is_empty() {
                let entries = entries.into_iter().map(|entry| self.log_entry(task, entry)).collect();
                to.send(AgentMessage::Log { request, entries }).await.map_err(|_| String::new())?;
            }
            match failed {
                Some(error) => return Err(error),
                None if full => {}
                None if options.follow => tokio::time::sleep(FOLLOW).await,
                None => return Ok(()),
            }
        }
    }

    fn log_entry(&self, task: TaskId, entry: Entry) -> LogEntry {
        let stream = match entry.stream {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        };
        LogEntry { task, node: self.node_id, stream, at: timestamp(entry.time), data: Bytes::from(entry.bytes) }
    }

    /// Runs a process in a task's container.
    pub fn exec(&self, request: u64, task: TaskId, spec: ExecSpec, to: mpsc::Sender<AgentMessage>) {
        let cancelled = CancellationToken::new();
        let (input, inputs) = mpsc::unbounded_channel();
        self.open().insert(request, Open { cancelled: cancelled.clone(), input: Some(input) });
        let relay = self.clone();
        tokio::spawn(async move {
            let error = relay.run_exec(request, task, spec, inputs, cancelled, &to).await.err();
            relay.end(request, error, to).await;
        });
    }

    async fn run_exec(
        &self,
        request: u64,
        task: TaskId,
        spec: ExecSpec,
        mut inputs: mpsc::UnboundedReceiver<ExecInput>,
        cancelled: CancellationToken,
        to: &mpsc::Sender<AgentMessage>,
    ) -> Result<(), String> {
        let container = Container::open(self.node.run_dir(), &task.to_string()).map_err(|error| chain(&error))?;
        let session = {
            let (container, plan) = (container.clone(), exec_plan(&spec));
            blocking(move || container.exec(&plan)).await
        };
        let send = |output| to.send(AgentMessage::Exec { request, output });
        let session = match session {
            Ok(session) => session,
            // As a shell would: the message on standard error, then 126 or 127.
            Err(skep_runtime::ClientError::Refused(failure)) => {
                let words = Bytes::from(format!("{}\n", failure.message));
                send(ExecOutput::Stderr(words)).await.map_err(|_| String::new())?;
                send(ExecOutput::Exit(failure.exit_code)).await.map_err(|_| String::new())?;
                return Ok(());
            }
            Err(error) => return Err(chain(&error)),
        };
        let ExecSession { id, io, exit, .. } = session;
        send(ExecOutput::Started).await.map_err(|_| String::new())?;
        let (terminal, stdin, outputs) = streams(io, &spec)?;
        let readers: Vec<_> =
            outputs.into_iter().map(|(fd, wrap)| tokio::spawn(pump(fd, wrap, request, to.clone()))).collect();
        let feeding = feed(&mut inputs, stdin, terminal.as_ref());
        let ended = blocking_exit(exit);
        tokio::pin!(ended);
        let code = tokio::select! {
            code = &mut ended => code,
            () = feeding => (&mut ended).await,
            () = cancelled.cancelled() => {
                // Nobody waits for it any more; it may have ended just now.
                let _ = blocking(move || container.signal_exec(id, Signal::KILL)).await;
                return Ok(());
            }
        };
        for reader in readers {
            // What it printed comes before its end, unless a child of it holds the output.
            let _ = tokio::time::timeout(Duration::from_millis(500), reader).await;
        }
        let code = code.map_err(|error| chain(&error))?;
        send(ExecOutput::Exit(code)).await.map_err(|_| String::new())
    }

    /// Examines this node. Its clock is told at once: what comes after takes its time.
    pub fn probe(&self, request: u64, managers: Vec<ManagerTarget>, to: mpsc::Sender<AgentMessage>) {
        let cancelled = CancellationToken::new();
        self.open().insert(request, Open { cancelled: cancelled.clone(), input: None });
        let relay = self.clone();
        tokio::spawn(async move {
            let examining = async {
                let began = ProbePart::Began { time: relay.examiner.now() };
                to.send(AgentMessage::Probed { request, part: began }).await.map_err(|_| String::new())?;
                let part = ProbePart::Examined(relay.examiner.examine(managers).await);
                to.send(AgentMessage::Probed { request, part }).await.map_err(|_| String::new())
            };
            let error = tokio::select! {
                sent = examining => sent.err(),
                () = cancelled.cancelled() => None,
            };
            relay.end(request, error, to).await;
        });
    }

    pub fn feed(&self, request: u64, input: ExecInput) {
        if let Some(Open { input: Some(sender), .. }) = self.open().get(&request) {
            // The process may have ended meanwhile.
            let _ = sender.send(input);
        }
    }

    pub fn cancel(&self, request: u64) {
        if let Some(open) = self.open().remove(&request) {
            open.cancelled.cancel();
        }
    }

    /// The session is over: nobody waits for anything any more.
    pub fn cancel_all(&self) {
        self.open().drain().for_each(|(_, open)| open.cancelled.cancel());
    }

    async fn end(&self, request: u64, error: Option<String>, to: mpsc::Sender<AgentMessage>) {
        self.open().remove(&request);
        // An empty error is a session that ended: then nobody hears this either.
        let _ = to.send(AgentMessage::End { request, error }).await;
    }
}

fn exec_plan(spec: &ExecSpec) -> ExecPlan {
    ExecPlan {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        cwd: spec.working_dir.clone(),
        user: spec.user.clone(),
        tty: spec.tty,
        stdin: spec.stdin,
        privileged: spec.privileged,
    }
}

type Wrap = fn(Bytes) -> ExecOutput;
type Outputs = Vec<(OwnedFd, Wrap)>;

/// The terminal for its size, where input goes, and where output comes from.
fn streams(io: ExecIo, spec: &ExecSpec) -> Result<(Option<ExecIo>, Option<OwnedFd>, Outputs), String> {
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| format!("a stream cannot be shared: {error}"));
    if let (ExecIo::Terminal(_), Some(size)) = (&io, spec.size) {
        io.resize(size.rows, size.columns).map_err(|error| format!("the terminal's size cannot be set: {error}"))?;
    }
    Ok(match io {
        ExecIo::Terminal(master) => {
            let outputs: Outputs = vec![(copy(&master)?, ExecOutput::Stdout as Wrap)];
            let input = copy(&master)?;
            (Some(ExecIo::Terminal(master)), Some(input), outputs)
        }
        ExecIo::Pipes { stdin, stdout, stderr } => {
            let outputs: Outputs = vec![(stdout, ExecOutput::Stdout as Wrap), (stderr, ExecOutput::Stderr as Wrap)];
            (None, stdin, outputs)
        }
    })
}

/// Reads one stream to its end; a terminal's end is EIO.
async fn pump(fd: OwnedFd, wrap: Wrap, request: u64, to: mpsc::Sender<AgentMessage>) {
    let fd = Arc::new(fd);
    loop {
        let source = Arc::clone(&fd);
        let read = blocking(move || {
            let mut buffer = vec![0; CHUNK];
            let count = wait_and_read(&source, &mut buffer)?;
            buffer.truncate(count);
            Ok::<_, rustix::io::Errno>(buffer)
        });
        match read.await {
            Ok(bytes) if !bytes.is_empty() => {
                if to.send(AgentMessage::Exec { request, output: wrap(Bytes::from(bytes)) }).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// Blocks until there is something, also on a descriptor that does not block.
fn wait_and_read(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, rustix::io::Errno> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None)?;
            }
            Err(rustix::io::Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Takes input to the process until there is no more; then the process's input is closed.
async fn feed(inputs: &mut mpsc::UnboundedReceiver<ExecInput>, stdin: Option<OwnedFd>, terminal: Option<&ExecIo>) {
    let mut stdin = stdin;
    while let Some(input) = inputs.recv().await {
        match input {
            ExecInput::Stdin(bytes) => {
                let Some(fd) = stdin.take() else { continue };
                stdin = blocking(move || write_all(&fd, &bytes).is_ok().then_some(fd)).await;
            }
            // A terminal has no end of input: its user types one.
            ExecInput::End => stdin = stdin.filter(|_| terminal.is_some()),
            ExecInput::Resize(size) => {
                if let Some(terminal) = terminal
                    && let Err(error) = terminal.resize(size.rows, size.columns)
                {
                    tracing::debug!(%error, "a terminal was not resized");
                }
            }
        }
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), rustix::io::Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::OUT)];
                rustix::event::poll(&mut fds, None)?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

async fn blocking_exit(exit: skep_runtime::ExecExit) -> Result<i32, skep_runtime::ClientError> {
    blocking(move || exit.wait()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work for a request does not panic")
}
