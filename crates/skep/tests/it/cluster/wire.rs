//! What passes a node's wire, as somebody who listens there sees it.

use std::io::Read;
use std::time::Duration;

use skep_lab::Node;
use socket2::{Domain, Protocol, Socket, Type};

/// All frames from here on, in both directions.
pub struct Wire(Socket);

const EVERY_PROTOCOL: u16 = 0x0003;
/// After which nothing more is under way.
const QUIET: Duration = Duration::from_millis(300);

impl Wire {
    /// On all of a node's wires: the lab gives it one.
    pub fn listen(node: &Node) -> Wire {
        let open = || {
            let every = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
            socket.set_recv_buffer_size(32 << 20)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.set_read_timeout(Some(QUIET))?;
            Ok::<_, std::io::Error>(socket)
        };
        Wire(node.in_netns(open).unwrap().unwrap())
    }

    /// What passed until it is quiet, or there is more than a test needs.
    pub fn frames(mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.0.read(&mut buffer)
            && frames.len() < 100_000
        {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }

    /// Whether an Ethernet frame is IPv4 and UDP to that port.
    pub fn is_udp_to(frame: &[u8], port: u16) -> bool {
        const ETHERNET: usize = 14;
        const UDP: u8 = 17;
        let Some(packet) = frame.get(ETHERNET..).filter(|packet| packet.len() > 24) else { return false };
        let header = usize::from(packet[0] & 0x0f) * 4;
        let is_udp = packet[0] >> 4 == 4 && packet[9] == UDP;
        is_udp && packet.get(header + 2..header + 4) == Some(&port.to_be_bytes()[..])
    }
}
