//! The same binary on Debian's kernel with pure cgroup v2, in a virtual machine: limits that this machine's own cgroups may
//! not be able to show. No registry is there; the image comes by `skep image load`.

use std::path::Path;
use std::time::Duration;

use skep_lab::{GuestRoot, Kernel, Lab, Node, Vm, VmConfig, images_folder};

use crate::world::binary;

/// Only a hang takes this long: the guest is emulated, and the binary is not optimized.
const PATIENCE: Duration = Duration::from_secs(400);

const STEADY: &str = "
services:
  a:
    image: busybox:1
    command: [sleep, \"100000\"]
    stop_grace_period: 1s
    deploy: { resources: { limits: { memory: 64M, cpus: \"0.25\", pids: 20 } } }
";

const HOG: &str = "
services:
  a:
    image: busybox:1
    command: [dd, if=/dev/zero, of=/dev/null, bs=300M]
    deploy: { resources: { limits: { memory: 16M } }, restart_policy: { condition: none } }
";

/// A line `== NAME` begins what the step says. What is in the containers' cgroups is read outside of them: beside a bomb,
/// nothing more can be started inside.
const SCRIPT: &str = "
step() { echo; echo \"== $1\"; echo \"-- after $(cut -d\" \" -f1 /proc/uptime) s\"; }
inside() { skep exec steady_a.1 \"$@\" 2>&1; }
cgroup() { cat $(find /sys/fs/cgroup/skep/c -mindepth 2 -name $1); }
ip link add eth0 type dummy && ip address add 198.51.100.1/24 dev eth0 && ip link set eth0 up
ip route add default via 198.51.100.254
step start
skep init 2>&1 && skep image load -i /busybox.tar 2>&1 && skep stack deploy -c /steady.yml steady 2>&1 || {
    skep service ps --no-trunc steady_a; tail -n 30 /var/lib/skep/*.log; exit 1
}
step limits
inside sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'
step membership
inside cat /proc/self/cgroup
step devices
inside sh -c 'mknod /disk b 254 0 && head -c 1 /disk; echo x > /dev/null && echo used'
step busy
inside timeout 1 sh -c 'while :; do :; done'
step throttled
cgroup cpu.stat
step hog
skep stack deploy -c /hog.yml hog 2>&1
step killed
skep service ps --no-trunc hog_a
step bomb
inside sh -c 'bomb() { bomb | bomb & }; bomb; for i in $(seq 30); do sleep 1000 & done'
step bounded
cgroup pids.current
cgroup pids.events
step left
skep stack rm hog 2>&1
skep stack rm steady 2>&1
skep leave --force 2>&1
echo cgroups: $(find /sys/fs/cgroup -mindepth 1 -type d)
";

#[test]
fn limits_hold_on_debians_kernel_with_pure_cgroup_v2() {
    let lab = Lab::builder().build().unwrap();
    let node = lab.node(1);
    let file = |name: &str| node.folder().join(name);
    save_image(node, &file("busybox.tar"));
    let guest = GuestRoot::new(&file("root"), SCRIPT).unwrap();
    guest.program(&binary(), "/usr/bin/skep").unwrap();
    guest.file("/busybox.tar", &std::fs::read(file("busybox.tar")).unwrap()).unwrap();
    guest.file("/steady.yml", STEADY.as_bytes()).unwrap();
    guest.file("/hog.yml", HOG.as_bytes()).unwrap();
    guest.into_disk(&file("root.img"), 200).unwrap();
    let vm = Vm::start(node, &Kernel::find().unwrap(), &file("root.img"), &VmConfig::default()).unwrap();
    let lines = vm.wait_end(PATIENCE).unwrap();
    println!("{}", lines.join("\n"));
    assert_eq!(lines.last().unwrap(), "guest: the script ended with 0");

    let said = |step: &str| said(&lines, step);
    assert_eq!(said("limits"), ["67108864", "20", "25000 100000"]);
    assert_eq!(said("membership"), ["0::/"], "a view of its own");
    // The root disk by its number: to make the node is allowed, to use it is not.
    assert!(said("devices").iter().any(|line| line.contains("not permitted")), "{:?}", said("devices"));
    assert!(said("devices").contains(&"used"), "the null device");
    assert!(numbers(&said("throttled"), "nr_throttled ")[0] > 0);
    assert!(said("hog").iter().any(|line| line.contains("OOM killed")));
    assert!(said("killed").iter().any(|line| line.contains("OOM killed") && line.contains("(137)")));
    assert!(said("bomb").iter().any(|line| line.contains("can't fork")));
    let bounded = said("bounded");
    assert!(numbers(&bounded, "")[0] <= 20, "{bounded:?}");
    assert!(numbers(&bounded, "max ")[0] > 0, "the limit was met: {bounded:?}");
    assert_eq!(said("left").iter().rev().nth(1), Some(&"cgroups:"));
}

fn numbers(lines: &[&str], start: &str) -> Vec<u64> {
    lines.iter().filter_map(|line| line.strip_prefix(start)?.trim().parse().ok()).collect()
}

/// The lines of one step.
fn said<'a>(lines: &'a [String], step: &str) -> Vec<&'a str> {
    let from = lines.iter().position(|line| *line == format!("== {step}")).expect("the step was reached") + 1;
    let of_step = lines[from..].iter().take_while(|line| !line.starts_with("== "));
    of_step.map(String::as_str).filter(|line| !line.is_empty() && !line.starts_with("-- ")).collect()
}

/// As `docker save` writes it.
fn save_image(node: &Node, file: &Path) {
    let registry = node.start_registry(&images_folder().unwrap()).unwrap();
    let from = format!("docker://{}/library/busybox:1", registry.name());
    let to = format!("docker-archive:{}:busybox:1", file.display());
    node.run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to])
        .unwrap()
        .ok()
        .unwrap();
    registry.stop().unwrap();
}
