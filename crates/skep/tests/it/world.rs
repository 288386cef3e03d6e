//! A lab with a registry and the built `skep` in it; what the tests ask of it, and what it tells when one fails.
//!
//! Waits are for events, with a deadline that only a hang reaches. A panic prints what the cluster and the daemons said.
//! `SKEP_TEST_KEEP=1` leaves the lab of a failed test up.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use skep_lab::{HttpAnswer, Lab, Node, Outcome, Registry, StopSignal, http_get, images_folder};

/// Only a hang takes this long: the machine is shared, and the binary is not optimized.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After which a command counts as hung.
const COMMAND_SECONDS: &str = "300";
const LOG_LINES: usize = 60;

/// A service that does nothing: `<<: *idle` in a file for [`World::deploy`].
const IDLE: &str =
    "x-idle: &idle { image: \"${REGISTRY}/busybox:1\", command: [\"sleep\", \"100000\"], stop_grace_period: 1s }\n";

pub struct World {
    lab: Option<Lab>,
    registry: Option<Registry>,
    registry_name: String,
    /// The node that is asked, and is meant where no other is named.
    asked: AtomicU8,
}

/// A row of `service ps`.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub name: String,
    pub image: String,
    pub node: String,
    pub desired: String,
    /// `Running`, without since when.
    pub state: String,
    pub error: String,
}

impl World {
    /// One node, a cluster of one.
    pub fn new() -> World {
        let world = World::bare();
        world.ok(&["init"]);
        world
    }

    /// One node where skep was never started, with a registry on its loopback.
    pub fn bare() -> World {
        let lab = Lab::builder().binary(binary()).build().unwrap();
        let registry = lab.node(1).start_registry(&images_folder().unwrap()).unwrap();
        World { registry_name: registry.name(), registry: Some(registry), lab: Some(lab), asked: AtomicU8::new(1) }
    }

    /// As many nodes, none of them started, with a registry that all reach.
    pub fn of_nodes(nodes: u8) -> World {
        let lab = Lab::builder().nodes(nodes).binary(binary()).build().unwrap();
        let registry = lab.start_registry(&images_folder().unwrap()).unwrap();
        World { registry_name: registry.name(), registry: Some(registry), lab: Some(lab), asked: AtomicU8::new(1) }
    }

    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("the lab is there until the world is dropped")
    }

    pub fn node(&self) -> &Node {
        self.lab().node(self.asked.load(Ordering::Relaxed))
    }

    /// From now on node `number` is asked.
    pub fn ask(&self, number: u8) {
        self.asked.store(number, Ordering::Relaxed);
    }

    /// What images of the lab's registry begin with.
    pub fn images(&self) -> String {
        format!("{}/library", self.registry_name)
    }

    pub fn stop_registry(&mut self) {
        self.registry.take().expect("the registry runs").stop().unwrap();
    }

    pub fn start_registry(&mut self) {
        self.serve(&images_folder().unwrap());
    }

    /// A registry in the place of the usual one, with the storage folder `images`.
    pub fn serve(&mut self, images: &Path) {
        self.registry = Some(self.node().start_registry(images).unwrap());
    }

    /// A command line that can be given more before it runs.
    pub fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = node.command("timeout");
        command.args(["--kill-after=5", COMMAND_SECONDS]).arg(node.binary().unwrap()).args(args);
        command.env("REGISTRY", self.images());
        command
    }

    /// `skep ARGS` on the node that is asked, to its end.
    pub fn skep(&self, args: &[&str]) -> Outcome {
        self.skep_on(self.node(), args)
    }

    pub fn skep_on(&self, node: &Node, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(node, args), &format!("{}$ skep {}", node.name(), args.join(" "))).unwrap()
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        self.skep(args).ok().unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a command that must fail wrote to standard error.
    pub fn refused(&self, args: &[&str]) -> String {
        let outcome = self.skep(args);
        assert_ne!(outcome.code, 0, "{outcome}");
        outcome.stderr
    }

    /// A file in the folder that compose files of [`World::deploy`] are in.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.node().folder().join("files");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A folder for bind mounts that everybody in a container may write to.
    pub fn shared_folder(&self, name: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.node().folder().join("files").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    /// Writes the compose file of a stack; its path.
    pub fn compose(&self, stack: &str, yaml: &str) -> String {
        let text = if yaml.contains("*idle") { format!("{IDLE}{yaml}") } else { yaml.to_owned() };
        self.file(&format!("{stack}.yml"), &text).to_str().unwrap().to_owned()
    }

    pub fn deploy(&self, stack: &str, yaml: &str) -> Outcome {
        let file = self.compose(stack, yaml);
        self.skep(&["stack", "deploy", "-c", &file, stack])
    }

    /// Deploys a stack that must come up.
    pub fn up(&self, stack: &str, yaml: &str) -> String {
        self.deploy(stack, yaml).ok().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Deploys without waiting for the outcome.
    pub fn start(&self, stack: &str, yaml: &str) {
        let file = self.compose(stack, yaml);
        self.ok(&["stack", "deploy", "--detach", "-c", &file, stack]);
    }

    /// A listing as the objects of `--format json`.
    pub fn rows(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ok(&[args, &["--no-trunc", "--format", "json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("an object: {line}"))).collect()
    }

    /// All tasks of a service, past ones too, the newest of each slot first.
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        self.rows(&["service", "ps", service]).iter().map(Task::read).collect()
    }

    pub fn running(&self, service: &str) -> Vec<Task> {
        self.tasks(service).into_iter().filter(|task| task.state == "Running" && task.desired == "Running").collect()
    }

    /// Waits until as many tasks of the service run.
    pub fn until_running(&self, service: &str, count: usize) -> Vec<Task> {
        self.until(&format!("{count} tasks of {service} run"), || {
            let running = self.running(service);
            if running.len() == count { Ok(running) } else { Err(format!("{:?}", self.tasks(service))) }
        })
    }

    /// Looks until `look` succeeds; what it said last is in the panic when it never does.
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        self.until_within(PATIENCE, what, look)
    }

    /// The same for what takes longer.
    pub fn until_within<T>(&self, patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + patience;
        loop {
            match look() {
                Ok(found) => return found,
                Err(last) if Instant::now() > deadline => panic!("waited in vain until {what}; last: {last}"),
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Runs a command in a task.
    pub fn exec(&self, task: &str, command: &[&str]) -> Outcome {
        self.skep(&[&["exec", task], command].concat())
    }

    /// What a shell in a task says; it must succeed.
    pub fn sh(&self, task: &str, script: &str) -> String {
        let outcome = self.exec(task, &["sh", "-c", script]);
        outcome.ok().unwrap_or_else(|error| panic!("{error}")).trim_end().to_owned()
    }

    /// One request from the network outside.
    pub fn get_outside(&self, address: impl Into<IpAddr>, port: u16) -> Result<HttpAnswer, String> {
        let address = SocketAddr::new(address.into(), port);
        self.lab().outside(|| http_get(address, "/")).unwrap().map_err(|error| format!("{error:#}"))
    }

    /// One request within the first node.
    pub fn get_inside(&self, address: impl Into<IpAddr>, port: u16) -> Result<HttpAnswer, String> {
        let address = SocketAddr::new(address.into(), port);
        self.node().in_netns(|| http_get(address, "/")).unwrap().map_err(|error| format!("{error:#}"))
    }

    /// The process numbers in a task's container, as the machine sees them; its first process first.
    pub fn processes(&self, task_id: &str) -> Vec<i32> {
        let within = |pid: &i32| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            groups.lines().any(|line| line.split('/').any(|part| part == task_id))
        };
        let mut found: Vec<i32> = self.node().processes().unwrap().into_iter().filter(within).collect();
        found.sort_by_key(|pid| inner_pid(*pid));
        found
    }

    /// Processes of the first node whose name or command line holds `text`.
    pub fn named(&self, text: &str) -> Vec<i32> {
        let says = |pid: &i32| {
            ["comm", "cmdline"].iter().any(|file| {
                let words = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&words).replace('\0', " ").contains(text)
            })
        };
        self.node().processes().unwrap().into_iter().filter(says).collect()
    }

    /// Ends the daemon as a crash would.
    pub fn crash_daemon(&self) {
        self.node().kill_daemon(StopSignal::Kill).unwrap();
    }

    pub fn start_daemon(&self) {
        self.node().start_daemon().unwrap();
    }

    fn print_dump(&self) {
        for node in self.lab().nodes() {
            eprintln!("──── node {}", node.name());
            if node.daemon().is_ok_and(|daemon| daemon.is_some()) {
                self.print_cluster(node);
            }
            let mut logs = vec![node.daemon_log(), node.data_dir().join("daemon.log")];
            let others = fs::read_dir(node.run_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
            logs.extend(others.filter(|path| path.extension().is_some_and(|extension| extension == "log")));
            logs.iter().for_each(|log| print_tail(log));
        }
    }

    fn print_cluster(&self, node: &Node) {
        let say = |args: &[&str]| {
            let outcome = self.skep_on(node, args);
            eprintln!("{}\n{}{}", outcome.command, outcome.stdout, outcome.stderr);
            outcome.stdout
        };
        say(&["node", "ls"]);
        say(&["service", "ls"]);
        for service in say(&["service", "ls", "--format", "{{.Name}}"]).lines() {
            say(&["service", "ps", "--no-trunc", service]);
            say(&["service", "logs", "--tail", "20", service]);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        self.print_dump();
        if std::env::var_os("SKEP_TEST_KEEP").is_some() {
            let lab = self.lab.take().expect("the lab is there until the world is dropped");
            eprintln!("the lab stays: {}", lab.name());
            lab.keep().expect("a lab's record can be written");
        }
    }
}

impl Task {
    fn read(row: &Value) -> Task {
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} in {row}")).to_owned();
        let state = text("CurrentState").split(' ').next().unwrap_or_default().to_owned();
        Task {
            id: text("ID"),
            name: text("Name"),
            image: text("Image"),
            node: text("Node"),
            desired: text("DesiredState"),
            state,
            error: text("Error"),
        }
    }
}

/// The workspace's folder `examples/stacks`.
pub fn example(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/stacks");
    root.join(path).canonicalize().unwrap().to_str().unwrap().to_owned()
}

pub fn binary() -> PathBuf {
    std::env::var_os("SKEP_BIN").map_or_else(|| env!("CARGO_BIN_EXE_skep").into(), PathBuf::from)
}

/// A process's number in its innermost namespace: 1 for a container's first.
fn inner_pid(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok()).unwrap_or(i32::MAX)
}

fn print_tail(path: &Path) {
    let Ok(text) = fs::read_to_string(path) else { return };
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
}
