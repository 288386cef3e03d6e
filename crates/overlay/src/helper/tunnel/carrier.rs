//! The thread that carries: it waits for packets, datagrams, commands and time, and moves what is there.
//!
//! ```text
//! device ─▶ split ─▶ sessions.seal ─▶ outgoing ─▶ socket        many in one, both where they come from and where they
//! device ◀─ merge ◀─ sessions.open ◀───────────── socket        go: the ways through the kernel cost more than the rest
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::device::Device;
use super::merge::Merger;
use super::outgoing::Outgoing;
use super::sessions::{MESSAGE, Opened, SEAL, Sealed, Sessions, TICK};
use super::socket::Socket;
use super::split::{HEADER, split};
use super::unreachable;
use crate::sys::udp::Received;
use crate::tunnel::{PeerStats, PublicKey, Tunnel};

/// How many packets are moved one way, about, before the other has its turn.
const BATCH: usize = 128;
/// How many packets a tick are told that nobody is there.
const ANSWERS: u32 = 64;
/// Of any IP packet.
const PACKET: usize = 64 * 1024;

/// From the server.
#[derive(Debug)]
pub enum Command {
    Carry(Option<Box<Tunnel>>, oneshot::Sender<Result<(), String>>),
    Stats(oneshot::Sender<BTreeMap<PublicKey, PeerStats>>),
}

/// See the file's header.
pub struct Carrier {
    commands: Receiver<Command>,
    bell: Arc<OwnedFd>,
    carried: Option<Carried>,
}

/// A tunnel, and what of it is there.
struct Carried {
    port: u16,
    sessions: Sessions,
    socket: Option<Socket>,
    device: Option<Device>,
    ticked: Instant,
    /// How many packets may still be told that nobody is there, until the next tick.
    answers: u32,
    buffers: Buffers,
}

struct Buffers {
    /// What is read, from either side.
    incoming: Box<[u8]>,
    /// A packet for the device, behind its header; or any message.
    packet: Box<[u8]>,
    outgoing: Outgoing,
    merger: Merger,
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Life {
    On,
    Over,
}

impl Carrier {
    pub fn new(commands: Receiver<Command>, bell: Arc<OwnedFd>) -> Self {
        Self { commands, bell, carried: None }
    }

    pub fn run(mut self) {
        loop {
            let ready = self.wait();
            if ready.bell && self.obey() == Life::Over {
                return;
            }
            let Some(carried) = &mut self.carried else { continue };
            if ready.socket {
                carried.receive();
            }
            if ready.device {
                carried.send();
            }
            if carried.ticked.elapsed() >= TICK {
                carried.tick();
            }
        }
    }

    fn wait(&self) -> Ready {
        let carried = self.carried.as_ref();
        let socket = carried.and_then(|carried| carried.socket.as_ref());
        // Without a socket nothing could leave: packets wait in the device's queue.
        let device = carried.and_then(|carried| carried.device.as_ref()).filter(|_| socket.is_some());
        let mut places = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        places.extend(socket.map(|socket| PollFd::new(socket, PollFlags::IN)));
        places.extend(device.map(|device| PollFd::new(device, PollFlags::IN)));
        let left = carried.map(|carried| TICK.saturating_sub(carried.ticked.elapsed()));
        let left = left.map(|left| Timespec::try_from(left).expect("a tick is far below what a timespec holds"));
        match poll(&mut places, left.as_ref()) {
            Ok(_) => {
                let mut ready = places.iter().map(|place| !place.revents().is_empty());
                let mut next = |is_there: bool| is_there && ready.next().unwrap_or(false);
                Ready { bell: next(true), socket: next(socket.is_some()), device: next(device.is_some()) }
            }
            Err(rustix::io::Errno::INTR) => Ready::default(),
            Err(error) => {
                tracing::error!(%error, "the tunnel cannot wait for packets");
                std::thread::sleep(Duration::from_millis(100));
                Ready::default()
            }
        }
    }

    fn obey(&mut self) -> Life {
        // It may not ring any more; what it rang for is looked for in any case.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        loop {
            match self.commands.try_recv() {
                // Whoever asked may not wait any more.
                Ok(Command::Carry(tunnel, reply)) => drop(reply.send(self.carry(tunnel.as_deref()))),
                Ok(Command::Stats(reply)) => {
                    let stats = self.carried.as_ref().map(|carried| carried.sessions.stats());
                    drop(reply.send(stats.unwrap_or_default()));
                }
                Err(TryRecvError::Empty) => return Life::On,
                Err(TryRecvError::Disconnected) => return Life::Over,
            }
        }
    }

    fn carry(&mut self, tunnel: Option<&Tunnel>) -> Result<(), String> {
        let Some(tunnel) = tunnel else {
            self.carried = None;
            return Ok(());
        };
        let carried = self.carried.get_or_insert_with(|| Carried::new(tunnel));
        carried.apply(tunnel);
        let bound = carried.mend_socket();
        let attached = carried.make_device();
        // New peers are asked for sessions at once.
        carried.tick();
        bound.map_err(|error| format!("failed to bind UDP port {}: {error}", tunnel.port))?;
        attached.map_err(|error| format!("failed to attach to the TUN device: {error}"))
    }
}

#[derive(Default)]
struct Ready {
    bell: bool,
    socket: bool,
    device: bool,
}

impl Carried {
    fn new(tunnel: &Tunnel) -> Self {
        let buffers = Buffers {
            incoming: vec![0; HEADER + PACKET].into_boxed_slice(),
            packet: vec![0; HEADER + PACKET + SEAL + MESSAGE].into_boxed_slice(),
            outgoing: Outgoing::new(),
            merger: Merger::default(),
        };
        Self {
            port: tunnel.port,
            sessions: Sessions::new(&tunnel.key),
            socket: None,
            device: None,
            ticked: Instant::now(),
            answers: ANSWERS,
            buffers,
        }
    }

    fn apply(&mut self, tunnel: &Tunnel) {
        self.port = tunnel.port;
        self.sessions.apply(tunnel);
    }

    /// A socket on another port serves until there is one on the right port.
    fn mend_socket(&mut self) -> io::Result<()> {
        if self.socket.as_ref().is_none_or(|socket| socket.port() != self.port) {
            self.socket = Some(Socket::bind(self.port)?);
        }
        Ok(())
    }

    fn make_device(&mut self) -> io::Result<()> {
        if self.device.is_none() {
            self.device = Some(Device::attach_or_make()?);
        }
        Ok(())
    }

    fn mend_device(&mut self) -> io::Result<()> {
        if self.device.is_none() {
            self.device = Device::attach()?;
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.ticked = Instant::now();
        self.answers = ANSWERS;
        for mended in [self.mend_socket(), self.mend_device()] {
            if let Err(error) = mended {
                tracing::debug!(%error, "a part of the tunnel is not there");
            }
        }
        let Some(socket) = &mut self.socket else { return };
        self.sessions.tick(&mut self.buffers.packet, |to, message| socket.send(to, message, message.len()));
    }

    /// Packets of this node, to others.
    fn send(&mut self) {
        let Self { sessions, socket: Some(socket), device: Some(queue), answers, buffers, .. } = self else { return };
        let Buffers { incoming, packet: framed, outgoing, merger: _ } = buffers;
        let mut budget = BATCH;
        while budget > 0 {
            let (offload, packet) = match queue.receive(incoming) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    // It was removed; the daemon makes it again.
                    tracing::debug!(%error, "the tunnel's device is lost");
                    self.device = None;
                    break;
                }
            };
            let cut = split(offload, packet, |packet| {
                budget = budget.saturating_sub(1);
                match sessions.seal(packet, outgoing.room()) {
                    Sealed::Datagram(endpoint, length) => outgoing.push(endpoint, length, socket),
                    Sealed::Waits => {}
                    Sealed::Nobody if *answers == 0 => {}
                    Sealed::Nobody => {
                        *answers -= 1;
                        framed[..HEADER].fill(0);
                        if let Some(length) = unreachable::answer(packet, &mut framed[HEADER..]) {
                            queue.send(&framed[..HEADER + length]);
                        }
                    }
                }
            });
            if cut.is_none() {
                tracing::debug!("a packet that is none");
            }
        }
        outgoing.flush(socket);
    }

    /// Datagrams of other nodes, to this one.
    fn receive(&mut self) {
        let Self { sessions, socket: Some(socket), device, buffers, .. } = self else { return };
        let Buffers { incoming, packet: framed, outgoing, merger } = buffers;
        let device = device.as_ref();
        let deliver = |framed: &[u8]| {
            if let Some(device) = device {
                device.send(framed);
            }
        };
        let mut budget = BATCH;
        while budget > 0 {
            let Received { from, length, size } = match socket.receive(incoming) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "no datagram could be received");
                    break;
                }
            };
            for datagram in incoming[..length].chunks(size) {
                budget = budget.saturating_sub(1);
                let (opened, index) = sessions.open(from, datagram, &mut framed[HEADER..]);
                match opened {
                    Opened::Packet(length) => {
                        framed[..HEADER].fill(0);
                        merger.push(&framed[..HEADER + length], deliver);
                    }
                    Opened::Reply(length) => socket.send(from, &framed[HEADER..HEADER + length], length),
                    Opened::Heard | Opened::Dropped => {}
                }
                while let Some((to, length)) = index.and_then(|index| sessions.waiting(index, outgoing.room())) {
                    outgoing.push(to, length, socket);
                }
            }
        }
        merger.flush(deliver);
        outgoing.flush(socket);
    }
}
