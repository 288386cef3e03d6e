//! The kernel as the carrier of one node's tunnel, and ours of the other's: what `guest` runs in a virtual machine.

use skep_overlay::RealizeError;
use skep_overlay::tunnel::Carrier;

use super::*;
use crate::guest;

#[test]
fn in_the_guest() {
    if !guest::is_here() {
        return;
    }
    lab::run(|lab| {
        let mut nodes = [Node::new(&lab, 1, 2, DataPlane::Auto), Node::new(&lab, 2, 2, DataPlane::Userspace)];
        assert_eq!(nodes[0].overlay.as_ref().unwrap().carrier(), Carrier::Kernel);
        assert!(nodes[0].within(|| ip(&format!("-d link show {INTERFACE}"))).contains("wireguard"));
        packets_pass(&nodes);
        a_daemon_that_starts_changes_nothing(&mut nodes);
        a_moved_peer_is_followed(&nodes);
        a_removed_peer_is_cut_off(&mut nodes);
        blocks_follow_the_plan(&mut nodes);
        nodes[0].network.mesh = None;
        nodes[0].apply();
        assert!(!nodes[0].within(|| ip("link")).contains(INTERFACE));
        assert!(nodes[0].stats().is_empty());
    });
}

fn packets_pass(nodes: &[Node; 2]) {
    for bytes in [28, 116, 1280, 1420, 1500] {
        assert!(nodes[0].pings(2, bytes) && nodes[1].pings(1, bytes), "{bytes} bytes");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let to: &Node = &nodes[to];
        let server = echo(to.listen(80));
        let mut stream = nodes[from].connect(to.number, 80).unwrap();
        (0..20).for_each(|round| converse(&mut stream, &vec![round; 50_000]));
        drop(stream);
        server.join().unwrap();
    }
    let stats = nodes[0].stats();
    let other = &stats[&key(2).public()];
    assert_eq!(other.endpoint, Some((wire_address(2), PORT).into()));
    assert!(other.handshake_age.is_some_and(|age| age < Duration::from_secs(120)), "{other:?}");
    assert!(other.rx_bytes > 1_000_000 && other.tx_bytes > 1_000_000, "{other:?}");
}

fn a_daemon_that_starts_changes_nothing(nodes: &mut [Node; 2]) {
    let server = echo(nodes[0].listen(80));
    let mut stream = nodes[1].connect(1, 80).unwrap();
    converse(&mut stream, b"before");
    let before =
        (nodes[0].within(|| ip(&format!("link show {INTERFACE}"))), nodes[0].stats()[&key(2).public()].tx_bytes);
    nodes[0].crash();
    converse(&mut stream, b"without");
    nodes[0].start();
    converse(&mut stream, b"after");
    assert_eq!(nodes[0].within(|| ip(&format!("link show {INTERFACE}"))), before.0);
    assert!(nodes[0].stats()[&key(2).public()].tx_bytes > before.1);
    drop(stream);
    server.join().unwrap();
}

fn a_moved_peer_is_followed(nodes: &[Node; 2]) {
    let moved = || nodes[0].stats()[&key(2).public()].endpoint;
    nodes[1].within(|| {
        ip("addr del 192.0.2.2/24 dev eth0");
        ip("addr add 192.0.2.77/24 dev eth0");
    });
    wait_for("the way back", || nodes[1].pings(1, 100));
    assert_eq!(moved(), Some(SocketAddr::from(([192, 0, 2, 77], PORT))));
    nodes[0].apply();
    assert_eq!(moved(), Some(SocketAddr::from(([192, 0, 2, 77], PORT))), "what was told is older");
    nodes[1].within(|| {
        ip("addr del 192.0.2.77/24 dev eth0");
        ip("addr add 192.0.2.2/24 dev eth0");
    });
    wait_for("the way back", || nodes[1].pings(1, 100));
}

fn a_removed_peer_is_cut_off(nodes: &mut [Node; 2]) {
    let server = echo(nodes[0].listen(80));
    let mut stream = nodes[1].connect(1, 80).unwrap();
    converse(&mut stream, b"as long as it may");
    let peers = std::mem::take(&mut nodes[0].mesh().peers);
    nodes[0].apply();
    assert!(nodes[0].stats().is_empty());
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(b"it may no more").unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    nodes[0].mesh().peers = peers;
    nodes[0].apply();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0; 14];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"it may no more");
    drop(stream);
    server.join().unwrap();
}

/// More of them than one message holds; one given and one taken away.
fn blocks_follow_the_plan(nodes: &mut [Node; 2]) {
    let block = |number: u16| format!("10.64.{}.{}/26", number / 4, number % 4 * 64).parse().unwrap();
    let inside = Ipv4Addr::new(10, 64, 2, 1);
    nodes[1].within(|| ip(&format!("addr add {inside}/32 dev lo")));
    nodes[0].within(|| ip(&format!("route add 10.64.0.0/10 dev {INTERFACE}")));
    let server = nodes[1].within(|| TcpListener::bind((inside, 80)).unwrap());
    let reach = |node: &Node| {
        let to = SocketAddr::from((inside, 80));
        node.within(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
    };
    nodes[0].mesh().peers[0].blocks = (0..600).map(block).collect();
    nodes[0].apply();
    assert!(reach(&nodes[0]));
    // 10.64.2.0/26 is the eighth.
    nodes[0].mesh().peers[0].blocks.remove(8);
    nodes[0].apply();
    assert!(!reach(&nodes[0]));
    assert!(nodes[0].pings(2, 100));
    nodes[0].mesh().peers[0].blocks = vec![block(8)];
    nodes[0].apply();
    assert!(reach(&nodes[0]));
    drop(server);
}

#[test]
fn a_kernel_that_cannot_is_said_so() {
    lab::run(|lab| {
        let open = |data_plane| Overlay::open(&Config { data_plane, ..lab.config.clone() });
        let can = open(DataPlane::Auto).unwrap().carrier() == Carrier::Kernel;
        match open(DataPlane::Kernel) {
            Ok(overlay) => assert!(can && overlay.carrier() == Carrier::Kernel),
            Err(error) => {
                assert!(!can && matches!(error, RealizeError::NoKernelWireguard(_)), "{error:?}");
                assert!(error.to_string().contains("modprobe wireguard"), "{error}");
            }
        }
        assert_eq!(open(DataPlane::Userspace).unwrap().carrier(), Carrier::Userspace);
    });
}
