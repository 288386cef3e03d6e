//! The tunnel as the net helper carries it: WireGuard between the TUN device `sk-tunnel` and a UDP socket.
//!
//! ```text
//! server ──command──▶ carrier (a thread): device ─▶ sessions.seal ─▶ socket
//!                                         device ◀─ sessions.open ◀─ socket
//! ```
//! A thread of its own, for a gigabit of packets must not delay the answer to a DNS question. It owns all of it; the
//! server speaks to it in commands, and it begins with the first tunnel and ends with the helper.

mod carrier;
mod checksum;
mod device;
mod merge;
mod outgoing;
mod ranges;
mod sessions;
mod socket;
mod split;
mod unreachable;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use self::carrier::{Carrier, Command};
use crate::tunnel::{PeerStats, PublicKey, Tunnel};

/// The server's hold on the carrier. Dropping it ends the thread.
#[derive(Debug, Default)]
pub struct Tunnels(Option<Running>);

#[derive(Debug)]
struct Running {
    commands: Option<mpsc::Sender<Command>>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnels {
    /// Carries `tunnel` from now on, and nothing if there is none. The message says what of it cannot be done yet;
    /// it is tried on.
    pub async fn serve(&mut self, tunnel: Option<Tunnel>) -> Result<(), String> {
        if tunnel.is_none() && self.0.is_none() {
            return Ok(());
        }
        let failed = |error: io::Error| format!("failed to start the tunnel's thread: {error}");
        let running = match &mut self.0 {
            Some(running) => running,
            none => none.insert(Running::start().map_err(failed)?),
        };
        let (reply, answer) = oneshot::channel();
        running.tell(Command::Carry(tunnel.map(Box::new), reply));
        answer.await.unwrap_or_else(|_| {
            // Another one is started with the next snapshot.
            self.0 = None;
            Err("the tunnel's thread has ended".to_owned())
        })
    }

    pub async fn stats(&self) -> BTreeMap<PublicKey, PeerStats> {
        let Some(running) = &self.0 else { return BTreeMap::new() };
        let (reply, answer) = oneshot::channel();
        running.tell(Command::Stats(reply));
        answer.await.unwrap_or_default()
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, received) = mpsc::channel();
        let carrier = Carrier::new(received, Arc::clone(&bell));
        let thread = std::thread::Builder::new().name("skep-tunnel".to_owned()).spawn(move || carrier.run())?;
        Ok(Self { commands: Some(commands), bell, thread: Some(thread) })
    }

    fn tell(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A thread that has ended drops the question, which is its answer.
            let _ = commands.send(command);
        }
        self.ring();
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands = None;
        self.ring();
        if let Some(thread) = self.thread.take() {
            // It has panicked before: then its panic has been told.
            let _ = thread.join();
        }
    }
}
