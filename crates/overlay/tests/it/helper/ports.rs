//! Published ports on the loopback addresses.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use skep_overlay::snapshot::Protocol::{Tcp, Udp};
use skep_overlay::snapshot::{Listener, ServeError, Snapshot};

use super::{Daemon, listener, nothing, ports};
use crate::lab::{self, Node, Place};

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Where backends of these tests are: addresses of the node's own loopback that nobody else uses.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn localhost_answers_by_ipv4_and_ipv6() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(ONE, 80)]), listener(Udp, 8080, &[(ONE, 80)])]));
        Node.serve_at(ONE, 80, "one");
        for loopback in LOOPBACKS {
            assert_eq!(Node.ask(loopback, 8080).unwrap(), "one 127.0.0.1");
            assert_eq!(Node.ask_udp_at(loopback, 8080), "one 127.0.0.1");
        }
    });
}

#[test]
fn each_direction_ends_for_itself_and_nothing_is_lost() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(ONE, 80)])]));
        let backend = TcpListener::bind((ONE, 80)).unwrap();
        // Answers only after the client's end: what it got, reversed.
        thread::spawn(move || {
            let (mut stream, _) = backend.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all.reverse();
            stream.write_all(&all).unwrap();
        });
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        received.reverse();
        assert!(received == sent);
    });
}

#[test]
fn a_backend_that_refuses_is_passed_over() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(ONE, 80), (TWO, 80)])]));
        Node.serve_at(TWO, 80, "two");
        for _ in 0..20 {
            assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap(), "two 127.0.0.1");
        }
    });
}

#[test]
fn without_backends_connections_are_reset() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        for backends in [&[][..], &[(ONE, 80)]] {
            daemon.serve(&ports(&[listener(Tcp, 8080, backends)]));
            let error = Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn live_connections_outlive_every_change() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(ONE, 80)])]));
        let backend = TcpListener::bind((ONE, 80)).unwrap();
        Node.serve_at(TWO, 80, "two");
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let (mut server, _) = backend.accept().unwrap();
        let mut still = || {
            client.write_all(b"ping").unwrap();
            server.read_exact(&mut [0; 4]).unwrap();
            server.write_all(b"pong").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
        };
        still();
        daemon.serve(&ports(&[listener(Tcp, 8080, &[(TWO, 80)])]));
        assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap(), "two 127.0.0.1");
        still();
        daemon.serve(&nothing());
        let refused = Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        still();
    });
}

#[test]
fn a_udp_client_stays_with_its_backend_until_that_goes() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Udp, 5353, &[(ONE, 53), (TWO, 53)])]));
        Node.serve_at(ONE, 53, "one");
        Node.serve_at(TWO, 53, "two");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect((Ipv4Addr::LOCALHOST, 5353)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = || {
            client.send(b"?").unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let first = ask();
        assert!((0..20).all(|_| ask() == first));
        let (other, name) = if first.starts_with("one") { (TWO, "two") } else { (ONE, "one") };
        daemon.serve(&ports(&[listener(Udp, 5353, &[(other, 53)])]));
        assert!(ask().starts_with(name));
    });
}

#[test]
fn a_udp_backend_that_refuses_is_left() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        daemon.serve(&ports(&[listener(Udp, 5353, &[(ONE, 53), (TWO, 53)])]));
        Node.serve_at(TWO, 53, "two");
        for _ in 0..10 {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.connect((Ipv4Addr::LOCALHOST, 5353)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let ask = || client.send(b"?").and_then(|_| client.recv(&mut [0; 64])).is_ok();
            assert!((0..500).any(|_| ask()), "a client that asks again is answered");
        }
    });
}

#[test]
fn a_port_that_is_taken_names_the_program() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let own_name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let expected = format!("the port is taken by {} (pid {})", own_name.trim(), std::process::id());
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let wanted = ports(&[
            listener(Tcp, 8080, &[(ONE, 80)]),
            listener(Udp, 8080, &[(ONE, 80)]),
            listener(Tcp, 8081, &[(ONE, 80)]),
        ]);
        let refused =
            |listener: &Listener| ServeError::Listener { listener: listener.clone(), message: expected.clone() };
        assert_eq!(daemon.apply(&wanted), [refused(&wanted.listeners[0]), refused(&wanted.listeners[1])]);
        // The others are served, and these as soon as they are free.
        Node.serve_at(ONE, 80, "one");
        assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8081).unwrap(), "one 127.0.0.1");
        drop((tcp, udp));
        daemon.serve(&wanted);
        assert_eq!(Node.ask(Ipv4Addr::LOCALHOST, 8080).unwrap(), "one 127.0.0.1");
    });
}

#[test]
fn a_port_is_bound_where_it_is_asked_for() {
    lab::run(|lab| {
        let daemon = Daemon::start(&lab);
        let at = |bind: [u8; 4]| Listener { bind: Some(bind.into()), ..listener(Tcp, 8080, &[(ONE, 80)]) };
        let snapshot = |listeners: &[Listener]| Snapshot { listeners: listeners.to_vec(), ..nothing() };
        Node.serve_at(ONE, 80, "one");
        // From every address to one, and back: the old socket is closed before the new one is opened.
        daemon.serve(&snapshot(&[listener(Tcp, 8080, &[(ONE, 80)])]));
        daemon.serve(&snapshot(&[at([127, 0, 0, 5])]));
        assert_eq!(Node.ask([127, 0, 0, 5], 8080).unwrap(), "one 127.0.0.1");
        assert!(Node.ask([127, 0, 0, 1], 8080).is_err());
        daemon.serve(&snapshot(&[listener(Tcp, 8080, &[(ONE, 80)])]));
        assert_eq!(Node.ask([127, 0, 0, 1], 8080).unwrap(), "one 127.0.0.1");

        let errors = daemon.apply(&snapshot(&[at([192, 0, 2, 77])]));
        let [ServeError::Listener { message, .. }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(message, "this node has no address 192.0.2.77");

        let both = snapshot(&[listener(Tcp, 8080, &[(ONE, 80)]), at([127, 0, 0, 5])]);
        let errors = daemon.apply(&both);
        let [ServeError::Listener { message, .. }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(message, "the port is published on every address already");
    });
}

trait AskUdp {
    fn ask_udp_at(&self, to: IpAddr, port: u16) -> String;
}

impl AskUdp for Node {
    /// From a socket of the address's own family.
    fn ask_udp_at(&self, to: IpAddr, port: u16) -> String {
        let socket = UdpSocket::bind(SocketAddr::new(to, 0)).unwrap();
        socket.connect((to, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(b"?").unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}
