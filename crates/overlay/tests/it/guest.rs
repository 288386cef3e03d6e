//! A virtual machine with Debian's kernel, which has WireGuard where the one that runs the tests may have none. This test
//! binary runs in it once more, for the tests that are named here: the second node's tunnel is the net helper's there,
//! the other nodes' is the kernel's.

/// Tells tests that they run in the guest; to the test harness it is one more filter.
const MARK: &str = "run-in-the-guest";

pub fn is_here() -> bool {
    std::env::args().any(|argument| argument == MARK)
}

/// What must hold whoever carries the tunnel. Emulated, each takes seconds, so these are few.
#[cfg(target_arch = "x86_64")]
const SMOKE: &[&str] = &[
    // The kernel's and ours with each other: reach, restarts, roaming, removal, blocks.
    "tunnel::kernel::in_the_guest",
    "mesh::reach::neighbours_on_two_nodes_reach_each_other_by_their_own_addresses",
    "mesh::reach::networks_are_closed_to_each_other_also_across_nodes",
    "mesh::reach::forged_sources_are_dropped_where_they_begin",
    "mesh::reach::what_a_dishonest_node_sends_goes_no_further_than_its_own_networks",
    "mesh::wire::what_nodes_say_to_each_other_is_read_by_nobody",
    "mesh::ingress::the_clients_address_arrives_on_another_node_and_answers_go_back_as_they_came",
    "mesh::keys::another_key_ends_no_connection",
    "balance::all_nodes_lead_a_client_to_the_same_backend",
    "mesh::dual::neighbours_and_service_addresses_are_reached_on_other_nodes",
    "mesh::dual::a_client_of_any_node_is_seen_by_its_own_address",
];

#[cfg(target_arch = "x86_64")]
#[test]
fn the_kernels_wireguard_does_what_ours_does_and_speaks_with_it() {
    use skep_lab::{GuestRoot, Kernel, Lab, Vm, VmConfig, find_tool};
    // Only a hang takes this long: the guest is emulated, and the binary is not optimized.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(500);
    let lab = Lab::builder().build().unwrap();
    let node = lab.node(1);
    let file = |name: &str| node.folder().join(name);
    let script = format!("it --exact {} --test-threads 1 --nocapture {MARK}\n", SMOKE.join(" "));
    let guest = GuestRoot::new(&file("root"), &script).unwrap();
    guest.program(&std::env::current_exe().unwrap(), "/usr/bin/it").unwrap();
    guest.program(&find_tool("ip").unwrap(), "/usr/bin/ip").unwrap();
    guest.into_disk(&file("root.img"), 64).unwrap();
    let vm = Vm::start(node, &Kernel::find().unwrap(), &file("root.img"), &VmConfig::default()).unwrap();
    let lines = vm.wait_end(PATIENCE).unwrap();
    println!("{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.contains(&format!("{} passed", SMOKE.len()))), "each name is a test's");
    assert_eq!(lines.last().unwrap(), "guest: the script ended with 0");
}
