//! What passes between nodes, as somebody at the lab's switch sees it.

use std::io::Read;

use skep_lab::Lab;
use socket2::{Domain, Protocol, Socket, Type};

/// All frames from here on, in both directions.
pub struct Wire(Socket);

const EVERY_PROTOCOL: u16 = 0x0003;

impl Wire {
    /// At every port of the switch.
    pub fn listen(lab: &Lab) -> Wire {
        let open = || {
            let every = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
            socket.set_recv_buffer_size(32 << 20)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        Wire(lab.outside(open).unwrap().unwrap())
    }

    /// What has passed until now: what was answered is among it.
    pub fn frames(mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.0.read(&mut buffer) {
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
