//! A node has its own network, host name, mounts and cgroup; nodes and the outside reach each other.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use skep_lab::{Lab, Node, OUTSIDE_ADDRESS, Reach};

/// Listens in the node on all addresses and says hello to one caller.
fn greet_once(node: &Node) -> (u16, thread::JoinHandle<()>) {
    let listener = node.in_netns(|| TcpListener::bind(("::", 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeter = thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    (port, greeter)
}

fn hear(address: IpAddr, port: u16) -> String {
    let mut said = String::new();
    TcpStream::connect(SocketAddr::new(address, port)).unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_node_is_reached_from_outside_and_from_its_neighbour_over_both_families() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    for address in [IpAddr::V4(lab.node(1).address()), IpAddr::V6(lab.node(1).address_v6())] {
        let (port, greeter) = greet_once(lab.node(1));
        assert_eq!(lab.outside(|| hear(address, port)).unwrap(), "hello");
        greeter.join().unwrap();
        let (port, greeter) = greet_once(lab.node(1));
        assert_eq!(lab.node(2).in_netns(|| hear(address, port)).unwrap(), "hello");
        greeter.join().unwrap();
    }
}

/// Set for the test that plays a machine of its own: only its network is one.
const MACHINE: &str = "SKEP_LAB_TEST_MACHINE";

#[test]
fn a_machine_that_is_joined_to_a_lab_has_the_switchs_address_and_a_second_lab_does_without() {
    if std::env::var_os(MACHINE).is_none() {
        let name = "isolation::a_machine_that_is_joined_to_a_lab_has_the_switchs_address_and_a_second_lab_does_without";
        let mut machine = std::process::Command::new("unshare");
        machine.arg("--net").arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        let outcome = skep_lab::Outcome::of(machine.env(MACHINE, "1"), name).unwrap();
        assert!(outcome.is_ok(), "{outcome}");
        return;
    }
    let lab = Lab::builder().nodes(1).reach(Reach::Machine).build().unwrap();
    assert_eq!(lab.info().gateway, Some(OUTSIDE_ADDRESS));
    for address in [IpAddr::V4(lab.node(1).address()), IpAddr::V6(lab.node(1).address_v6())] {
        let (port, greeter) = greet_once(lab.node(1));
        assert_eq!(hear(address, port), "hello");
        greeter.join().unwrap();
    }
    let listener = TcpListener::bind((OUTSIDE_ADDRESS, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeter = thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    assert_eq!(lab.node(1).in_netns(|| hear(OUTSIDE_ADDRESS.into(), port)).unwrap(), "hello");
    greeter.join().unwrap();

    let second = Lab::builder().nodes(1).reach(Reach::Machine).build().unwrap();
    assert_eq!(second.info().gateway, None);
    let (port, greeter) = greet_once(second.node(1));
    let address = second.node(1).address().into();
    assert_eq!(second.outside(|| hear(address, port)).unwrap(), "hello");
    greeter.join().unwrap();
}

#[test]
fn an_unplugged_node_is_unreachable_until_it_is_plugged_in() {
    let lab = Lab::builder().nodes(1).build().unwrap();
    let ping = || {
        let output = lab.outside_command("ip").args(["-o", "link", "show", "node1"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains("state UP")
    };
    assert!(ping());
    lab.unplug(1).unwrap();
    assert!(!ping());
    lab.plug(1).unwrap();
    let (port, greeter) = greet_once(lab.node(1));
    let address = lab.node(1).address().into();
    assert_eq!(lab.outside(|| hear(address, port)).unwrap(), "hello");
    greeter.join().unwrap();
}

#[test]
fn a_command_runs_with_the_nodes_name_folders_and_cgroup() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let node = lab.node(2);
    let said = node.run("sh", &["-c", "hostname; echo $SKEP_DATA_DIR; cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*"]);
    let said = said.unwrap().ok().unwrap();
    assert!(said.starts_with("n2\n"), "{said}");
    assert!(said.contains(node.data_dir().to_str().unwrap()), "{said}");
    assert!(said.contains(&format!("{}/lab", node.cgroup_parent())), "{said}");
    assert_ne!(said.trim(), "", "the cgroup tree is visible");
}

#[test]
fn a_command_keeps_its_working_directory_and_exit_code() {
    let lab = Lab::builder().build().unwrap();
    let folder = lab.node(1).folder();
    let output = lab.node(1).command("sh").args(["-c", "pwd; exit 7"]).current_dir(folder).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), folder.to_str().unwrap());
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_nodes_mounts_and_links_stay_in_the_node() {
    let lab = Lab::builder().build().unwrap();
    let place = lab.node(1).folder().join("m");
    std::fs::create_dir(&place).unwrap();
    let place = place.to_str().unwrap();
    lab.node(1).run("mount", &["-t", "tmpfs", "none", place]).unwrap().ok().unwrap();
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(place));
    let links = lab.node(1).run("cat", &["/proc/self/net/dev"]).unwrap().ok().unwrap();
    assert!(links.contains("eth0:"), "{links}");
    assert!(!std::fs::read_to_string("/proc/self/net/dev").unwrap().contains("node1:"));
}
