//! A peer of another make: wireguard-go, told by `wg`.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, mount};
use skep_lab::find_tool;

use super::*;

/// Node 2, on the wire and in the tunnel as ours would be.
pub struct Foreign {
    number: u8,
    pub namespace: OwnedFd,
    process: Option<Child>,
    folder: tempfile::TempDir,
}

impl Foreign {
    pub fn plug(number: u8) -> Self {
        Self { number, namespace: plug(number), process: None, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts it anew, for one peer; it knows where that is, or waits to be found.
    pub fn start(&mut self, peer: u8, endpoint: Option<SocketAddr>) {
        self.stop();
        let device = self.device();
        let mut command = Command::new(find_tool("wireguard-go").unwrap());
        command.args(["-f", &device]).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(within(&self.namespace, || command.spawn().unwrap()));
        wait_for("wireguard-go", || fs::exists(self.socket()).unwrap());
        let secret = self.folder.path().join("key");
        fs::write(&secret, key(self.number).to_base64()).unwrap();
        self.wg(&format!("set {device} listen-port {PORT} private-key {}", secret.display()));
        let endpoint = endpoint.map(|endpoint| format!(" endpoint {endpoint}")).unwrap_or_default();
        let allowed = tunnel_address(peer);
        self.wg(&format!("set {device} peer {}{endpoint} allowed-ips {allowed}/32", key(peer).public()));
        within(&self.namespace, || {
            ip(&format!("addr add {}/32 dev {device}", tunnel_address(self.number)));
            ip(&format!("link set {device} mtu 1420 up"));
            ip(&format!("route add 10.127.0.0/18 dev {device}"));
        });
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    fn wg(&self, arguments: &str) -> String {
        let wg = find_tool("wg").unwrap();
        let output = within(&self.namespace, || Command::new(wg).args(arguments.split(' ')).output().unwrap());
        assert!(output.status.success(), "wg {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
            // Killed, it leaves its socket.
            fs::remove_file(self.socket()).unwrap();
        }
    }

    fn device(&self) -> String {
        format!("foreign{}", self.number)
    }

    fn socket(&self) -> String {
        format!("/run/wireguard/{}.sock", self.device())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop();
    }
}

/// wireguard-go's control sockets have a fixed place; this test's are its own.
pub fn hide_run() {
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Much, from `client` to a server at `address` and back.
fn stream(server: &OwnedFd, client: &OwnedFd, address: Ipv4Addr) {
    let to = SocketAddr::from((address, 80));
    let server = echo(within(server, || TcpListener::bind(to).unwrap()));
    let mut stream = within(client, || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (0..100).for_each(|round| converse(&mut stream, &vec![round; 100_000]));
    drop(stream);
    server.join().unwrap();
}

#[test]
fn wireguard_go_speaks_with_us_whoever_begins() {
    lab::run(|lab| {
        let mut ours = Node::new(&lab, 1, 2, DataPlane::Userspace);
        hide_run();
        let mut theirs = Foreign::plug(2);
        // They do not know where we are, so we begin.
        theirs.start(1, None);
        stream(&theirs.namespace, &ours.namespace, tunnel_address(2));
        stream(&ours.namespace, &theirs.namespace, tunnel_address(1));
        let shown = theirs.wg(&format!("show {} endpoints", theirs.device()));
        assert!(shown.contains(&format!("{}\t192.0.2.1:{PORT}", key(1).public())), "{shown}");
        for bytes in [28, 116, 1420, 1500] {
            assert!(ours.pings(2, bytes), "{bytes} bytes");
        }
        // Now we do not, and they begin.
        ours.mesh().peers.clear();
        ours.apply();
        ours.mesh().peers = vec![MeshPeer { endpoint: None, ..peer(2) }];
        ours.apply();
        theirs.start(1, Some((wire_address(1), PORT).into()));
        stream(&ours.namespace, &theirs.namespace, tunnel_address(1));
        stream(&theirs.namespace, &ours.namespace, tunnel_address(2));
        let stats = ours.stats()[&key(2).public()].clone();
        assert_eq!(stats.endpoint, Some((wire_address(2), PORT).into()));
        assert!(stats.rx_bytes > 10_000_000 && stats.tx_bytes > 10_000_000, "{stats:?}");
    });
}
