//! The machine's side: daemon starts and ends, the agent's session, its drivers' timers, its containers.

use skep_model::{Task, TaskId, TaskState, TaskStatus, lease};

use crate::agent::{self, Container, Next, Phase};
use crate::check::Violation;
use crate::clock::{MILLI, MINUTE, Nanos, SECOND};
use crate::sabotage::Sabotage;
use crate::session::{SessionId, ToAgent, ToManager};
use crate::world::{Event, World};

/// What is left of a lease when a container starts at the least.
const LEFT_AT_START_MIN: Nanos = lease::LEFT_AT_START_MIN.as_nanos() as Nanos;

/// How a task turns out, told by its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Runs,
    /// Ends with this code after that time.
    Ends(i32, Nanos),
    Rejected,
}

impl World {
    /// The daemon of a machine ends: agent and, where it has one, manager. Containers run on.
    pub fn crash(&mut self, machine: usize) {
        if !self.agents[machine].up {
            return;
        }
        self.say(|| format!("daemon {machine} crashes"));
        self.agents[machine].crash();
        self.crash_manager(machine);
    }

    pub fn cut_power(&mut self, machine: usize) {
        self.say(|| format!("machine {machine} loses power"));
        self.agents[machine].cut_power();
        self.crash_manager(machine);
    }

    fn crash_manager(&mut self, machine: usize) {
        if machine < self.managers.len() && self.managers[machine].up {
            self.managers[machine].crash();
            if self.log.leader == Some(machine) {
                self.log.leader = None;
            }
        }
    }

    pub fn start(&mut self, machine: usize) {
        if self.agents[machine].up {
            return;
        }
        self.say(|| format!("daemon {machine} starts"));
        if machine < self.managers.len() {
            self.managers[machine].up = true;
            self.restore(machine);
        }
        self.agents[machine].up = true;
        // The last assignments are on disk: they are gone on with before any manager answers.
        let tasks: Vec<Task> = self.agents[machine]
            .assigned
            .values()
            .filter_map(|assignment| match assignment {
                skep_api::Assignment::Task(task) => Some((**task).clone()),
                _ => None,
            })
            .collect();
        for task in tasks {
            self.drive(machine, task);
        }
    }

    /// A daemon that stops in order says good-bye first.
    pub fn stop_in_order(&mut self, machine: usize) {
        if let Some(session) = self.agents[machine].session {
            self.send_up(session, ToManager::Leaving);
        }
        self.crash(machine);
    }

    pub fn send_up(&mut self, session: SessionId, message: ToManager) {
        if let Some(at) = self.sessions.send_up(session, self.now, &self.network, &mut self.chance) {
            self.at(at, Event::ToManager { session, message });
        }
    }

    pub fn agent_tick(&mut self, machine: usize) {
        let agent = &self.agents[machine];
        if !agent.up {
            return;
        }
        match agent.session {
            Some(session) if self.sessions.is_broken(session) && self.chance.one_in(4) => self.end_session(machine),
            Some(session) if agent.welcomed => self.send_up(session, ToManager::Heartbeat { sent: self.now }),
            // No answer to a hello yet, for a while.
            Some(_) if self.chance.one_in(8) => self.end_session(machine),
            Some(_) => {}
            None => {
                // The manager on the same machine is the nearest.
                let near = machine < self.managers.len() && self.chance.one_in(2);
                let manager = if near { machine } else { (agent.last_manager + 1) % self.managers.len() };
                self.agents[machine].last_manager = manager;
                let session = self.sessions.open(machine, manager);
                self.agents[machine].session = Some(session);
                self.agents[machine].welcomed = false;
                self.send_up(session, ToManager::Hello);
            }
        }
    }

    fn end_session(&mut self, machine: usize) {
        if let Some(session) = self.agents[machine].session.take() {
            self.agents[machine].welcomed = false;
            self.send_up(session, ToManager::Closed);
        }
    }

    pub fn at_agent(&mut self, session: SessionId, message: ToAgent) -> Result<(), Violation> {
        let Some(machine) = self.sessions.all.get(&session).map(|session| session.machine) else { return Ok(()) };
        if self.agents[machine].session != Some(session) || !self.agents[machine].up {
            return Ok(());
        }
        match message {
            ToAgent::Closed => {
                self.agents[machine].session = None;
                self.agents[machine].welcomed = false;
                self.sessions.close(session);
            }
            ToAgent::Lease { sent, tasks } => {
                let until = sent + lease::DURATION.as_nanos() as Nanos;
                for task in tasks {
                    self.agents[machine].note_lease(task, until);
                }
            }
            ToAgent::Assignments { delta, result } => self.take_assignments(machine, delta, &result)?,
        }
        Ok(())
    }

    fn take_assignments(
        &mut self,
        machine: usize,
        delta: skep_api::Assignments,
        result: &skep_manager::AssignmentSet,
    ) -> Result<(), Violation> {
        let Some((driven, forgotten)) = self.agents[machine].take(delta) else {
            self.end_session(machine);
            return Ok(());
        };
        if self.agents[machine].assigned != *result {
            let detail = format!("machine {machine} has other assignments than its manager meant");
            return Err(Violation::new("assignments-arrive", detail));
        }
        for task in forgotten {
            if let Some(driver) = self.agents[machine].drivers.get_mut(&task) {
                driver.forgotten = true;
                let next = self.agents[machine].advance(task);
                self.follow(machine, task, next);
            }
        }
        for task in driven {
            self.drive(machine, task);
        }
        if !self.agents[machine].welcomed {
            self.agents[machine].welcomed = true;
            // Its manager may not have what was sent to another.
            for driver in self.agents[machine].drivers.values_mut() {
                driver.unsent = driver.status.state >= TaskState::Ready;
            }
        }
        self.send_reports(machine);
        Ok(())
    }

    fn drive(&mut self, machine: usize, task: Task) {
        let id = task.id;
        let next = self.agents[machine].drive(task);
        self.follow(machine, id, next);
    }

    /// Sets the timer of what a driver waits for.
    fn follow(&mut self, machine: usize, task: TaskId, next: Next) {
        if next == Next::Nothing {
            return self.send_reports(machine);
        }
        let Some(driver) = self.agents[machine].drivers.get_mut(&task) else { return };
        driver.timer += 1;
        let (timer, grace) = (driver.timer, driver.task.spec.container.stop_grace_period);
        let grace = grace.map_or(10 * SECOND, |grace| grace.as_nanos() as Nanos);
        let delay = match next {
            Next::Nothing => return,
            Next::Pull => self.chance.delay(300 * MILLI, 30 * SECOND),
            Next::Start => self.chance.delay(50 * MILLI, 2 * SECOND),
            Next::Stop => self.chance.delay(200 * MILLI, grace.max(200 * MILLI)),
            Next::Forget => return self.forget(machine, task),
        };
        let epoch = self.agents[machine].epoch;
        self.after(delay, Event::Driver { machine, epoch, task, timer });
        self.send_reports(machine);
    }

    fn forget(&mut self, machine: usize, task: TaskId) {
        self.agents[machine].drivers.remove(&task);
        if self.sabotage != Some(Sabotage::AgentKeepsContainers) {
            self.agents[machine].containers.remove(&task);
        }
    }

    pub fn driver_timer(&mut self, machine: usize, epoch: u64, task: TaskId, timer: u64) -> Result<(), Violation> {
        let agent = &self.agents[machine];
        let current = agent.up && agent.epoch == epoch;
        let Some(driver) = agent.drivers.get(&task).filter(|driver| current && driver.timer == timer) else {
            return Ok(());
        };
        let (phase, spec) = (driver.phase, driver.task.clone());
        match phase {
            Phase::Pulling if self.fate(&spec) == Fate::Rejected => {
                self.report(
                    machine,
                    task,
                    Phase::Ended,
                    TaskStatus {
                        error: Some("no such image".to_owned()),
                        ..TaskStatus::new(TaskState::Rejected, self.wall(machine), "preparing")
                    },
                );
            }
            Phase::Pulling => {
                let prepared = TaskStatus::new(TaskState::Ready, self.wall(machine), "prepared");
                self.report(machine, task, Phase::Pulled, prepared);
            }
            Phase::Starting if spec.spec.at_most_one && self.lease_left(machine, task) < LEFT_AT_START_MIN => {
                self.after(500 * MILLI, Event::Driver { machine, epoch, task, timer });
                return Ok(());
            }
            Phase::Starting => self.run_container(machine, &spec)?,
            Phase::Stopping => {
                if self.sabotage != Some(Sabotage::AgentKeepsContainers) {
                    self.agents[machine].containers.remove(&task);
                }
                let status = TaskStatus::new(TaskState::Shutdown, self.wall(machine), "shutdown");
                self.report(machine, task, Phase::Ended, status);
            }
            Phase::Pulled | Phase::Running | Phase::Ended => return Ok(()),
        }
        let next = self.agents[machine].advance(task);
        self.follow(machine, task, next);
        Ok(())
    }

    fn run_container(&mut self, machine: usize, task: &Task) -> Result<(), Violation> {
        let started = self.wall(machine);
        let slot = (task.service, task.slot);
        if task.spec.at_most_one {
            self.check_alone(machine, task)?;
        }
        let lease = self.agents[machine].leases.get(&task.id).copied().filter(|_| task.spec.at_most_one);
        let grace = task.spec.container.stop_grace().as_nanos() as Nanos;
        let container = Container { slot, started, exit: None, lease, grace };
        let power = self.agents[machine].power;
        self.agents[machine].containers.insert(task.id, container);
        self.report(machine, task.id, Phase::Running, agent::running(started));
        if let Some(lease) = lease {
            self.at(lease, Event::LeaseEnds { machine, power, task: task.id });
        }
        if let Fate::Ends(code, after) = self.fate(task) {
            self.after(after, Event::ContainerEnds { machine, power, task: task.id, code });
        }
        Ok(())
    }

    /// No other container of an at-most-one task's slot lives anywhere, in real time.
    fn check_alone(&self, machine: usize, task: &Task) -> Result<(), Violation> {
        let slot = (task.service, task.slot);
        for (other, agent) in self.agents.iter().enumerate() {
            if let Some((twin, _)) = agent.live_containers().find(|(_, container)| container.slot == slot) {
                let detail = format!(
                    "{} starts as {} on machine {machine} while {twin} lives on machine {other}",
                    task.name(),
                    task.id
                );
                return Err(Violation::new("at-most-one", detail));
            }
        }
        Ok(())
    }

    fn lease_left(&self, machine: usize, task: TaskId) -> Nanos {
        self.agents[machine].leases.get(&task).map_or(0, |until| until.saturating_sub(self.now))
    }

    /// The warden's part: it needs no daemon.
    pub fn lease_ends(&mut self, machine: usize, power: u64, task: TaskId) {
        let now = self.now;
        let agent = &self.agents[machine];
        let Some(container) = agent.containers.get(&task).filter(|_| agent.power == power) else { return };
        let (Some(until), grace) = (container.lease.filter(|_| container.exit.is_none()), container.grace) else {
            return;
        };
        if until > now {
            self.at(until, Event::LeaseEnds { machine, power, task });
        } else if self.sabotage != Some(Sabotage::AgentOutlivesLease) {
            self.say(|| format!("the lease of {task} on machine {machine} runs out"));
            let stops = self.chance.between(0, grace);
            self.after(stops, Event::ContainerEnds { machine, power, task, code: 143 });
        }
    }

    pub fn container_ends(&mut self, machine: usize, power: u64, task: TaskId, code: i32) {
        let wall = self.wall(machine);
        let agent = &mut self.agents[machine];
        let Some(container) = agent.containers.get_mut(&task).filter(|_| agent.power == power) else { return };
        container.exit = Some(code);
        let started = container.started;
        let Some(driver) = agent.drivers.get(&task).filter(|_| agent.up) else { return };
        let status = match driver.phase {
            Phase::Stopping => TaskStatus::new(TaskState::Shutdown, wall, "shutdown"),
            _ => agent::exited(code, started, wall),
        };
        self.report(machine, task, Phase::Ended, status);
        let next = self.agents[machine].advance(task);
        self.follow(machine, task, next);
    }

    fn report(&mut self, machine: usize, task: TaskId, phase: Phase, status: TaskStatus) {
        if let Some(driver) = self.agents[machine].drivers.get_mut(&task) {
            (driver.phase, driver.status, driver.unsent) = (phase, status, true);
        }
    }

    fn send_reports(&mut self, machine: usize) {
        let agent = &mut self.agents[machine];
        let Some(session) = agent.session.filter(|_| agent.welcomed) else { return };
        let tasks = agent.unsent();
        if !tasks.is_empty() {
            self.send_up(session, ToManager::Report(tasks));
        }
    }

    fn wall(&self, machine: usize) -> skep_model::Timestamp {
        self.agents[machine].wall.read(self.now)
    }

    fn fate(&mut self, task: &Task) -> Fate {
        let image = task.spec.container.image.split(':').nth(1).unwrap_or_default();
        let calm = self.healed.is_some();
        match image {
            "once" if calm && restarts_forever(task) => Fate::Runs,
            "once" => Fate::Ends(0, self.chance.between(SECOND, 20 * SECOND)),
            "flaky" if !calm && self.chance.percent(40) => Fate::Ends(1, self.chance.between(MILLI, MINUTE)),
            "bad" if !calm => Fate::Ends(1, self.chance.between(MILLI, 3 * SECOND)),
            "missing" if !calm && self.chance.percent(80) => Fate::Rejected,
            _ if !calm && self.chance.percent(2) => Fate::Ends(137, self.chance.between(SECOND, MINUTE)),
            _ => Fate::Runs,
        }
    }
}

fn restarts_forever(task: &Task) -> bool {
    let restart = task.spec.restart;
    restart.condition == skep_model::Condition::Any && (restart.max_attempts == 0 || !restart.window.is_zero())
}
