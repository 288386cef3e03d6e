//! `skep lab` as a user types it, each command a process of its own, on a machine that only has a network of its own.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use skep_lab::Outcome;

use crate::world::binary;

/// A lab of the command line's, on a machine whose network goes with it.
struct Typed {
    name: String,
    machine: Child,
}

impl Typed {
    fn up(args: &[&str]) -> Typed {
        let mut machine = Command::new("unshare");
        machine.args(["--net", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"]);
        let mut machine = machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = std::io::Read::read(machine.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
        assert_eq!(said, 1, "the machine's network is there");
        let lab = Typed { name: format!("typed-{}", std::process::id()), machine };
        lab.run(&[&["up"], args, &[&lab.name]].concat()).ok().unwrap();
        lab
    }

    /// `skep lab ARGS` to its end.
    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.machine.id())).arg(binary()).arg("lab").args(args);
        Outcome::of(&mut command, &format!("skep lab {}", args.join(" "))).unwrap()
    }

    /// `skep lab WHAT --lab NAME ARGS`, which must succeed.
    fn ok(&self, what: &str, args: &[&str]) -> String {
        self.run(&[&[what, "--lab", &self.name], args].concat()).ok().unwrap_or_else(|error| panic!("{error}"))
    }

    /// `NAME ROLE STATE` of each node.
    fn status(&self) -> Vec<String> {
        self.ok("status", &["--format", "{{.Name}} {{.Role}} {{.State}}"]).lines().map(str::to_owned).collect()
    }

    fn until_status(&self, wanted: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let status = self.status();
            if status == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{status:?}, not {wanted:?}");
            // The command tells what is, not what becomes.
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs `work` in the machine's network.
    fn here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.machine.id())).unwrap();
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let down = self.run(&["down", &self.name]);
        self.machine.kill().unwrap();
        self.machine.wait().unwrap();
        assert!(down.is_ok() || thread::panicking(), "{down}");
    }
}

#[test]
fn a_cluster_comes_up_is_broken_and_mended() {
    let lab = Typed::up(&["--nodes", "3", "--managers", "1"]);
    let status = lab.ok("status", &["--format", "json"]);
    let rows: Vec<Value> = status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |name: &str, address: &str, role: &str| serde_json::json!({ "Name": name, "Address": address, "Gateway": "198.51.100.254", "Role": role, "State": "Ready" });
    let (first, second) = (row("n1", "198.51.100.1", "manager"), row("n2", "198.51.100.2", "worker"));
    assert_eq!(rows, [first, second, row("n3", "198.51.100.3", "worker")]);

    let script = format!("{}; {} node ls -q", lab.ok("env", &["n1"]).trim(), binary().display());
    let nodes = Outcome::of(Command::new("sh").args(["-c", &script]), &script).unwrap().ok().unwrap();
    assert_eq!(nodes.lines().count(), 3);
    assert_eq!(lab.ok("exec", &["2", "--", "hostname"]), "n2\n");
    assert_eq!(lab.run(&["exec", "--lab", &lab.name, "n2", "--", "sh", "-c", "exit 7"]).code, 7);

    lab.ok("pause", &["n2"]);
    lab.ok("stop", &["n3"]);
    assert_eq!(lab.status()[1..], ["n2 worker Paused", "n3 worker Stopped"]);
    lab.ok("resume", &["n2"]);
    lab.ok("start", &["n3"]);
    lab.ok("kill", &["n1"]);
    assert_eq!(lab.status()[0], "n1  Stopped");
    lab.ok("start", &["n1"]);
    lab.until_status(&["n1 manager Ready", "n2 worker Ready", "n3 worker Ready"]);

    lab.ok("partition", &["n1,n2 | n3"]);
    lab.ok("slow", &["n2", "--delay", "5ms", "--loss", "0.5%"]);
    let table = lab.ok("status", &[]);
    for line in ["n3 does not reach n1", "n1 does not reach n3", "the link of n2 is slow: 5ms late, 0.5% lost"] {
        assert!(table.contains(line), "{table}");
    }
    lab.until_status(&["n1 manager Ready", "n2 worker Ready", "n3 worker Down"]);
    lab.ok("heal", &[]);
    lab.until_status(&["n1 manager Ready", "n2 worker Ready", "n3 worker Ready"]);
    assert!(!lab.ok("status", &[]).contains("slow"));
}

#[test]
fn nodes_without_managers_are_each_on_their_own() {
    let lab = Typed::up(&["--nodes", "2"]);
    assert_eq!(lab.status(), ["n1  Inactive", "n2  Inactive"]);
    lab.ok("exec", &["n1", "skep", "init"]);
    lab.until_status(&["n1 manager Ready", "n2  Inactive"]);
    // Where nodes listen, this machine reaches them.
    lab.here(|| TcpStream::connect("198.51.100.1:7377").unwrap());
    let error = lab.run(&["partition", "--lab", &lab.name, "n1", "n3"]).stderr;
    assert!(error.contains("has no node `n3`; it has n1, n2"), "{error}");
}
