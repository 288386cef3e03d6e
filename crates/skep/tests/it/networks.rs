//! Networks: who reaches whom, and who reaches the world.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::thread;

use skep_lab::{OUTSIDE_ADDRESS, Outcome};

use crate::world::World;

/// An address of a task's container that is in none of the other's networks' ranges: what `ip` says inside.
fn addresses(world: &World, task: &str) -> Vec<String> {
    let text = world.sh(task, "ip -4 -o addr show scope global | awk '{print $4}' | cut -d/ -f1");
    text.lines().map(str::to_owned).collect()
}

/// What `timeout wget` ends with when nobody answers, and when the way is closed.
fn is_unreachable(outcome: &Outcome) -> bool {
    outcome.code == 143 || (outcome.code == 1 && outcome.stderr.contains("can't connect"))
}

/// Serves forever with the fewest means: `index.html` is the container's host name.
const WEB: &str = "x-web: &web { image: \"${REGISTRY}/busybox:1\", stop_grace_period: 1s, \
    command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p 80 -h /\"] }\n";

#[test]
fn containers_of_different_networks_reach_each_other_neither_by_name_nor_by_address() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n\
         \x20 a: {{ <<: *web, networks: [one] }}\n\
         \x20 b: {{ <<: *web, networks: [two] }}\n\
         \x20 both: {{ <<: *web, networks: [one, two] }}\n\
         networks: {{ one: {{}}, two: {{}} }}\n"
    );
    world.up("s", &yaml);
    assert_eq!(addresses(&world, "s_both.1").len(), 2);
    let get = |task: &str, host: &str| {
        world.exec(task, &["timeout", "3", "wget", "-q", "-O", "-", &format!("http://{host}/")])
    };
    for (task, host) in [("s_a.1", "both"), ("s_b.1", "both"), ("s_both.1", "a"), ("s_both.1", "b")] {
        let outcome = get(task, host);
        assert!(outcome.is_ok(), "{task} reaches {host}: {outcome}");
    }
    let by_name = get("s_a.1", "b");
    assert!(by_name.stderr.contains("bad address"), "{by_name}");
    for address in addresses(&world, "s_b.1") {
        assert!(is_unreachable(&get("s_a.1", &address)), "a reaches b at {address}");
    }
    // Nor by way of the container that is in both.
    let of_two = addresses(&world, "s_both.1").into_iter().find(|address| is_unreachable(&get("s_a.1", address)));
    assert!(of_two.is_some(), "a reaches the address that `both` has in the other network");
}

#[test]
fn an_internal_network_has_no_way_out_and_others_have_one() {
    let world = World::new();
    world.up(
        "s",
        "services:\n  open: { <<: *idle }\n  closed: { <<: *idle, networks: [inner] }\nnetworks: { inner: { internal: true } }\n",
    );
    let listener = world.lab().outside(|| TcpListener::bind((OUTSIDE_ADDRESS, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeter = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
        peer.ip()
    });
    let url = format!("http://{OUTSIDE_ADDRESS}:{port}/");
    let get = |task: &str| world.exec(task, &["timeout", "3", "wget", "-q", "-O", "-", &url]);
    let closed = get("s_closed.1");
    assert!(is_unreachable(&closed), "{closed}");
    let open = get("s_open.1");
    assert_eq!(open.stdout, "hello", "{open}");
    assert_eq!(greeter.join().unwrap(), IpAddr::V4(world.node().address()), "under the node's address");
    let node = world.node().address();
    let to_node = world.exec("s_closed.1", &["ping", "-c", "1", "-W", "2", &node.to_string()]);
    assert!(!to_node.is_ok(), "{to_node}");
}

#[test]
fn stacks_do_not_reach_each_other_unless_they_share_a_network() {
    let world = World::new();
    let web = format!("{WEB}services: {{ web: *web }}\n");
    world.up("one", &web);
    world.up("two", "services: { client: { <<: *idle } }");
    let stranger = world.exec("two_client.1", &["timeout", "3", "wget", "-q", "-O", "-", "http://web/"]);
    assert!(stranger.stderr.contains("bad address"), "{stranger}");
    world.up(
        "three",
        "services: { client: { <<: *idle, networks: [shared] } }\nnetworks: { shared: { external: true, name: one_default } }\n",
    );
    let reached = world.exec("three_client.1", &["timeout", "3", "wget", "-q", "-O", "-", "http://web/"]);
    assert!(reached.is_ok(), "{reached}");
    let told = world.refused(&["stack", "rm", "one"]);
    assert!(told.contains("one_default") && told.contains("three_client"), "{told}");
    let kept = world.ok(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(kept.contains("one_default"), "a network in use stays: {kept}");
}

#[test]
fn a_container_has_its_own_loopback_interfaces_and_source_address() {
    let world = World::new();
    world.up("s", "services:\n  a: { <<: *idle, cap_add: [NET_ADMIN] }\n  b: { <<: *idle }\n");
    let links = world.sh("s_a.1", "ls /sys/class/net | tr '\\n' ' '");
    assert!(links.contains("lo") && links.contains("eth0") && !links.contains("skep"), "{links}");
    // A stolen address gets no answer.
    let b = addresses(&world, "s_b.1")[0].clone();
    let own = addresses(&world, "s_a.1")[0].clone();
    assert!(world.exec("s_a.1", &["ping", "-c", "1", "-W", "5", &b]).is_ok());
    let stolen = own.rsplit_once('.').map(|(net, _)| format!("{net}.250")).unwrap();
    world.sh("s_a.1", &format!("ip addr add {stolen}/32 dev eth0"));
    assert!(!world.exec("s_a.1", &["ping", "-c", "1", "-W", "2", "-I", &stolen, &b]).is_ok());
}
