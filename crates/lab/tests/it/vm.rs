//! Virtual machines: a kernel of their own, disks that keep what was flushed, and an end with their lab.

use std::fs;
use std::time::Duration;

use skep_lab::{GuestRoot, Kernel, Lab, Vm, VmConfig, make_disk};

const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_guest_runs_a_script_on_pure_cgroup_v2_and_its_disks_stay() {
    let lab = Lab::builder().build().unwrap();
    let node = lab.node(1);
    let file = |name: &str| node.folder().join(name);
    let script = "
        mkdir /data && mount -t ext4 /dev/vdb /data
        cat /sys/fs/cgroup/cgroup.controllers /data/note
        mount | grep -c 'type cgroup '
        uname -r
        echo written > /data/note && sync
        [ -e /data/stay ] || { touch /data/stay; sync; exit 7; }
        sleep 1000";
    GuestRoot::new(&file("root"), script).unwrap().into_disk(&file("root.img"), 8).unwrap();
    assert!(!file("root").exists());
    make_disk(&file("data.img"), 32, None).unwrap();
    let kernel = Kernel::find().unwrap();
    let config = VmConfig { disks: vec![file("data.img")], ..VmConfig::default() };

    let first = Vm::start(node, &kernel, &file("root.img"), &config).unwrap().wait_end(PATIENCE).unwrap();
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let controllers = first.iter().find(|line| line.contains("memory")).expect("controllers");
    assert!(controllers.contains("pids") && controllers.contains("cpu "), "{controllers}");
    assert!(first.contains(&"0".to_owned()) && !first.contains(&own.trim().to_owned()), "{first:?}");
    assert_eq!(first.last().unwrap(), "guest: the script ended with 7");

    let vm = Vm::start(node, &kernel, &file("root.img"), &config).unwrap();
    vm.wait_for(PATIENCE, |line| line == "written").unwrap();
    drop(vm);
    let left: Vec<i32> = node.processes().unwrap().into_iter().filter(|pid| *pid != node.holder().pid).collect();
    assert_eq!(left, [0; 0], "qemu is gone");
}
