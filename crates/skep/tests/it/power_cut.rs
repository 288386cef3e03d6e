//! Power cuts: a virtual machine that writes through the whole store is killed in mid-write, again and again, and each time
//! the next boot must still have every write that was acknowledged before.
//!
//! What the guest had not flushed to its disk is lost with its memory, as it would be on a machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use skep_lab::{GuestRoot, Kernel, Lab, Vm, VmConfig, make_disk};

/// A hang takes this long; an emulated boot takes about ten seconds.
const PATIENCE: Duration = Duration::from_secs(300);
const CUTS: u32 = 3;
const CUTS_SOAK: u32 = 20;
const DISK_MIB: u64 = 256;
const SECTOR: usize = 512;

/// Checks what earlier boots were told, then writes until the power goes.
const SCRIPT: &str = "
mkdir -p /data && mount -t ext4 /dev/vdb /data || exit 1
wal-torture verify /data/store /dev/vdc && echo 'guest: whole' || { echo 'guest: broken'; exit 1; }
wal-torture write /data/store
";

#[test]
fn a_power_cut_loses_no_acknowledged_write() {
    let cuts = if std::env::var_os("SKEP_SOAK").is_some() { CUTS_SOAK } else { CUTS };
    let lab = Lab::builder().build().unwrap();
    let node = lab.node(1);
    let file = |name: &str| node.folder().join(name);
    let guest = GuestRoot::new(&file("root"), SCRIPT).unwrap();
    guest.program(&torture(), "/bin/wal-torture").unwrap();
    guest.into_disk(&file("root.img"), 16).unwrap();
    make_disk(&file("data.img"), DISK_MIB, None).unwrap();
    let config = VmConfig { disks: vec![file("data.img"), file("told.img")], ..VmConfig::default() };
    let kernel = Kernel::find().unwrap();

    let mut told = BTreeSet::new();
    for cut in 0..=cuts {
        fs::write(file("told.img"), sectors(&told)).unwrap();
        let vm = Vm::start(node, &kernel, &file("root.img"), &config).unwrap();
        let verdict = vm.wait_for(PATIENCE, |line| line.starts_with("guest: ")).unwrap();
        let seen = vm.lines().join("\n");
        assert_eq!(verdict, "guest: whole", "after {cut} cuts:\n{seen}");
        assert!(seen.contains(&format!("{} acknowledged", told.len())), "the guest checked all of them:\n{seen}");
        if cut == cuts {
            break;
        }
        // From the very first writes to the middle of snapshots and purges, and at no particular point of a write.
        let enough = 1 + u64::from(cut * 211 % 900);
        vm.wait_for_count(PATIENCE, enough, |line| number(line).is_some()).unwrap();
        thread::sleep(Duration::from_millis(u64::from(cut * 7 % 13)));
        let before = told.len();
        told.extend(vm.cut_power().unwrap().iter().filter_map(|line| number(line)));
        println!("cut {}: {} writes acknowledged in this boot, {} in all", cut + 1, told.len() - before, told.len());
    }
    println!("{cuts} cuts, {} acknowledged writes, none lost", told.len());
}

fn number(line: &str) -> Option<u64> {
    line.strip_prefix("acknowledged ")?.parse().ok()
}

/// As the writer printed them, filled up to whole sectors: it goes into the guest as a disk.
fn sectors(numbers: &BTreeSet<u64>) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        numbers.iter().flat_map(|number| format!("acknowledged {number}\n").into_bytes()).collect();
    bytes.resize((bytes.len() + 1).next_multiple_of(SECTOR), 0);
    bytes
}

/// The store's example, built beside the tests.
fn torture() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let built = own.ancestors().map(|folder| folder.join("examples/wal-torture")).find(|path| path.is_file());
    built.expect("`cargo build -p skep-store --example wal-torture` builds what this runs in the guest")
}
