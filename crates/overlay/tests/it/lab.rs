//! A node and an "internet" for one test, in namespaces of their own, gone with the test's process.
//!
//! ```text
//! outside 203.0.113.9, 198.51.100.1 ── 198.51.100.2 node (the test's thread)
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;
use skep_overlay::plan::{Backend, Balance, Endpoint, Network, NodeNetwork, Protocol, PublishMode, Published, Service};
use skep_overlay::tunnel::DataPlane;
use skep_overlay::{Attachment, Config, Overlay, Sandbox};

/// The node's address towards the outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Reached by the default route only.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// The same of IPv6.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 51, 0, 0, 0, 0, 2);
pub const NEIGHBOUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 51, 0, 0, 0, 0, 1);
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 113, 0, 0, 0, 0, 9);

pub struct Lab {
    pub config: Config,
    outside: OwnedFd,
}

/// Runs a test on a thread in a new network and mount namespace.
pub fn run(test: impl FnOnce(Lab) + Send + 'static) {
    // Removed out here, where nothing is mounted in it.
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        run_dir: folder.path().join("run"),
        data_dir: folder.path().join("data"),
        data_plane: DataPlane::Userspace,
    };
    let thread = thread::spawn(move || {
        unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        test(Lab { config, outside: outside() });
    });
    let outcome = thread.join();
    folder.close().unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[allow(deprecated, reason = "the replacement is unsafe for CLONE_FILES only, and this crate's tests have no unsafe")]
fn unshare(flags: UnshareFlags) {
    rustix::thread::unshare(flags).expect("tests of the overlay run as root");
}

/// A new network namespace, and the thread that `ip` finds it by. It lives until the process ends.
pub fn namespace() -> (NonZero<i32>, OwnedFd) {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        unshare(UnshareFlags::NEWNET);
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        send.send((rustix::thread::gettid().as_raw_nonzero(), OwnedFd::from(own))).unwrap();
        loop {
            thread::park();
        }
    });
    receive.recv().unwrap()
}

fn outside() -> OwnedFd {
    ip("link set lo up");
    let (thread, fd) = namespace();
    ip(&format!("link add up0 type veth peer name out0 netns {thread}"));
    ip(&format!("addr add {NODE}/24 dev up0"));
    ip("link set up0 up");
    ip(&format!("route add default via {NEIGHBOUR}"));
    ip(&format!("addr add {NODE_V6}/64 dev up0 nodad"));
    ip(&format!("route add default via {NEIGHBOUR_V6}"));
    within(&fd, || {
        ip("link set lo up");
        ip(&format!("addr add {NEIGHBOUR}/24 dev out0"));
        ip(&format!("addr add {INTERNET}/32 dev lo"));
        ip(&format!("addr add {NEIGHBOUR_V6}/64 dev out0 nodad"));
        ip(&format!("addr add {INTERNET_V6}/128 dev lo"));
        ip("link set out0 up");
    });
    // Until the kernel has seen the other end go up, the link's listing and its routes still change.
    while ip("-o link show up0").contains("NO-CARRIER") || ip("route").contains("linkdown") {
        thread::yield_now();
    }
    fd
}

/// `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) -> String {
    program("ip", arguments)
}

/// Another program of iproute2's.
pub fn program(name: &str, arguments: &str) -> String {
    let output = attempt(name, arguments);
    assert!(output.status.success(), "{name} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same where it may fail.
pub fn attempt(name: &str, arguments: &str) -> Output {
    Command::new(name).args(arguments.split(' ')).output().expect("iproute2 is installed")
}

/// Does `work` on a thread inside a network namespace.
pub fn within<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
        work()
    };
    thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

pub trait Place {
    fn namespace(&self) -> OwnedFd;

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.namespace(), work)
    }

    /// What a server says to a client here: `NAME PEER-ADDRESS`.
    fn ask(&self, to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
        let to = SocketAddr::new(to.into(), port);
        self.run(move || ask(to))
    }

    fn ask_udp(&self, to: impl Into<IpAddr>, port: u16) -> io::Result<String> {
        let to = SocketAddr::new(to.into(), port);
        self.run(move || ask_udp(to))
    }

    /// Answers every connection and datagram to `port` with `name` and the peer's address.
    fn serve(&self, port: u16, name: &'static str) {
        self.serve_at(Ipv6Addr::UNSPECIFIED, port, name);
    }

    fn serve_at(&self, address: impl Into<IpAddr>, port: u16, name: &'static str) {
        let at = (address.into(), port);
        let (tcp, udp) = self.run(move || (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                // A client that is gone has its answer.
                let _gone = write!(stream, "{name} {peer}");
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _gone = udp.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer);
            }
        });
    }
}

impl Place for Sandbox {
    fn namespace(&self) -> OwnedFd {
        self.open().unwrap()
    }
}

/// The test's own thread: the node.
pub struct Node;

impl Place for Node {
    fn namespace(&self) -> OwnedFd {
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    }
}

/// The host on the other side of the node's uplink.
pub struct Outside(pub OwnedFd);

impl Place for Outside {
    fn namespace(&self) -> OwnedFd {
        self.0.try_clone().unwrap()
    }
}

/// Long enough for a loaded machine; what a test expects to fail by silence waits for [`SILENCE`].
const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(400);

fn ask(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_udp(to: SocketAddr) -> io::Result<String> {
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Whether connections from `place` vanish on the way: no answer at all, not even a refusal.
pub fn is_silent(place: &impl Place, to: impl Into<IpAddr>, port: u16) -> bool {
    let to = SocketAddr::from((to.into(), port));
    match place.run(move || TcpStream::connect_timeout(&to, SILENCE)) {
        Err(error) => error.kind() == io::ErrorKind::TimedOut,
        Ok(_) => false,
    }
}

impl Lab {
    pub fn overlay(&self) -> Overlay {
        Overlay::open(&self.config).unwrap()
    }

    pub fn outside(&self) -> Outside {
        Outside(self.outside.try_clone().unwrap())
    }
}

/// Networks 10.64.16.0/20 and so on by number, with twins in fd64::/48; 9 is internal, 7 has IPv4 only.
pub fn network(number: u8) -> Network {
    let internal = number == 9;
    Network {
        id: format!("network{number}"),
        name: format!("n{number}"),
        subnet: format!("10.64.{}.0/20", u16::from(number) * 16).parse().unwrap(),
        subnet_v6: (number != 7).then(|| format!("fd64::10.64.{}.0/116", u16::from(number) * 16).parse().unwrap()),
        gateway: Ipv4Addr::new(10, 64, number * 16, 1),
        blocks: vec![],
        internal,
        driver: skep_overlay::plan::Driver::Overlay,
    }
}

pub fn host(number: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, number * 16, host)
}

pub fn vip(number: u8, service: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, number * 16 + 14, service)
}

/// The twin of an address of these networks, or of a node in the tunnel.
pub fn twin(address: Ipv4Addr) -> Ipv6Addr {
    format!("fd64::{address}").parse().unwrap()
}

pub fn empty() -> NodeNetwork {
    NodeNetwork { prefix: Some("fd64::/48".parse().unwrap()), ..NodeNetwork::nothing("10.64.0.0/10".parse().unwrap()) }
}

/// A container on some networks: the sandbox, and its endpoints in `node`.
pub fn start(overlay: &Overlay, node: &mut NodeNetwork, id: &str, places: &[(u8, u8)]) -> Sandbox {
    let places =
        places.iter().map(|(number, last)| Attachment { network: network(*number), address: host(*number, *last) });
    start_on(overlay, node, id, &places.collect::<Vec<_>>())
}

pub fn start_on(overlay: &Overlay, node: &mut NodeNetwork, id: &str, places: &[Attachment]) -> Sandbox {
    for Attachment { network, address } in places {
        if !node.networks.iter().any(|known| known.id == network.id) {
            node.networks.push(network.clone());
        }
        node.endpoints.push(Endpoint {
            sandbox: id.to_owned(),
            network: network.id.clone(),
            address: *address,
            names: vec![id.to_owned()],
            serving: true,
        });
    }
    overlay.create_sandbox(id, places).unwrap()
}

pub fn service(number: u8, vip: Ipv4Addr, backends: &[Ipv4Addr]) -> Service {
    let backends = backends.iter().map(|address| Backend { address: *address, serving: true }).collect();
    Service {
        network: network(number).id,
        vip: Some(vip),
        names: vec!["service".to_owned()],
        backends,
        balance: Balance::default(),
    }
}

pub fn publish(protocol: Protocol, published: u16, target: u16, backends: &[Ipv4Addr]) -> Published {
    let backends = backends.to_vec();
    Published {
        protocol,
        published,
        bind: None,
        target,
        backends,
        mode: PublishMode::Ingress,
        balance: Balance::default(),
    }
}
