//! A peer of another make: wireguard-go, told by `wg`.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, mount};
use skep_lab::find_tool;

use super::*;

/// Node 2, on the wire and in the tunnel as ours would be.
struct Foreign {
    namespace: OwnedFd,
    process: Option<Child>,
    folder: tempfile::TempDir,
}

const DEVICE: &str = "foreign0";

impl Foreign {
    fn plug() -> Self {
        // Its control socket has a fixed place.
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
        Self { namespace: plug(2), process: None, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts it anew; it knows where node 1 is, or waits to be found.
    fn start(&mut self, endpoint: Option<SocketAddr>) {
        self.stop();
        let mut command = Command::new(find_tool("wireguard-go").unwrap());
        command.args(["-f", DEVICE]).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(within(&self.namespace, || command.spawn().unwrap()));
        wait_for("wireguard-go", || fs::exists(format!("/run/wireguard/{DEVICE}.sock")).unwrap());
        let secret = self.folder.path().join("key");
        fs::write(&secret, key(2).to_base64()).unwrap();
        self.wg(&format!("set {DEVICE} listen-port {PORT} private-key {}", secret.display()));
        let endpoint = endpoint.map(|endpoint| format!(" endpoint {endpoint}")).unwrap_or_default();
        let allowed = tunnel_address(1);
        self.wg(&format!("set {DEVICE} peer {}{endpoint} allowed-ips {allowed}/32", key(1).public()));
        within(&self.namespace, || {
            ip(&format!("addr add {}/32 dev {DEVICE}", tunnel_address(2)));
            ip(&format!("link set {DEVICE} mtu 1420 up"));
            ip(&format!("route add 10.127.0.0/18 dev {DEVICE}"));
        });
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
            fs::remove_file(format!("/run/wireguard/{DEVICE}.sock")).unwrap();
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop();
    }
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
        let mut theirs = Foreign::plug();
        // They do not know where we are, so we begin.
        theirs.start(None);
        stream(&theirs.namespace, &ours.namespace, tunnel_address(2));
        stream(&ours.namespace, &theirs.namespace, tunnel_address(1));
        let shown = theirs.wg(&format!("show {DEVICE} endpoints"));
        assert!(shown.contains(&format!("{}\t192.0.2.1:{PORT}", key(1).public())), "{shown}");
        for bytes in [28, 116, 1420, 1500] {
            assert!(ours.pings(2, bytes), "{bytes} bytes");
        }
        // Now we do not, and they begin.
        ours.mesh().peers.clear();
        ours.apply();
        ours.mesh().peers = vec![MeshPeer { endpoint: None, ..peer(2) }];
        ours.apply();
        theirs.start(Some((wire_address(1), PORT).into()));
        stream(&ours.namespace, &theirs.namespace, tunnel_address(1));
        stream(&theirs.namespace, &ours.namespace, tunnel_address(2));
        let stats = ours.stats()[&key(2).public()].clone();
        assert_eq!(stats.endpoint, Some((wire_address(2), PORT).into()));
        assert!(stats.rx_bytes > 10_000_000 && stats.tx_bytes > 10_000_000, "{stats:?}");
    });
}
