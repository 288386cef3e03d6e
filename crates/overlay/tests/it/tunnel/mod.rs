//! The tunnel between nodes that are namespaces on one wire, carried by real helper processes.
//!
//! ```text
//! node 1: eth0 192.0.2.1, sk-tunnel 10.127.0.1 ─┐
//! node 2: eth0 192.0.2.2, sk-tunnel 10.127.0.2 ─┴─ wire (the test's thread)
//! ```

mod foreign;
mod kernel;
mod life;
mod speed;
mod traffic;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use skep_overlay::plan::{Mesh, MeshPeer, NodeNetwork};
use skep_overlay::tunnel::{DataPlane, INTERFACE, PORT, PeerStats, PrivateKey, PublicKey};
use skep_overlay::{Config, Overlay};
use socket2::{Domain, Protocol, Socket, Type};

use crate::helper::{Daemon, config_at};
use crate::lab::{self, Lab, Place, ip, within};

/// What the tunnel's users send must never be seen on the wire.
const CANARY: &[u8] = b"the canary sings in its cage, and nobody out there may hear it";

pub struct Node {
    number: u8,
    namespace: OwnedFd,
    config: Config,
    network: NodeNetwork,
    overlay: Option<Overlay>,
    daemon: Option<Daemon>,
}

impl Place for &Node {
    fn namespace(&self) -> OwnedFd {
        self.namespace.try_clone().unwrap()
    }
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

fn wire_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

pub fn tunnel_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 127, 0, number)
}

/// What `other` is to the rest.
fn peer(other: u8) -> MeshPeer {
    MeshPeer {
        node: format!("node{other}"),
        key: key(other).public(),
        endpoint: Some((wire_address(other), PORT).into()),
        address: tunnel_address(other),
        blocks: vec![],
        keepalive_s: None,
    }
}

/// The namespace of node `number`, on the wire.
fn plug(number: u8) -> OwnedFd {
    let (thread, namespace) = lab::namespace();
    if number == 1 {
        ip("link add wire type bridge");
        ip("link set wire up");
    }
    ip(&format!("link add w{number} type veth peer name eth0 netns {thread}"));
    ip(&format!("link set w{number} master wire up"));
    within(&namespace, || {
        ip("link set lo up");
        ip(&format!("addr add {}/24 dev eth0", wire_address(number)));
        ip("link set eth0 up");
    });
    namespace
}

/// Nodes 1 to `count`, each of which knows all others.
fn nodes(lab: &Lab, count: u8) -> Vec<Node> {
    let node = |number| Node::new(lab, number, count, DataPlane::Userspace);
    (1..=count).map(node).collect()
}

impl Node {
    /// One of `count`, which are numbered from 1.
    fn new(lab: &Lab, number: u8, count: u8, data_plane: DataPlane) -> Self {
        let namespace = plug(number);
        let config = Config {
            run_dir: lab.config.run_dir.join(number.to_string()),
            data_dir: lab.config.data_dir.join(number.to_string()),
            data_plane,
        };
        let mesh = Mesh {
            key: key(number),
            port: PORT,
            address: tunnel_address(number),
            nodes: "10.127.0.0/18".parse().unwrap(),
            mtu: 1420,
            path: None,
            peers: (1..=count).filter(|other| *other != number).map(peer).collect(),
        };
        let network = NodeNetwork { mesh: Some(mesh), ..lab::empty() };
        let mut node = Self { number, namespace, config, network, overlay: None, daemon: None };
        node.start();
        node
    }

    fn mesh(&mut self) -> &mut Mesh {
        self.network.mesh.as_mut().unwrap()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// A daemon, which finds what the one before it left.
    fn start(&mut self) {
        self.overlay = Some(self.within(|| Overlay::open(&self.config).unwrap()));
        self.daemon = Some(self.within(|| Daemon::with(config_at(&self.config.run_dir))));
        self.apply();
    }

    fn crash(&mut self) {
        self.overlay = None;
        self.daemon.take().unwrap().crash();
    }

    /// As the agent does it: the helper knows first.
    fn apply(&self) {
        self.within(|| {
            let overlay = self.overlay.as_ref().unwrap();
            let problems = overlay.plan(&self.network).problems;
            assert_eq!(problems, []);
            let snapshot = overlay.plan(&self.network).snapshot;
            assert_eq!(self.daemon().apply(&snapshot), []);
            overlay.apply(&self.network).unwrap();
            if self.network.mesh.is_some() {
                ip(&format!("route replace 10.127.0.0/18 dev {INTERFACE}"));
            }
        });
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.namespace, work)
    }

    fn stats(&self) -> std::collections::BTreeMap<PublicKey, PeerStats> {
        self.within(|| self.daemon().ask(self.overlay.as_ref().unwrap().tunnel_stats(self.daemon().helper())).unwrap())
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.within(|| TcpListener::bind((tunnel_address(self.number), port)).unwrap())
    }

    fn connect(&self, to: u8, port: u16) -> std::io::Result<TcpStream> {
        let to: SocketAddr = (tunnel_address(to), port).into();
        let stream = self.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Whether an echo comes back; `bytes` is the size of the inner packet.
    fn pings(&self, to: u8, bytes: usize) -> bool {
        let mut request = vec![b'.'; bytes - 20];
        request[..8].copy_from_slice(&[8, 0, 0, 0, 7, 7, 0, 1]);
        let sum: u32 =
            request.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        request[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let address = tunnel_address(to);
        let to = SocketAddr::from((address, 0));
        self.within(|| {
            let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            if socket.send_to(&request, &to.into()).is_err() {
                return false;
            }
            let mut reply = vec![0; 2048];
            loop {
                let Ok(length) = socket.read(&mut reply) else { return false };
                // Behind the IP header; the rest but type and checksum is the request's.
                let (header, message) = reply[..length].split_at(20);
                if header[12..16] == address.octets() && message[0] == 0 {
                    return message[4..] == request[4..];
                }
            }
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let daemon = self.daemon.take();
        within(&self.namespace, || drop(daemon));
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Answers one connection with all that it says.
fn echo(listener: TcpListener) -> JoinHandle<()> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => stream.write_all(&buffer[..length]).unwrap(),
            }
        }
    })
}

/// Says something and hears it again.
fn converse(stream: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).unwrap();
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, words);
}
