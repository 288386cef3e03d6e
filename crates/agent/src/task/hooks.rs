//! Hooks: more processes in a task's container, after its start and before its stop signal.
//!
//! ```text
//! started ─▶ post_start, one after the other ─▶ health checks, RUNNING        one that fails: stopped, FAILED
//! out of the maps, drained ─▶ pre_stop ─▶ stop signal ─▶ SIGKILL              one that fails: told
//!                             ╰──────── stop_grace_period ────────╯
//! ```
//! Nobody hears how a hook ended that was under way when the daemon did: it is killed, and run again. Hence a hook runs
//! at least once, and those that have ended well are not run a second time; `hooks.json` in the container's folder knows.
//! A container that ends takes its hooks with it, and its own end is what counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_model::{Hook, TaskState};
use skep_runtime::{Container, ExecPlan};
use tokio::time::Instant;

use super::driver::{Driver, blocking, stop_wished};
use super::hook_run::{Run, kill_session};
use super::step::Observed;
use super::template::expand;
use super::watch::Ended;

const RECORD: &str = "hooks.json";
/// A hook that died of the container's end is seen a little before that end.
const END_FOLLOWS: Duration = Duration::from_secs(2);
const KILLED: i32 = 128 + 9;

/// How far a container's hooks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Hooks of `post_start` that have ended well.
    started: usize,
    /// The process of the hook that is under way, of either kind.
    leader: Option<i32>,
}

/// A hook that did not end well.
#[derive(Debug)]
struct Failed {
    reason: String,
    killed: bool,
}

impl Driver {
    /// Whether the container, which runs, is still to be given hooks of its start.
    pub(super) fn is_starting(&self) -> bool {
        let hooks = self.setup.task.spec.container.post_start.len();
        hooks > 0 && Record::read(&self.record()).started < hooks
    }

    /// Runs those that have not ended well yet. The container's end, and the wish to stop it, end them.
    pub(super) async fn post_start(&mut self) {
        self.report(TaskState::Starting, "running post_start hooks");
        let (path, plans) = (self.record(), self.hook_plans("post_start"));
        let Some(running) = &mut self.container else { return };
        let container = running.container.clone();
        let hooks = async {
            let mut record = Record::read(&path);
            for plan in plans?.iter().skip(record.started) {
                run(&container, plan, "post_start", &path, &mut record).await?;
                record.started += 1;
                record.write(&path);
            }
            Ok(())
        };
        let outcome: Result<(), Failed> = tokio::select! {
            biased;
            ended = running.watch.ended() => return self.ended(ended, false),
            () = stop_wished(&mut self.wish) => return,
            outcome = hooks => outcome,
        };
        self.observed = match outcome {
            Ok(()) => Observed::Running { health: running.first_health() },
            Err(Failed { reason, killed }) => {
                let wait = if killed { END_FOLLOWS } else { Duration::ZERO };
                if let Ok(ended) = tokio::time::timeout(wait, running.watch.ended()).await {
                    return self.ended(ended, false);
                }
                Observed::Doomed { reason }
            }
        };
    }

    /// Runs all of them, whatever becomes of each, but not beyond `until`. The container's end, where it came meanwhile:
    /// some hooks ask for it themselves.
    pub(super) async fn pre_stop(&mut self, until: Instant) -> Option<Ended> {
        let runs = match self.observed {
            Observed::Started | Observed::Running { .. } | Observed::Doomed { .. } => true,
            Observed::Nothing | Observed::Created | Observed::Ended { .. } => false,
        };
        let (path, plans) = (self.record(), self.hook_plans("pre_stop"));
        let running = self.container.as_mut().filter(|_| runs)?;
        let container = running.container.clone();
        let mut failures = Vec::new();
        let hooks = async {
            let mut record = Record::read(&path);
            match plans {
                Err(failed) => failures.push(failed.reason),
                Ok(plans) => {
                    for plan in &plans {
                        let Err(failed) = run(&container, plan, "pre_stop", &path, &mut record).await else { continue };
                        if failed.killed {
                            // The container's end may be on its way, and is no failure of the hook.
                            tokio::time::sleep(END_FOLLOWS).await;
                        }
                        failures.push(failed.reason);
                    }
                }
            }
        };
        let over = tokio::select! {
            biased;
            ended = running.watch.ended() => return Some(ended),
            over = tokio::time::timeout_at(until, hooks) => over.is_err(),
        };
        if over {
            failures.push("the pre_stop hooks took longer than stop_grace_period, and were cut off".to_owned());
        }
        for failure in &failures {
            tracing::warn!(task.id = self.id(), failure, "a hook failed, the task stops all the same");
        }
        self.complaint = failures.into_iter().next();
        None
    }

    /// Ends the hook that an earlier daemon had under way.
    pub(super) async fn end_stale_hook(&self) {
        let path = self.record();
        let Record { started, leader: Some(leader) } = Record::read(&path) else { return };
        tracing::info!(task.id = self.id(), "a hook was cut off by the daemon's end, it runs again");
        let id = self.id();
        blocking(move || kill_session(&id, leader)).await;
        Record { started, leader: None }.write(&path);
    }

    fn record(&self) -> PathBuf {
        self.setup.node.container_dir(&self.id()).join(RECORD)
    }

    fn hook_plans(&self, kind: &str) -> Result<Vec<ExecPlan>, Failed> {
        let container = &self.setup.task.spec.container;
        let hooks = if kind == "pre_stop" { &container.pre_stop } else { &container.post_start };
        let plans = hooks.iter().map(|hook| self.hook_plan(hook)).collect::<Result<_, String>>();
        plans.map_err(|reason| Failed { reason: format!("{kind} hook: {reason}"), killed: false })
    }

    fn hook_plan(&self, hook: &Hook) -> Result<ExecPlan, String> {
        let Hook { command, user, working_dir, env, privileged } = hook;
        let (task, facts) = (&self.setup.task, &self.setup.node.settings.facts);
        Ok(ExecPlan {
            env: env.iter().map(|entry| expand(entry, task, facts)).collect::<Result<_, _>>()?,
            cwd: working_dir.clone(),
            user: user.clone(),
            privileged: *privileged,
            ..ExecPlan::new(command)
        })
    }
}

async fn run(
    container: &Container,
    plan: &ExecPlan,
    kind: &str,
    path: &Path,
    record: &mut Record,
) -> Result<(), Failed> {
    let shown = plan.argv.join(" ");
    let failed = |reason, killed| Err(Failed { reason, killed });
    let mut hook = match Run::start(container, plan).await {
        Ok(hook) => hook,
        Err(error) => return failed(format!("{kind} hook `{shown}` could not run: {error}"), false),
    };
    record.leader = Some(hook.leader());
    record.write(path);
    let ended = hook.ended().await;
    record.leader = None;
    record.write(path);
    match ended {
        Ok(0) => Ok(()),
        Ok(code) => {
            let last = hook.last_line().map(|line| format!(": {line}")).unwrap_or_default();
            failed(format!("{kind} hook `{shown}` ended with exit code {code}{last}"), code == KILLED)
        }
        // Whoever looks after the container is gone, and with it the container.
        Err(error) => failed(format!("{kind} hook `{shown}`: {error}"), true),
    }
}

impl Record {
    /// A record that is not there, or was cut off, knows of nothing: hooks run at least once.
    fn read(path: &Path) -> Record {
        let bytes = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn write(&self, path: &Path) {
        let json = serde_json::to_vec(self).expect("numbers are plain data");
        if let Err(error) = std::fs::write(path, json) {
            tracing::warn!(path = %path.display(), %error, "how far hooks are was not written: a restart runs them again");
        }
    }
}

/// Before a container is made anew in its folder.
pub(super) fn forget(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(folder.join(RECORD)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
