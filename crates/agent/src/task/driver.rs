//! The driver of one task: performs the steps, reports what it sees, and cleans up at the end.
//!
//! One tokio task each. It owns the container's name, its watch and its health; wishes come in over a
//! watch channel, reports go out over the reporter.
//! When the daemon stops, drivers are dropped and containers run on; the next daemon's drivers adopt them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_image::Image;
use skep_model::{ContainerStatus, DesiredState, NetworkAddress, PortSpec, Task, TaskState, TaskStatus, Timestamp};
use skep_runtime::{ClientError, Container, State};
use tokio::sync::watch;

use super::contents::{Contents, Refreshed};
use super::health::{Check, Progress};
use super::prepare::{self, Unprepared};
use super::probe;
use super::step::{Health, Observed, Step, next};
use super::template::expand;
use super::watch::{Ended, Watch};
use crate::drains::Drains;
use crate::leases::{self, Renewal, TaskLease};
use crate::network::{Attach, NetworkHandle};
use crate::node::{Node, chain, now, timestamp};
use crate::reporter::Reporter;

/// What the managers want of a task now; `Forget` once it is no longer assigned to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Be(DesiredState),
    Forget,
}

/// What a driver is started with.
pub struct DriverSetup {
    /// What its secrets and configs are to hold, once that is another content than it was made with.
    pub refreshed: watch::Receiver<Option<Arc<Refreshed>>>,
    pub node: Arc<Node>,
    pub network: NetworkHandle,
    pub reporter: Reporter,
    pub drains: Drains,
    /// Of a task that runs at most once.
    pub lease: Option<TaskLease>,
    pub task: Arc<Task>,
    pub contents: Arc<Contents>,
}

pub(super) struct Driver {
    pub(super) setup: DriverSetup,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) status: TaskStatus,
    pub(super) observed: Observed,
    pub(super) container: Option<Running>,
    image: Option<Image>,
    /// What went wrong on the way to an end that was asked for.
    pub(super) complaint: Option<String>,
}

/// A container that is there.
pub(super) struct Running {
    pub(super) container: Container,
    pub(super) watch: Watch,
    check: Option<Check>,
    pub(super) progress: Progress,
    started: Instant,
    /// Kept for its drop: with the container in hand, its lease is passed on.
    _renewal: Option<Renewal>,
}

impl Running {
    /// Before its first check.
    pub(super) fn first_health(&self) -> Health {
        if self.check.is_some() { Health::Starting } else { Health::Unchecked }
    }
}

/// Runs a task until it is forgotten.
pub async fn run(setup: DriverSetup, wish: watch::Receiver<Wish>) {
    let status = setup.task.status.clone();
    let observed = Observed::Nothing;
    let mut driver = Driver { setup, wish, status, observed, container: None, image: None, complaint: None };
    match driver.status.state.is_terminal() {
        // It ended while no daemon looked: what is left of it goes.
        true => {
            driver.be_sure_of_end().await;
            driver.release().await;
        }
        false => {
            driver.adopt().await;
            driver.drive().await;
        }
    }
    driver.await_forget().await;
    driver.forget().await;
}

impl Driver {
    pub(super) fn id(&self) -> String {
        self.setup.task.id.to_string()
    }

    fn desired(&self) -> DesiredState {
        match *self.wish.borrow() {
            Wish::Be(desired) => desired,
            Wish::Forget => DesiredState::Remove,
        }
    }

    async fn drive(&mut self) {
        loop {
            match next(self.desired(), self.status.state, &self.observed) {
                Step::Prepare => self.prepare().await,
                Step::Start => self.start().await,
                Step::PostStart => self.post_start().await,
                Step::Report(state) => self.reach(state).await,
                Step::Wait => self.wait().await,
                Step::Stop => self.stop().await,
                Step::End(state) => {
                    self.end(state).await;
                    return;
                }
            }
        }
    }

    async fn adopt_network(&mut self) {
        let (task, facts) = (&self.setup.task, &self.setup.node.settings.facts);
        let written = task.spec.container.hostname.as_ref();
        let hostname = written.and_then(|text| expand(text, task, facts).ok()).unwrap_or_else(|| task.id.short());
        let attach = Attach { adopted: true, ..Attach::of(task, hostname) };
        match self.setup.network.attach(attach).await {
            Ok(attached) => self.set_addresses(&attached.addresses, attached.host_ports),
            Err(error) => tracing::error!(task.id = self.id(), error, "an adopted container has no network"),
        }
    }

    /// Finds the container that an earlier daemon left.
    async fn adopt(&mut self) {
        let (run_dir, id) = (self.setup.node.run_dir().to_owned(), self.id());
        let found = Container::open(&run_dir, &id).and_then(|container| Ok((container.state()?, container)));
        let Ok((state, container)) = found else {
            // Nothing of it lives; a sandbox may be left, and is made anew with the container.
            return self.setup.network.vacate(self.setup.task.id).await;
        };
        let image = self.setup.task.spec.container.image.parse().ok();
        self.image = image.and_then(|reference| self.setup.node.images.find(&reference).ok().flatten());
        if !self.setup.task.spec.host_network {
            self.adopt_network().await;
        }
        self.end_stale_hook().await;
        match state {
            State::Created { pid } => self.take(container, pid, None),
            State::Running { pid, started_at } => self.take(container, pid, Some(started_at)),
            State::Exited { code, oom_killed, error, .. } => {
                self.observed = Observed::Ended { exit_code: code, oom_killed, error, stop_asked: false };
            }
        }
        tracing::info!(task.id = self.id(), "container adopted");
        // Contents may have changed while no daemon ran.
        self.refresh().await;
    }

    fn take(&mut self, container: Container, pid: i32, started_at: Option<SystemTime>) {
        let watch = match Watch::new(&container) {
            Ok(watch) => watch,
            Err(error) => return self.lost(&error),
        };
        let check = self
            .image
            .as_ref()
            .and_then(|image| Check::resolve(self.setup.task.spec.container.health_check.as_ref(), &image.config));
        let elapsed = started_at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        let started = Instant::now().checked_sub(elapsed).unwrap_or_else(Instant::now);
        let status = self.container_status();
        status.pid = u32::try_from(pid).unwrap_or(0);
        status.started_at = started_at.map(timestamp);
        let renewal = self.setup.lease.clone().map(|lease| Renewal::start(lease, container.clone()));
        let running = Running { container, watch, check, progress: Progress::new(), started, _renewal: renewal };
        self.observed = match started_at {
            None => Observed::Created,
            Some(_) if self.is_starting() => Observed::Started,
            Some(_) => Observed::Running { health: running.first_health() },
        };
        self.container = Some(running);
    }

    async fn prepare(&mut self) {
        self.report(TaskState::Preparing, "preparing");
        self.take_refreshed();
        let setup = &self.setup;
        let contents = Arc::clone(&setup.contents);
        let planned = tokio::select! {
            planned = prepare::plan(&setup.node, &setup.network, &setup.task, &contents) => planned,
            () = stop_wished(&mut self.wish) => return,
        };
        // Not given up half-way: the keeper would make the container all the same, and nobody would know of it.
        let prepared = match planned {
            Ok(planned) => planned.create(&setup.node).await,
            Err(unprepared) => Err(unprepared),
        };
        let ready = match prepared {
            Ok(ready) => ready,
            Err(unprepared) => return self.reject(unprepared),
        };
        for warning in &ready.warnings {
            tracing::warn!(task.id = self.id(), warning, "a limit cannot be held");
        }
        self.set_addresses(&ready.addresses, ready.host_ports);
        self.image = Some(ready.image);
        match Container::open(self.setup.node.run_dir(), &self.id()) {
            Ok(container) => self.take(container, 0, None),
            Err(error) => self.lost(&error),
        }
    }

    async fn start(&mut self) {
        let Some(running) = &mut self.container else { return };
        let until = match &mut self.setup.lease {
            None => None,
            Some(lease) => tokio::select! {
                until = lease.enough_to_start() => Some(until),
                ended = running.watch.ended() => return self.ended(ended, false),
                () = stop_wished(&mut self.wish) => return,
            },
        };
        let container = running.container.clone();
        let started = blocking(move || {
            if let Some(until) = until {
                container.renew_lease(until)?;
            }
            container.start()?;
            container.state()
        });
        match started.await {
            Ok(State::Running { pid, started_at }) => {
                let Some(Running { container, .. }) = self.container.take() else { return };
                self.take(container, pid, Some(started_at));
            }
            // It ran and is over already, or its end is about to be told.
            Ok(State::Exited { code, oom_killed, error, started_at, .. }) => {
                self.container_status().started_at = started_at.map(timestamp);
                self.observed = Observed::Ended { exit_code: code, oom_killed, error, stop_asked: false };
            }
            Ok(State::Created { .. }) => {}
            // The machine stood still for as long as the lease lasted: it needs a new one.
            Err(ClientError::Refused(failure)) if failure.step == "lease" => {}
            Err(ClientError::Refused(failure)) => {
                let (exit_code, error) = (failure.exit_code, Some(failure.message));
                self.observed = Observed::Ended { exit_code, oom_killed: false, error, stop_asked: false };
            }
            Err(error) => self.lost(&error),
        }
    }

    async fn reach(&mut self, state: TaskState) {
        let message = match state {
            TaskState::Ready => "prepared",
            TaskState::Starting => "starting",
            _ => "started",
        };
        if state == TaskState::Running {
            self.setup.network.set_serving(self.setup.task.id, true).await;
        }
        self.report(state, message);
    }

    /// Waits for whatever comes first: the end, a new wish, the next probe.
    async fn wait(&mut self) {
        let Some(running) = &mut self.container else {
            // Nothing is there and nothing is wanted yet.
            return drop(self.wish.changed().await);
        };
        let checks = matches!(self.observed, Observed::Running { .. });
        let Running { container, watch, check, progress, started, _renewal: _ } = running;
        let check = check.as_ref().filter(|_| checks);
        let pause = check.map(|check| check.pause(progress, started.elapsed()));
        tokio::select! {
            ended = watch.ended() => self.ended(ended, false),
            changed = self.wish.changed() => if changed.is_err() { std::future::pending().await },
            Ok(()) = self.setup.refreshed.changed() => {
                self.take_refreshed();
                self.refresh().await;
            }
            () = sleep_or_forever(pause) => {
                let Some(check) = check else { return };
                let (container, argv, timeout) = (container.clone(), check.argv.clone(), check.timeout);
                tokio::select! {
                    (code, output) = blocking(move || probe::run(&container, &argv, timeout)) => {
                        progress.record(check, code, output, started.elapsed());
                        self.observed = Observed::Running { health: progress.health };
                    }
                    // A probe that hangs holds up neither the end nor a stop; it ends with the container.
                    ended = watch.ended() => self.ended(ended, false),
                    () = stop_wished(&mut self.wish) => {}
                }
            }
        }
    }

    pub(super) fn ended(&mut self, ended: Ended, stop_asked: bool) {
        let Ended { exit_code, oom_killed, error } = ended;
        self.observed = Observed::Ended { exit_code, oom_killed, error, stop_asked };
    }

    async fn end(&mut self, state: TaskState) {
        self.be_sure_of_end().await;
        let Observed::Ended { exit_code, oom_killed, error, .. } = self.observed.clone() else {
            let message = if state == TaskState::Shutdown { "shutdown" } else { "" };
            if !self.status.state.is_terminal() {
                self.report(state, message);
            }
            return self.release().await;
        };
        let memory = self.setup.task.spec.resources.limits.memory;
        let status = self.container_status();
        (status.exit_code, status.oom_killed, status.pid) = (Some(exit_code), oom_killed, 0);
        let reason = match (&error, oom_killed) {
            (Some(error), _) => Some(error.clone()),
            (None, true) => Some(match memory {
                Some(limit) => format!("OOM killed: it used more than its memory limit of {} bytes", limit.0),
                None => "OOM killed: the machine ran out of memory".to_owned(),
            }),
            (None, false) => None,
        };
        self.status.error = match state {
            TaskState::Failed => Some(match reason {
                Some(reason) if exit_code == 0 => format!("task: {reason}"),
                Some(reason) => format!("task: non-zero exit ({exit_code}): {reason}"),
                None => format!("task: non-zero exit ({exit_code})"),
            }),
            _ => self.complaint.take(),
        };
        let message = match state {
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            _ => "started",
        };
        self.report(state, message);
        self.release().await;
    }

    /// Where the slot's next task waits for this one's end.
    async fn be_sure_of_end(&mut self) {
        if self.setup.lease.is_some() {
            // With the container in hand its lease would be renewed.
            drop(self.container.take());
            let grace = self.setup.task.spec.container.stop_grace();
            leases::await_end(self.setup.node.run_dir(), &self.id(), grace).await;
        }
    }

    /// Before it started: the image, the network, a mount or the command is wrong.
    fn reject(&mut self, unprepared: Unprepared) {
        let Unprepared { reason, exit_code } = unprepared;
        tracing::info!(task.id = self.id(), reason, "task rejected");
        if exit_code.is_some() {
            self.container_status().exit_code = exit_code;
        }
        self.status.error = Some(reason);
        self.report(TaskState::Rejected, "preparing");
    }

    fn lost(&mut self, error: &ClientError) {
        let error = Some(chain(error));
        self.observed = Observed::Ended { exit_code: 255, oom_killed: false, error, stop_asked: false };
    }

    /// Gives back what an ended container does not need: warden, cgroup, network, secrets. Its files and
    /// log stay until the task is forgotten.
    async fn release(&mut self) {
        let (run_dir, id) = (self.setup.node.run_dir().to_owned(), self.id());
        let known = self.container.take().map(|running| running.container);
        let released = blocking(move || match known.map_or_else(|| Container::open(&run_dir, &id), Ok) {
            Ok(container) => container.release(),
            Err(_) => Ok(()),
        });
        if let Err(error) = released.await {
            tracing::warn!(task.id = self.id(), error = chain(&error), "a container's supervisor was not released");
        }
        self.setup.network.detach(self.setup.task.id).await;
        let (node, id) = (Arc::clone(&self.setup.node), self.id());
        if let Err(error) = blocking(move || node.volumes.give_back(&id)).await {
            tracing::warn!(task.id = self.id(), %error, "a task's volumes were not unmounted");
        }
        if let Err(error) = self.setup.node.secrets.forget(&self.id()) {
            tracing::warn!(task.id = self.id(), %error, "a task's secrets were not removed");
        }
    }

    async fn await_forget(&mut self) {
        // The sender's end is a daemon that stops: nothing is forgotten then.
        if self.wish.wait_for(|wish| *wish == Wish::Forget).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn forget(&mut self) {
        self.release().await;
        let folder = self.setup.node.container_dir(&self.id());
        let removed = blocking(move || std::fs::remove_dir_all(folder)).await;
        if let Err(error) =
            removed.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        {
            tracing::warn!(task.id = self.id(), %error, "a container's folder was not removed");
        }
        self.setup.reporter.forget(self.setup.task.id);
    }

    fn container_status(&mut self) -> &mut ContainerStatus {
        let id = self.setup.task.id.to_string();
        self.status.container.get_or_insert_with(|| ContainerStatus { container_id: id, ..ContainerStatus::default() })
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.status.addresses.iter().flat_map(NetworkAddress::both).collect()
    }

    fn set_addresses(&mut self, addresses: &[NetworkAddress], ports: Vec<PortSpec>) {
        self.status.addresses = addresses.to_vec();
        self.status.ports = ports;
    }

    pub(super) fn report(&mut self, state: TaskState, message: &str) {
        tracing::debug!(
            task.id = self.id(),
            state.from = self.status.state.word(),
            state.to = state.word(),
            "task moved"
        );
        (self.status.state, self.status.at) = (state, self.time_of(state));
        self.status.message = message.to_owned();
        let health = match self.observed {
            Observed::Running { health: Health::Healthy } => Some(true),
            Observed::Running { health: Health::Unhealthy } => Some(false),
            _ => None,
        };
        self.setup.reporter.report(&self.setup.task, &self.status, health);
    }

    /// A container without a health check runs since it started, so that adopting it changes nothing.
    fn time_of(&self, state: TaskState) -> Timestamp {
        let unchecked = self.observed == Observed::Running { health: Health::Unchecked };
        let started = self.status.container.as_ref().and_then(|container| container.started_at);
        started.filter(|_| state == TaskState::Running && unchecked).unwrap_or_else(now)
    }
}

pub(super) async fn stop_wished(wish: &mut watch::Receiver<Wish>) {
    let stops = |wish: &Wish| matches!(wish, Wish::Forget | Wish::Be(DesiredState::Shutdown | DesiredState::Remove));
    if wish.wait_for(stops).await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_or_forever(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work for a container does not panic")
}
