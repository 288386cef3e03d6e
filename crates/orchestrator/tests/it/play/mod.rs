//! Scripts: what users and machines do, line by line, and what becomes of it.
//!
//! A line that begins with `>` is a command, and what follows it is its output. `run 5s` lets time pass and tells what
//! happens meanwhile; letters tell a slot's tasks apart. `UPDATE_SCRIPTS=1` writes the output anew.

pub mod agents;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use skep_model::*;
use skep_orchestrator::next_wakeup;

use crate::sim::{Sim, spec};
use agents::{Agents, Behaviour, is_up};
use words::{edit, seconds};

/// A cluster, its agents, and what a script has seen of them.
pub struct Play {
    pub sim: Sim,
    pub agents: Agents,
    began: Timestamp,
    nodes: BTreeMap<String, NodeId>,
    seen: BTreeMap<TaskId, (TaskState, DesiredState, Option<String>)>,
    letters: BTreeMap<TaskId, String>,
    made: BTreeMap<String, usize>,
    told: BTreeMap<ServiceId, String>,
    leaders: u128,
    /// The fewest tasks of each service that served at one time.
    pub least: BTreeMap<String, usize>,
    out: String,
}

impl Play {
    pub fn new() -> Self {
        let mut sim = Sim::new(0);
        // 2027-01-15 12:00:00 UTC, a Friday.
        sim.now = Timestamp(1_800_014_400_000_000_000);
        let began = sim.now;
        Self {
            sim,
            agents: Agents::default(),
            began,
            nodes: BTreeMap::new(),
            seen: BTreeMap::new(),
            letters: BTreeMap::new(),
            made: BTreeMap::new(),
            told: BTreeMap::new(),
            leaders: 1000,
            least: BTreeMap::new(),
            out: String::new(),
        }
    }

    pub fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["nodes", count, rest @ ..] => self.add_nodes(count.parse().unwrap(), rest),
            ["node", name, what] => self.set_node(name, what),
            ["image", name, rest @ ..] => self.agents.images.entry((*name).to_owned()).or_default().read(rest),
            ["create", name, rest @ ..] => {
                let mut new = spec(name, 1);
                new.update.monitor = Duration::from_secs(5);
                rest.iter().for_each(|word| edit(&mut new, word));
                self.sim.create(new);
            }
            ["update", name, rest @ ..] => {
                let id = self.service(name);
                self.sim.update(id, |spec| rest.iter().for_each(|word| edit(spec, word)));
            }
            ["rollback", name] => {
                let id = self.service(name);
                let previous = self.sim.cluster.services[&id].previous_spec().unwrap().clone();
                self.sim.update(id, |spec| *spec = previous);
            }
            ["remove", name] => {
                let service = self.service(name);
                self.sim.apply(Change::RemoveService { service });
            }
            // All that a new leader has is the cluster.
            ["leader", "change"] => {
                self.leaders += 1;
                self.sim.ids = IdSource::from_seed(self.leaders);
            }
            ["clock", "jump", by] => {
                self.sim.now = self.sim.now.after(seconds(by));
            }
            ["run", span] => self.run_for(seconds(span)),
            ["quietly", span] => {
                self.run_for(seconds(span));
                self.out.clear();
            }
            ["show", name] => self.show(name),
            ["writes", span] => {
                let before = self.sim.index;
                self.run_for(seconds(span));
                writeln!(self.out, "{} writes", self.sim.index - before).unwrap();
            }
            _ => panic!("not a command: {line}"),
        }
        std::mem::take(&mut self.out)
    }

    pub fn add_nodes(&mut self, count: usize, words: &[&str]) {
        let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let cpus: u64 = value("cpus").map_or(4, |cpus| cpus.parse().unwrap());
        for _ in 0..count {
            let hostname = format!("n{}", self.nodes.len() + 1);
            let resources = NodeResources { nano_cpus: NanoCpus(cpus * 1_000_000_000), memory: MemoryBytes(8 << 30) };
            let description = NodeDescription { hostname: hostname.clone(), resources, ..NodeDescription::default() };
            // Ids in the order of the names: scripts read better.
            let id = NodeId::from_u128(1000 + self.nodes.len() as u128);
            let node = Node {
                id,
                meta: Meta::new(self.sim.now),
                spec: NodeSpec::default(),
                description: Some(description),
                status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
                manager: None,
                certificate: Default::default(),
                tunnel: None,
            };
            self.sim.apply(Change::CreateNode { node: Box::new(node) });
            self.nodes.insert(hostname, id);
        }
    }

    pub fn set_node(&mut self, name: &str, what: &str) {
        let node = self.sim.cluster.nodes[&self.nodes[name]].clone();
        let mut spec = node.spec.clone();
        let (id, at) = (node.id, self.sim.now);
        let state = |state| Change::ReportNode {
            node: id,
            description: None,
            status: NodeStatus { state, ..NodeStatus::default() },
            at,
        };
        match what {
            "down" => return self.sim.apply(state(NodeState::Down)),
            "up" => return self.sim.apply(state(NodeState::Ready)),
            "drain" => spec.availability = Availability::Drain,
            "pause" => spec.availability = Availability::Pause,
            "active" => spec.availability = Availability::Active,
            label => {
                let (key, value) = label.split_once('=').unwrap();
                spec.labels.insert(key.to_owned(), value.to_owned());
            }
        }
        self.sim.apply(Change::UpdateNodeSpec { node: id, expected: node.meta.version, spec, at });
    }

    pub fn service(&self, name: &str) -> ServiceId {
        self.sim.cluster.service_named(name).unwrap_or_else(|| panic!("no service {name}")).id
    }

    /// Time passes from one thing that is due to the next.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.sim.now.after(span);
        loop {
            for _ in 0..100 {
                let before = self.sim.index;
                self.sim.managers();
                self.tell();
                self.agents.step(&mut self.sim);
                self.tell();
                if self.sim.index == before {
                    break;
                }
            }
            let due = [next_wakeup(&self.sim.cluster, self.sim.now), self.agents.next_due(&self.sim)];
            match due.into_iter().flatten().min().filter(|at| *at <= end) {
                Some(at) => self.sim.now = at,
                None => break,
            }
        }
        self.sim.now = end;
    }

    /// Says what is new.
    fn tell(&mut self) {
        for service in self.sim.cluster.services.values() {
            let serving = self.serving(service.id).count();
            let least = self.least.entry(service.name().to_owned()).or_insert(serving);
            *least = serving.min(*least);
        }
        let at = self.sim.now.since(self.began).as_millis() as f64 / 1000.0;
        let mut tasks: Vec<Arc<Task>> = self.sim.cluster.tasks.values().cloned().collect();
        tasks.sort_by_key(|task| (task.service_name.clone(), task.slot, task.meta.created_at, task.id));
        for task in &tasks {
            let name = self.name(task);
            let now = (task.status.state, task.desired, task.status.error.clone());
            let before = self.seen.insert(task.id, now.clone());
            let mut say = |what: String| writeln!(self.out, "{at:>7.1}  {name} {what}").unwrap();
            let image = &task.spec.container.image;
            let error = task.status.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            match &before {
                None if task.desired == DesiredState::Ready => say(format!("made to be ready, {image}{error}")),
                None => say(format!("made, {image}{error}")),
                Some((_, _, told)) if task.status.state <= TaskState::Pending && *told != task.status.error => {
                    say(format!("{}{error}", task.status.state.word()));
                }
                Some(_) => {}
            }
            let (state, desired) =
                before.map_or((TaskState::Pending, task.desired), |(state, desired, _)| (state, desired));
            if desired < DesiredState::Shutdown
                && task.desired >= DesiredState::Shutdown
                && !task.status.state.is_terminal()
            {
                say("is to stop".to_owned());
            }
            if state < task.status.state {
                let node =
                    task.node.map(|node| self.sim.cluster.nodes[&node].hostname().to_owned()).unwrap_or_default();
                match task.status.state {
                    TaskState::Ready => say("prepared".to_owned()),
                    TaskState::Running => say(format!("runs on {node}")),
                    ended if ended.is_terminal() => say(format!("{}{error}", ended.word())),
                    _ => {}
                }
            }
        }
        for service in self.sim.cluster.services.values() {
            let status = service.update_status.as_ref().map(|status| format!("{:?}: {}", status.state, status.message));
            let job = service.job.as_ref().map(|job| job.message.clone()).filter(|message| !message.is_empty());
            let text = status.or(job).unwrap_or_default();
            let known = self.told.entry(service.id).or_default();
            if *known != text {
                known.clone_from(&text);
                if !text.is_empty() {
                    let text = self.letters.iter().fold(text, |text, (id, name)| text.replace(&id.to_string(), name));
                    writeln!(self.out, "{at:>7.1}  {}: {text}", service.name()).unwrap();
                }
            }
        }
    }

    /// `web.1b`, the second task that was seen of a slot.
    fn name(&mut self, task: &Task) -> String {
        if let Some(known) = self.letters.get(&task.id) {
            return known.clone();
        }
        let slot = match task.slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => self.sim.cluster.nodes.get(&node).map_or("?", |node| node.hostname()).to_owned(),
        };
        let name = format!("{}.{slot}", task.service_name);
        let made = self.made.entry(name.clone()).or_default();
        let letter = (b'a' + (*made % 26) as u8) as char;
        *made += 1;
        let name = format!("{name}{letter}");
        self.letters.insert(task.id, name.clone());
        name
    }

    fn serving(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let runs = |task: &&Arc<Task>| task.is_live() && task.status.state == TaskState::Running;
        let tasks = self.sim.cluster.tasks_of_service(service).filter(runs);
        tasks.filter(|task| task.node.is_some_and(|node| is_up(&self.sim.cluster, node)))
    }

    /// What serves: how many of which image, and how the update is.
    fn show(&mut self, name: &str) {
        let id = self.service(name);
        let service = self.sim.cluster.services[&id].clone();
        let mut images: BTreeMap<String, usize> = BTreeMap::new();
        for task in self.serving(id) {
            *images.entry(task.spec.container.image.clone()).or_default() += 1;
        }
        let images: Vec<String> = images.into_iter().map(|(image, count)| format!("{count} × {image}")).collect();
        let runs = if images.is_empty() { "nothing runs".to_owned() } else { images.join(", ") };
        let status = service.update_status.as_ref().map(|status| match status.progress {
            Some(progress) => format!("; {:?} {}/{}", status.state, progress.done, progress.slots),
            None => format!("; {:?}", status.state),
        });
        let job = service.job.as_ref().map(|job| {
            let of_run = self.sim.cluster.tasks_of_service(id).filter(|task| task.iteration == Some(job.iteration));
            let done = of_run.filter(|task| task.status.state == TaskState::Complete).count();
            format!("; run {}, {done} completed", job.iteration)
        });
        let (status, job) = (status.unwrap_or_default(), job.unwrap_or_default());
        let revisions = service.revisions.len();
        writeln!(self.out, "{name}: {runs}{status}{job}; {revisions} revisions").unwrap();
    }
}

impl Behaviour {
    /// `runs`, `pull=3s`, `rejected=why`, `exits=1 after=3s`, `healthy=never`
    fn read(&mut self, words: &[&str]) {
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "runs" => *self = Self::default(),
                "pull" => self.pull = seconds(value),
                "start" => self.start = seconds(value),
                "stop" => self.stop = seconds(value),
                "rejected" => self.rejected = Some(value.replace('_', " ")),
                "exits" => self.exits = Some((value.parse().unwrap(), Duration::ZERO)),
                "after" => self.exits = self.exits.map(|(code, _)| (code, seconds(value))),
                "healthy" => self.healthy = (value != "never").then(|| seconds(value)),
                _ => panic!("not a behaviour: {word}"),
            }
        }
    }
}

/// Runs every script of the folder; a file holds several, each after a line of its own.
#[test]
fn scripts_go_as_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut different) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let played = play_all(&text, &mut count);
        if played != text && std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&file, &played).unwrap();
        } else if played != text {
            let mut lines = text.lines().zip(played.lines()).enumerate();
            let at =
                lines.find(|(_, (a, b))| a != b).map_or(text.lines().count().min(played.lines().count()), |(at, _)| at);
            let shown = |text: &str| text.lines().skip(at).take(6).collect::<Vec<_>>().join("\n");
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            different.push(format!("{name}:{}: written\n{}\nplayed\n{}", at + 1, shown(&text), shown(&played)));
        }
    }
    assert!(different.is_empty(), "{}\nUPDATE_SCRIPTS=1 writes what was played", different.join("\n\n"));
    assert!(count >= 40, "only {count} scripts");
}

fn play_all(text: &str, count: &mut usize) -> String {
    let mut played = String::new();
    let mut play = Play::new();
    for line in text.lines() {
        if line.starts_with("== ") {
            play = Play::new();
            *count += 1;
            if !played.is_empty() {
                played.push('\n');
            }
            writeln!(played, "{line}").unwrap();
        } else if let Some(command) = line.strip_prefix("> ") {
            writeln!(played, "{line}").unwrap();
            played.push_str(&play.command(command));
        } else if line.starts_with('#') {
            writeln!(played, "{line}").unwrap();
        }
    }
    played
}
