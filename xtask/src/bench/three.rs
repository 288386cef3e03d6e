//! Three managers that also run tasks, of skep or of Docker Swarm, each in a lab node: one command line does for both.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use skep_lab::{Cluster, Docker, Lab, Node, Outcome, Registry};

use super::docker::IMAGE;
use super::measure::{self, Cost};
use super::tools::Bench;

pub const MANAGERS: u8 = 3;
/// The service's name: of the stack `bench`, the service `s`.
const SERVICE: &str = "bench_s";
/// A shell as the first process hears no signal that it does not ask for.
const OBEDIENT: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
const PATIENCE: Duration = Duration::from_secs(300);
/// A command that waits longer for a dead manager is given up and begun again.
const COMMAND_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Three<'a> {
    lab: Lab,
    /// Whose swarm it is; skep's cluster without.
    docker: Option<&'a Docker>,
    registries: Vec<Registry>,
}

impl<'a> Three<'a> {
    pub fn skep(bench: &Bench) -> Result<Three<'static>> {
        let lab = Lab::builder().nodes(MANAGERS).binary(bench.skep()?).build()?;
        Cluster::form(&lab, MANAGERS)?;
        Three { lab, docker: None, registries: Vec::new() }.with_image(bench)
    }

    pub fn swarm(bench: &'a Bench) -> Result<Three<'a>> {
        let docker = bench.docker()?;
        let lab = Lab::builder().nodes(MANAGERS).build()?;
        for node in lab.nodes() {
            docker.start(node)?;
        }
        let first = lab.node(1);
        docker.run(first, &["swarm", "init", "--advertise-addr", &first.address().to_string()])?.ok()?;
        let token = docker.run(first, &["swarm", "join-token", "--quiet", "manager"])?.ok()?;
        let address = format!("{}:2377", first.address());
        for node in &lab.nodes()[1..] {
            docker.run(node, &["swarm", "join", "--token", token.trim(), &address])?.ok()?;
        }
        Three { lab, docker: Some(docker), registries: Vec::new() }.with_image(bench)
    }

    fn with_image(mut self, bench: &Bench) -> Result<Three<'a>> {
        for number in 1..=MANAGERS {
            self.registries.push(self.lab.node(number).start_registry(bench.images()?)?);
            let pull: &[&str] = if self.docker.is_some() { &["pull", "--quiet"] } else { &["image", "pull"] };
            self.run(number, &[pull, &[IMAGE]].concat())?.ok()?;
        }
        Ok(self)
    }

    pub fn node(&self, number: u8) -> &Node {
        self.lab.node(number)
    }

    /// Any other manager than `number`.
    pub fn beside(number: u8) -> u8 {
        number % MANAGERS + 1
    }

    fn command(&self, number: u8) -> Result<Command> {
        let node = self.node(number);
        Ok(match self.docker {
            Some(docker) => docker.client(node),
            None => node.command(node.binary()?),
        })
    }

    fn run(&self, number: u8, args: &[&str]) -> Result<Outcome> {
        Outcome::of(self.command(number)?.args(args), &args.join(" "))
    }

    /// Runs a command; `false` when it fails or takes too long.
    fn try_run(&self, number: u8, args: &[&str]) -> Result<bool> {
        let mut command = self.command(number)?;
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start the command line")?;
        let deadline = Instant::now() + COMMAND_MAX;
        loop {
            match child.try_wait().context("cannot wait for the command line")? {
                Some(status) => return Ok(status.success()),
                None if Instant::now() > deadline => {
                    child.kill().context("cannot end the command line")?;
                    child.wait().context("cannot wait for the command line")?;
                    return Ok(false);
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The number of the node that leads.
    pub fn leader(&self) -> Result<u8> {
        let list = self.run(1, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?.ok()?;
        let leader = list.lines().find_map(|line| line.strip_suffix(" Leader"));
        let node = self.lab.nodes().iter().find(|node| Some(node.name()) == leader);
        node.map(Node::number).with_context(|| format!("no node leads:\n{list}"))
    }

    /// Deploys a service of `replicas` tasks and returns once all of them run.
    pub fn deploy(&self, replicas: usize) -> Result<()> {
        let count = replicas.to_string();
        if self.docker.is_some() {
            let create = ["service", "create", "--detach", "--quiet", "--name", SERVICE, "--replicas", &count, IMAGE];
            self.run(1, &[&create[..], &["sleep", "100000"]].concat())?.ok()?;
        } else {
            let file = self.node(1).folder().join("compose.yml");
            let compose = format!(
                "services:\n  s:\n    image: {IMAGE}\n    command: [sleep, \"100000\"]\n    deploy:\n      replicas: {count}\n"
            );
            fs::write(&file, compose).with_context(|| format!("cannot write {}", file.display()))?;
            let file = file.to_str().context("the lab's folder is not UTF-8")?;
            self.run(1, &["stack", "deploy", "--detach", "-c", file, "bench"])?.ok()?;
        }
        self.wait_for_tasks(1, replicas, None).map(drop)
    }

    /// Creates a service of `replicas` tasks that end at once when they are told to; seconds until all of them run.
    pub fn create(&self, replicas: usize) -> Result<f64> {
        let (start, count) = (Instant::now(), replicas.to_string());
        let create = ["service", "create", "--detach", "--quiet", "--name", SERVICE, "--replicas", &count, IMAGE];
        self.run(1, &[&create[..], &["sh", "-c", OBEDIENT]].concat())?.ok()?;
        self.wait_for_tasks(1, replicas, None)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Replaces the tasks of the service one after the other; seconds until the update says that it is completed.
    pub fn update(&self) -> Result<f64> {
        let start = Instant::now();
        let how =
            ["--update-parallelism", "1", "--update-delay", "0s", "--update-monitor", "100ms", "--env-add", "V=2"];
        let update = [&["service", "update", "--detach", "--quiet"], &how[..], &[SERVICE]].concat();
        self.run(1, &update)?.ok()?;
        loop {
            let state = self.run(1, &["service", "inspect", "--format", "{{.UpdateStatus.State}}", SERVICE])?;
            if state.stdout.trim() == "completed" {
                return Ok(start.elapsed().as_secs_f64());
            }
            if start.elapsed() > PATIENCE {
                bail!("the update is not completed after {PATIENCE:?}: {state}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Seconds until `replicas` tasks run, none of them on the node `but`, as the manager `number` shows it.
    pub fn wait_for_tasks(&self, number: u8, replicas: usize, but: Option<u8>) -> Result<f64> {
        let start = Instant::now();
        let gone = but.map(|gone| self.node(gone).name().to_owned());
        let format = "{{.Node}} {{.CurrentState}}";
        loop {
            let list =
                self.run(number, &["service", "ps", SERVICE, "-f", "desired-state=running", "--format", format])?;
            let runs = |line: &&str| {
                let mut words = line.split(' ');
                words.next().map(str::to_owned) != gone && words.next() == Some("Running")
            };
            let running = list.stdout.lines().filter(runs).count();
            if running >= replicas {
                return Ok(start.elapsed().as_secs_f64());
            }
            if start.elapsed() > PATIENCE {
                bail!("{running} of {replicas} tasks run after {PATIENCE:?}: {list}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Seconds until the manager `number` accepts a write.
    pub fn wait_for_write(&self, number: u8) -> Result<f64> {
        let start = Instant::now();
        let file = self.node(number).folder().join("written");
        fs::write(&file, "x").with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.to_str().context("the lab's folder is not UTF-8")?;
        for attempt in 0.. {
            if self.try_run(number, &["config", "create", &format!("written-{attempt}"), file])? {
                break;
            }
            if start.elapsed() > PATIENCE {
                bail!("no write was accepted within {PATIENCE:?}");
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// SIGKILL to the daemon of a manager; what it runs is left alone.
    pub fn kill_daemon(&self, number: u8) -> Result<()> {
        match self.docker {
            None => self.node(number).kill_daemon(skep_lab::StopSignal::Kill),
            Some(_) => {
                let daemons = self.costs(number)?;
                let dockerd = daemons.iter().find(|cost| cost.name == "dockerd").context("no dockerd runs")?;
                let process = skep_lab::ProcessId::of(dockerd.pid).context("dockerd has ended")?;
                process.stop(skep_lab::StopSignal::Kill, Duration::from_secs(60))
            }
        }
    }

    /// What the processes of the node cost that are not containers'.
    pub fn costs(&self, number: u8) -> Result<Vec<Cost>> {
        let node = self.node(number);
        let registry = self.registries.get(usize::from(number) - 1).map(|registry| registry.process().pid);
        let others = [Some(node.holder().pid), registry];
        let pids: Vec<i32> = node.processes()?.into_iter().filter(|pid| !others.contains(&Some(*pid))).collect();
        Ok(measure::costs(&pids).into_iter().filter(|cost| cost.name != "sleep").collect())
    }
}
