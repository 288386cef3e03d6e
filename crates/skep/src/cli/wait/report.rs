//! Telling of a failure: the task, its error, and the last lines that it wrote.

use std::time::Duration;

use futures::TryStreamExt;
use skep_api::{ControlClient, LogEntry, LogOptions, LogSource, LogsRequest, Messages, Refusal};
use skep_model::{Task, TaskState};
use tokio::time::timeout;

use super::picture::{Trouble, why};
use super::{Goal, explain};
use crate::cli::failure::{Exit, UNPLACED};
use crate::cli::output;
use crate::cli::tasks::node_names;

const LOG_LINES: u64 = 10;
/// A node that does not answer must not keep the command.
const LOG_WAIT: Duration = Duration::from_secs(5);

/// Says everything that went wrong; the answer ends the command.
pub async fn tell(control: &ControlClient, troubles: &[Trouble], goal: &Goal) -> anyhow::Error {
    // Without names of nodes the rest is still worth saying.
    let nodes = node_names(control).await.unwrap_or_default();
    for trouble in troubles {
        output::complain(format_args!("service {} {}", trouble.service, trouble.what));
        if trouble.code == UNPLACED {
            explain::tell(control, &trouble.service).await;
        }
        let Some(task) = &trouble.task else { continue };
        let place = task.node.and_then(|node| nodes.get(&node)).map(|name| format!(" on {name}")).unwrap_or_default();
        if task.status.state != TaskState::Pending {
            output::raw_complaint(&format!("  {}{place}: {}\n", task.name(), why(task)));
        }
        if task.status.container.is_some() {
            tell_log(control, task).await;
        }
    }
    let code = troubles.iter().map(|trouble| trouble.code).max().unwrap_or(1);
    Exit::saying(code, format!("see `{}`", goal.watch_with))
}

async fn tell_log(control: &ControlClient, task: &Task) {
    let lines = match timeout(LOG_WAIT, last_lines(control, task)).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(refusal)) => return output::raw_complaint(&format!("  its log cannot be read: {refusal}\n")),
        Err(_) => return output::raw_complaint("  its log cannot be read: the node does not answer\n"),
    };
    if lines.is_empty() {
        return output::raw_complaint("  it wrote nothing\n");
    }
    output::raw_complaint("  the last that it wrote:\n");
    for line in lines {
        output::raw_complaint(&format!("    {}\n", String::from_utf8_lossy(&line.data).trim_end()));
    }
}

async fn last_lines(control: &ControlClient, task: &Task) -> Result<Vec<LogEntry>, Refusal> {
    let source = LogSource::Task(task.id.to_string());
    let options = LogOptions { tail: Some(LOG_LINES), since: None, follow: false };
    let entries: Messages<LogEntry> = control.logs(LogsRequest { source, options }).await?;
    entries.try_collect().await
}
