//! Peers that come, go and move; daemons and helpers that end and are started again.

use super::*;
use crate::helper::kill;

#[test]
fn a_removed_peer_is_cut_off_at_once_and_the_others_are_not() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 3);
        let servers = [echo(nodes[0].listen(80)), echo(nodes[0].listen(81))];
        let mut removed = nodes[1].connect(1, 80).unwrap();
        let mut other = nodes[2].connect(1, 81).unwrap();
        converse(&mut removed, b"as long as it may");
        converse(&mut other, b"before");
        nodes[0].mesh().peers.retain(|peer| peer.node != "node2");
        nodes[0].apply();
        removed.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        removed.write_all(b"it may no more").unwrap();
        let error = removed.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        converse(&mut other, b"after");
        // Back again, it is heard again: the words that were lost are repeated by TCP.
        nodes[0].mesh().peers.push(peer(2));
        nodes[0].apply();
        removed.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = [0; 14];
        removed.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"it may no more");
        drop((removed, other));
        servers.into_iter().for_each(|server| server.join().unwrap());
    });
}

#[test]
fn a_peer_that_moves_is_followed() {
    lab::run(|lab| {
        let nodes = nodes(&lab, 2);
        let server = echo(nodes[0].listen(80));
        let mut stream = nodes[1].connect(1, 80).unwrap();
        converse(&mut stream, b"from the old address");
        nodes[1].within(|| {
            ip("addr del 192.0.2.2/24 dev eth0");
            ip("addr add 192.0.2.77/24 dev eth0");
        });
        converse(&mut stream, b"from the new address");
        let stats = nodes[0].stats();
        let moved = SocketAddr::from(([192, 0, 2, 77], PORT));
        assert_eq!(stats[&key(2).public()].endpoint, Some(moved));
        // What is known of it is older than what was heard.
        nodes[0].apply();
        converse(&mut stream, b"and again");
        drop(stream);
        server.join().unwrap();
    });
}

#[test]
fn a_stream_outlives_the_daemons() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        let server = echo(nodes[1].listen(80));
        let mut stream = nodes[0].connect(2, 80).unwrap();
        converse(&mut stream, b"with daemons");
        let sent = nodes[0].stats()[&key(2).public()].clone();
        nodes[0].crash();
        nodes[1].crash();
        converse(&mut stream, b"without");
        nodes[0].start();
        nodes[1].start();
        converse(&mut stream, b"with others");
        let stats = nodes[0].stats()[&key(2).public()].clone();
        // The same session: nothing was begun anew.
        assert!(stats.handshake_age > sent.handshake_age && stats.tx_bytes > sent.tx_bytes, "{sent:?}, then {stats:?}");
        drop(stream);
        server.join().unwrap();
    });
}

#[test]
fn a_helper_that_is_killed_is_followed_by_one_with_new_sessions() {
    lab::run(|lab| {
        let nodes = nodes(&lab, 2);
        let server = echo(nodes[1].listen(80));
        let mut stream = nodes[0].connect(2, 80).unwrap();
        converse(&mut stream, b"before");
        let routes = nodes[0].within(|| ip(&format!("route show dev {INTERFACE}")));
        assert!(routes.contains("10.127.0.0/18"), "{routes}");
        let pid = nodes[0].daemon().pid();
        kill(pid);
        let left = nodes[0].within(|| ip(&format!("route show dev {INTERFACE}")));
        assert_eq!(left.replace(" linkdown", ""), routes);
        nodes[0].within(|| nodes[0].daemon().wait_for_another(pid));
        // It asks for a session by itself: nothing was sent.
        wait_for("a session", || nodes[0].stats().values().all(|peer| peer.handshake_age.is_some()));
        converse(&mut stream, b"after");
        drop(stream);
        server.join().unwrap();
    });
}

#[test]
fn another_key_begins_new_sessions_and_keeps_the_streams() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        let server = echo(nodes[1].listen(80));
        let mut stream = nodes[0].connect(2, 80).unwrap();
        converse(&mut stream, b"before");
        nodes[0].mesh().key = key(11);
        nodes[1].mesh().peers[0].key = key(11).public();
        nodes[1].apply();
        nodes[0].apply();
        converse(&mut stream, b"after");
        assert_eq!(nodes[1].stats().keys().collect::<Vec<_>>(), [&key(11).public()]);
        drop(stream);
        server.join().unwrap();
    });
}

#[test]
fn the_interface_is_made_mended_and_removed() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        let link = |node: &Node| {
            node.within(|| ip("-o -d addr show")).lines().find(|line| line.contains(INTERFACE)).map(str::to_owned)
        };
        let shown = |node: &Node| node.within(|| ip(&format!("-o link show {INTERFACE}")));
        let before = shown(&nodes[0]);
        nodes[0].apply();
        assert_eq!(shown(&nodes[0]), before);
        // By somebody else, and by a change.
        nodes[0].within(|| ip(&format!("addr add 10.9.9.9/32 dev {INTERFACE}")));
        nodes[0].mesh().mtu = 1380;
        nodes[0].apply();
        assert!(shown(&nodes[0]).contains("mtu 1380"));
        assert!(!nodes[0].within(|| ip("addr")).contains("10.9.9.9"));
        nodes[0].within(|| ip(&format!("link del {INTERFACE}")));
        nodes[0].apply();
        wait_for("the way to node 2", || nodes[0].pings(2, 100));
        nodes[0].network.mesh = None;
        nodes[0].apply();
        assert_eq!(link(&nodes[0]), None);
        assert!(nodes[0].stats().is_empty());
    });
}

#[test]
fn a_keepalive_is_sent_without_traffic_and_can_be_changed() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        assert!(nodes[0].pings(2, 100));
        let session = nodes[0].stats()[&key(2).public()].clone();
        nodes[0].mesh().peers[0].keepalive_s = Some(1);
        nodes[0].apply();
        let sent = |bytes| nodes[0].stats()[&key(2).public()].tx_bytes >= bytes;
        wait_for("two keepalives", || sent(session.tx_bytes + 2 * 32));
        let after = nodes[0].stats()[&key(2).public()].clone();
        assert!(after.handshake_age > session.handshake_age, "the session is the same: {session:?}, then {after:?}");
    });
}
