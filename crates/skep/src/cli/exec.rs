//! `exec`: a command in a running task, with the user's terminal or pipes at its ends.

use std::io::{self, IsTerminal};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt;
use skep_api::{
    ControlClient, ExecInput, ExecOutput, ExecRequest, ExecSpec, ExecTarget, ListContainersRequest, LocalClient,
    Messages, RefusalKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Result;
use super::failure::Exit;
use super::host::Host;
use super::terminal::{self, RawMode};

/// Pieces of input on their way.
const QUEUE: usize = 16;
const CHUNK_BYTES: usize = 32 << 10;

#[derive(Debug, Args)]
pub struct Options {
    /// Keep the input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, and group: name or number, name:group
    #[arg(short, long)]
    user: Option<String>,
    /// Folder to run in
    #[arg(short, long)]
    workdir: Option<String>,
    /// A variable: NAME=value, or NAME for this shell's own; may be given several times
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// With all capabilities
    #[arg(long)]
    privileged: bool,
    /// service.slot, the task's id, or the container's id or name on this node
    task: String,
    /// What to run; a shell with a terminal by default
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let connection = host.connect().await?;
    let control = ControlClient::new(connection.clone());
    let task = task_of(&control, &LocalClient::new(connection), &options.task).await?;
    let spec = spec(options)?;
    let (tty, stdin) = (spec.tty, spec.stdin);
    let (input, requests) = mpsc::channel(QUEUE);
    input.send(ExecRequest::Start(ExecTarget { task, spec })).await.context("a new channel has room")?;
    let mut output = control.exec(ReceiverStream::new(requests)).await?;
    // The first message comes before the terminal changes: a refusal is printed on a sane one.
    let first = output.next().await.context("the session ended before it began")??;
    let raw = match tty && stdin {
        true => Some(RawMode::enter().context("failed to set up the terminal")?),
        false => None,
    };
    if stdin {
        tokio::spawn(feed(input.clone()));
    }
    if tty {
        tokio::spawn(follow_size(input.clone()));
    }
    // The session lives as long as its input is open.
    let code = show(first, output).await;
    drop((input, raw));
    match code? {
        0 => Ok(()),
        code => Err(Exit::silent(u8::try_from(code).unwrap_or(1))),
    }
}

fn spec(options: Options) -> Result<ExecSpec> {
    // Without a command the user wants to look around: a shell, as with `-it`.
    let shell = options.command.is_empty();
    let at_terminal = io::stdin().is_terminal();
    let (interactive, tty) = match shell && at_terminal {
        true => (true, true),
        false => (options.interactive, options.tty || (shell && at_terminal)),
    };
    if tty && interactive && !at_terminal {
        bail!("the input is not a terminal; leave out -t");
    }
    let argv = if shell { vec!["sh".to_owned()] } else { options.command };
    let value = |variable: String| match variable.contains('=') {
        true => Some(variable),
        false => std::env::var(&variable).ok().map(|value| format!("{variable}={value}")),
    };
    Ok(ExecSpec {
        argv,
        env: options.env.into_iter().filter_map(value).collect(),
        user: options.user,
        working_dir: options.workdir,
        tty,
        stdin: interactive,
        privileged: options.privileged,
        size: if tty { terminal::size() } else { None },
    })
}

/// The cluster knows tasks; a container's id or name is known to its own node.
async fn task_of(control: &ControlClient, local: &LocalClient, wanted: &str) -> Result<String> {
    let refusal = match control.task(wanted).await {
        Ok(task) => return Ok(task.id.to_string()),
        Err(refusal) => refusal,
    };
    if refusal.kind == RefusalKind::NotFound {
        let containers = local.list_containers(ListContainersRequest { all: false }).await?.containers;
        let named = containers.iter().find(|container| container.id.starts_with(wanted) || container.name == wanted);
        if let Some(container) = named.filter(|_| !wanted.is_empty()) {
            return Ok(container.task.to_string());
        }
    }
    Err(refusal.into())
}

/// What is typed or piped in, until it ends.
async fn feed(input: mpsc::Sender<ExecRequest>) {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let message = match stdin.read(&mut chunk).await {
            Ok(0) | Err(_) => ExecInput::End,
            Ok(read) => ExecInput::Stdin(chunk[..read].to_vec().into()),
        };
        let over = message == ExecInput::End;
        if input.send(ExecRequest::Input(message)).await.is_err() || over {
            return;
        }
    }
}

async fn follow_size(input: mpsc::Sender<ExecRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if let Some(size) = terminal::size()
            && input.send(ExecRequest::Input(ExecInput::Resize(size))).await.is_err()
        {
            return;
        }
    }
}

/// Writes what comes until the exit code does.
async fn show(first: ExecOutput, mut output: Messages<ExecOutput>) -> Result<i32> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    let mut message = first;
    loop {
        match message {
            ExecOutput::Started => {}
            ExecOutput::Stdout(data) => {
                stdout.write_all(&data).await?;
                stdout.flush().await?;
            }
            ExecOutput::Stderr(data) => {
                stderr.write_all(&data).await?;
                stderr.flush().await?;
            }
            ExecOutput::Exit(code) => return Ok(code),
        }
        message = output.next().await.context("the session was cut before the command ended")??;
    }
}
