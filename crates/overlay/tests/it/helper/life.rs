//! Who lives and who dies: daemon and helper in every order.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType::A;
use skep_overlay::helper::{Helper, HelperConfig, HelperError};
use skep_overlay::snapshot::Protocol::Tcp;
use skep_overlay::snapshot::{RESOLVER, Reply, ServeError};

use super::dns::{ask, query, words};
use super::{Daemon, config, kill, listener, nothing, ports, runtime};
use crate::lab::{self, Lab, Node, Place, start};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// A container with a resolver, a published port, and the ways to ask both.
fn check(place: &impl Place) {
    assert_eq!(words(&ask(place, (RESOLVER, 53).into(), &query("one", A))), "No Error, 5 10.64.16.3");
    for loopback in ["127.0.0.1", "::1"] {
        let loopback: std::net::IpAddr = loopback.parse().unwrap();
        assert_eq!(Node.ask(loopback, 8080).unwrap(), "one 127.0.0.1");
    }
}

fn serve(lab: &Lab, daemon: &Daemon) -> skep_overlay::Sandbox {
    let overlay = lab.overlay();
    let mut node = lab::empty();
    let client = start(&overlay, &mut node, "client", &[(1, 2)]);
    start(&overlay, &mut node, "one", &[(1, 3)]);
    let mut snapshot = overlay.plan(&node).snapshot;
    snapshot.listeners = vec![listener(Tcp, 8080, &[(ONE, 80)])];
    daemon.serve(&snapshot);
    overlay.apply(&node).unwrap();
    Node.serve_at(ONE, 80, "one");
    client
}

#[test]
fn a_killed_helper_is_followed_by_one_that_serves_the_same() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let client = serve(&lab, &daemon);
        for _ in 0..3 {
            check(&client);
            let first = daemon.pid();
            kill(first);
            daemon.wait_for_another(first);
            check(&client);
        }
    });
}

#[test]
fn a_killed_daemon_leaves_the_helper_and_the_next_adopts_it() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let client = serve(&lab, &daemon);
        let pid = daemon.pid();
        daemon.crash();
        check(&client);
        let daemon = Daemon::start(&lab);
        assert_eq!(daemon.pid(), pid);
        check(&client);
        daemon.serve(&nothing());
        assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_helper_serves_what_it_finds_before_any_daemon_comes() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let client = serve(&lab, &daemon);
        let first = daemon.pid();
        daemon.crash();
        kill(first);
        let config = config(&lab);
        let command = Command::new(&config.program)
            .args(&config.args)
            .env("SKEP_RUN_DIR", &config.run_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(command.unwrap());
        wait_for(|| UnixStream::connect(config.run_dir.join("net.sock")).ok());
        check(&client);
        let daemon = Daemon::start(&lab);
        assert_eq!(daemon.pid(), process.0.id().cast_signed());
        check(&client);
    });
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn stopping_leaves_nothing() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(ONE, 80)])]));
        let run_dir = lab.config.run_dir.clone();
        assert_eq!(fs::metadata(run_dir.join("net.sock")).unwrap().permissions().mode() & 0o777, 0o600);
        let pid = daemon.pid();
        daemon.stop().unwrap();
        assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
        let left: Vec<_> = fs::read_dir(run_dir.join("net")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [] as [&str; 0]);
        assert!(!run_dir.join("net.sock").exists());
        assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_message_of_another_format_is_refused_and_changes_nothing() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let client = serve(&lab, &daemon);
        daemon.crash();
        let mut stream = UnixStream::connect(lab.config.run_dir.join("net.sock")).unwrap();
        let mut tell = |message: &str| -> Reply {
            stream.write_all(&(message.len() as u32).to_be_bytes()).unwrap();
            stream.write_all(message.as_bytes()).unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut reply = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut reply).unwrap();
            serde_json::from_slice(&reply).unwrap()
        };
        let reply = tell(r#"{"request":"apply","version":7,"snapshot":{"format":99,"zones":"of another shape"}}"#);
        let Reply::Refused { version: 7, message } = reply else { panic!("{reply:?}") };
        assert_eq!(message, "its format is 99; this build of the net helper reads formats 1 to 3");
        for nonsense in ["", "{}", "[1]", r#"{"request":"fly","version":1}"#] {
            assert!(matches!(tell(nonsense), Reply::Refused { .. }));
        }
        check(&client);
        drop(Daemon::start(&lab));
    });
}

#[test]
fn a_program_that_cannot_be_the_helper_is_an_error() {
    lab::run(|lab| {
        let start = |program: &str| {
            let config = HelperConfig { program: program.into(), args: vec![], ..config(&lab) };
            runtime().block_on(Helper::start(config)).unwrap_err()
        };
        assert!(matches!(start("/nowhere/skep"), HelperError::Spawn { .. }));
        assert!(matches!(start("/bin/false"), HelperError::Ended { .. }));
    });
}

#[test]
fn the_helper_lives_in_a_cgroup_of_its_own() {
    lab::run(|lab| {
        let parent = format!("skep-test-helper-{}", std::process::id());
        let daemon = Daemon::with(HelperConfig { cgroup_parent: Some(parent.clone()), ..config(&lab) });
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", daemon.pid())).unwrap();
        for group in groups.lines() {
            assert!(group.ends_with(&format!("/{parent}/net")), "{groups}");
        }
        daemon.stop().unwrap();
        let left = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().join(&parent).exists());
        assert_eq!(left.count(), 0);
    });
}

/// A second one for the same folder would fight over the ports.
#[test]
fn a_helper_waits_for_the_one_before_and_then_gives_up() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let client = serve(&lab, &daemon);
        // Its socket is gone, so the daemon cannot know of it.
        fs::remove_file(lab.config.run_dir.join("net.sock")).unwrap();
        let error = runtime().block_on(Helper::start(config(&lab))).unwrap_err();
        assert!(matches!(error, HelperError::Ended { .. }), "{error}");
        let log = fs::read_to_string(lab.config.run_dir.join("net/helper.log")).unwrap();
        assert!(log.contains("Another"), "{log}");
        check(&client);
    });
}

#[test]
fn errors_are_told_for_each_part() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let mut snapshot = ports(&[listener(Tcp, 8080, &[(ONE, 80)])]);
        let view = skep_overlay::snapshot::View {
            netns: "/nowhere/ns".into(),
            networks: vec![],
            outside: skep_overlay::snapshot::Outside::Deny,
            search: vec![],
        };
        snapshot.sandboxes.insert("lost".into(), view);
        let errors = daemon.apply(&snapshot);
        let [ServeError::Resolver { sandbox, message }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(sandbox, "lost");
        assert!(message.contains("/nowhere/ns"), "{message}");
        Node.serve_at(ONE, 80, "one");
        let at: SocketAddr = (Ipv4Addr::LOCALHOST, 8080).into();
        assert_eq!(Node.ask(at.ip(), at.port()).unwrap(), "one 127.0.0.1");
    });
}
