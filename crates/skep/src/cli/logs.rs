//! `logs` and `service logs`: what tasks wrote, as it is or with the task before each line.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use futures::StreamExt;
use skep_api::{ControlClient, Filter, LogEntry, LogOptions, LogSource, LogsRequest, OutputStream, RefusalKind};
use skep_model::TaskId;

use super::Result;
use super::host::Host;
use super::output::time;
use super::tasks::node_names;

#[derive(Debug, Args)]
pub struct Options {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each task: a number, or all
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES")]
    tail: String,
    /// Only what was written since: 2026-11-21T02:45:39Z, or how long ago, 10m
    #[arg(long)]
    since: Option<String>,
    /// The time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was written, without the task before it
    #[arg(long)]
    raw: bool,
    /// Names without the task's id
    #[arg(long)]
    no_task_ids: bool,
    /// The task's whole id
    #[arg(long)]
    no_trunc: bool,
    /// A task (service.slot, or its id) or a service
    name: String,
}

/// What stands before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Task,
}

/// `logs NAME`: a service's lines come with their task, a task's as they are.
pub async fn run(options: Options, host: &Host) -> Result {
    let control = host.control().await?;
    // A service's id cannot be a task's name, so asking for the service first mistakes nothing.
    match control.service(&options.name).await {
        Ok(service) => show(&control, LogSource::Service(service.id.to_string()), Prefix::Task, options).await,
        Err(refusal) if refusal.kind == RefusalKind::NotFound => {
            let source = LogSource::Task(options.name.clone());
            show(&control, source, Prefix::None, options).await
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// `service logs NAME`: a service or one of its tasks, always with the task.
pub async fn run_for_service(options: Options, host: &Host) -> Result {
    let control = host.control().await?;
    let source = match control.service(&options.name).await {
        Ok(service) => LogSource::Service(service.id.to_string()),
        Err(missing) if missing.kind == RefusalKind::NotFound => match control.task(&options.name).await {
            Ok(task) => LogSource::Task(task.id.to_string()),
            // The name was meant for a service: that refusal has the better suggestion.
            Err(_) => return Err(missing.into()),
        },
        Err(refusal) => return Err(refusal.into()),
    };
    show(&control, source, Prefix::Task, options).await
}

async fn show(control: &ControlClient, source: LogSource, prefix: Prefix, options: Options) -> Result {
    let tail = match options.tail.as_str() {
        "all" => None,
        number => Some(number.parse().map_err(|_| anyhow::anyhow!("`{number}` is not a number of lines, nor all"))?),
    };
    let since = options.since.as_deref().map(|since| time::parse_since(since, time::now())).transpose()?;
    let request = LogsRequest { source, options: LogOptions { tail, since, follow: options.follow } };
    let mut entries = control.logs(request).await?;
    let prefix = if options.raw { Prefix::None } else { prefix };
    let mut writers = Writers::new(control, &options);
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let mut line = Vec::with_capacity(entry.data.len() + 64);
        if options.timestamps {
            line.extend_from_slice(time::rfc3339_aligned(entry.at).as_bytes());
            line.push(b' ');
        }
        if prefix == Prefix::Task {
            line.extend_from_slice(writers.prefix(&entry).await?.as_bytes());
        }
        line.extend_from_slice(&entry.data);
        if !line.ends_with(b"\n") && prefix == Prefix::Task {
            line.push(b'\n');
        }
        match entry.stream {
            OutputStream::Stdout => std::io::stdout().write_all(&line)?,
            OutputStream::Stderr => std::io::stderr().write_all(&line)?,
        }
    }
    std::io::stdout().flush()?;
    Ok(())
}

/// Names of the tasks that write, learned as they turn up.
struct Writers<'a> {
    control: &'a ControlClient,
    options: &'a Options,
    names: BTreeMap<TaskId, String>,
    width: usize,
}

impl<'a> Writers<'a> {
    fn new(control: &'a ControlClient, options: &'a Options) -> Self {
        Self { control, options, names: BTreeMap::new(), width: 0 }
    }

    /// `counter_web.1.abcdefghijkl@n1    | `
    async fn prefix(&mut self, entry: &LogEntry) -> Result<String> {
        if !self.names.contains_key(&entry.task) {
            self.learn(entry.task).await?;
        }
        let name = self.names.entry(entry.task).or_insert_with(|| entry.task.short());
        Ok(format!("{name:<width$}    | ", width = self.width))
    }

    /// The names of the task's whole service, so that its lines align from the first on.
    async fn learn(&mut self, task: TaskId) -> Result {
        let nodes = node_names(self.control).await?;
        let tasks = self.control.tasks(Filter::default()).await?;
        let Some(service) = tasks.iter().find(|known| known.id == task).map(|known| known.service) else {
            return Ok(());
        };
        for task in tasks.iter().filter(|task| task.service == service) {
            let node = task.node.and_then(|node| nodes.get(&node)).map_or("", String::as_str);
            let name = match (self.options.no_task_ids, self.options.no_trunc) {
                (true, _) => format!("{}@{node}", task.name()),
                (false, true) => format!("{}.{}@{node}", task.name(), task.id),
                (false, false) => format!("{}.{}@{node}", task.name(), task.id.short()),
            };
            self.names.insert(task.id, name);
        }
        self.width = self.names.values().map(|name| name.chars().count()).max().unwrap_or(0);
        Ok(())
    }
}
