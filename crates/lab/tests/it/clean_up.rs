//! Nothing of a lab outlives it: not when its owner panics, not when its owner is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, panic};

use skep_lab::{Lab, LabInfo, ProcessId};

/// Set for the test that plays a process which dies without cleaning up.
const DIE: &str = "SKEP_LAB_TEST_DIES";

fn all_gone(lab: &LabInfo) {
    assert!(!lab.folder.exists(), "the folder is gone");
    let holders = lab.nodes.iter().map(|node| node.holder).chain([lab.outside]).flatten();
    assert!(holders.map(ProcessId::is_alive).all(|alive| !alive), "no process holds a namespace");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for node in &lab.nodes {
            let group = hierarchy.path().join(node.cgroup_parent.trim_start_matches('/'));
            assert!(!group.exists(), "{} is gone", group.display());
        }
    }
    assert!(!Path::new("/run/skep-lab").join(format!("{}.json", lab.name)).exists(), "the record is gone");
}

#[test]
fn dropping_a_lab_ends_its_processes_even_those_that_hide() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    // Away from its parent, session, network and cgroup leaf.
    let script = "mkdir -p $G/deep && setsid unshare --net sh -c 'echo $$ > $G/deep/cgroup.procs; trap \"\" TERM; echo $$; exec sleep 1000' &";
    let group = find_unified().join(lab.node(1).cgroup_parent().trim_start_matches('/'));
    let mut child =
        lab.node(1).command("sh").args(["-c", script]).env("G", group).stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    child.wait().unwrap();
    let hidden = ProcessId::of(pid.trim().parse().unwrap()).expect("it runs");
    let info = lab.info().clone();
    drop(lab);
    assert!(!hidden.is_alive());
    all_gone(&info);
}

fn find_unified() -> &'static Path {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() { hybrid } else { Path::new("/sys/fs/cgroup") }
}

#[test]
fn a_panic_takes_the_lab_down() {
    let mut info = None;
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let lab = Lab::builder().build().unwrap();
        info = Some(lab.info().clone());
        panic!("as a failing test does");
    }));
    assert!(result.is_err());
    all_gone(&info.unwrap());
}

#[test]
fn sweep_takes_down_what_a_killed_process_left_and_nothing_else() {
    if env::var_os(DIE).is_some() {
        let lab = Lab::builder().nodes(1).build().unwrap();
        println!("LAB {}", serde_json::to_string(lab.info()).unwrap());
        std::process::abort();
    }
    let living = Lab::builder().build().unwrap();
    let stays = Lab::up(&format!("stays-{}", std::process::id()), 1).unwrap();
    let stays = stays.info().clone();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "clean_up::sweep_takes_down_what_a_killed_process_left_and_nothing_else", "--nocapture"])
        .env(DIE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("LAB ")).expect("the process told its lab").1;
    let orphan: LabInfo = serde_json::from_str(line).unwrap();

    // Another test's lab may sweep at the same moment: whoever does it, it is done when our sweep returns.
    skep_lab::sweep().unwrap();
    all_gone(&orphan);
    assert!(living.node(1).holder().is_alive());
    let attached = Lab::attach(&stays.name).unwrap();
    assert_eq!(attached.node(1).run("hostname", &[]).unwrap().ok().unwrap(), "n1\n");
    drop(attached);
    assert!(skep_lab::list().unwrap().iter().any(|lab| lab.name == stays.name));
    skep_lab::down(&stays.name).unwrap();
    all_gone(&stays);
}

#[test]
fn a_power_cut_ends_everything_but_the_node() {
    let lab = Lab::builder().build().unwrap();
    let mut command = lab.node(1).command("sh");
    let mut child = command.args(["-c", "echo in; exec sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let sleeper = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
    lab.node(1).kill_everything().unwrap();
    assert!(!sleeper.is_alive());
    assert_eq!(lab.node(1).run("hostname", &[]).unwrap().ok().unwrap(), "n1\n");
    assert!(!child.wait().unwrap().success());
}
