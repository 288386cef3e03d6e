//! The slow links: takes the packets that the switch queues, and lets each go after its delay, or loses it.
//!
//! The kernel keeps the packets; only their numbers come here, and a verdict goes back. Few kernels lack a queue, while
//! `netem`, which does the same, is left out of some. When this ends, the kernel drops what it still keeps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::nfnetlink::{Message, Socket, attributes, read_u32};
use super::{Loss, Slow, filter};

const SUBSYSTEM: u8 = 3;
const PACKET: u16 = (SUBSYSTEM as u16) << 8;
const VERDICT: u16 = 1;
const CONFIG: u16 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// As many packets are under way at once; more are lost. At 1,000 bytes each and 100 ms that is some 5 Gbit/s.
const PACKETS_MAX: u32 = 65536;
const VERDICTS_AT_ONCE: usize = 256;

/// Attributes of a packet (linux/netfilter/nfnetlink_queue.h): its number, and the links that it came in and goes out by.
const PACKET_HEADER: u16 = 1;
const LINKS: std::ops::RangeInclusive<u16> = 5..=8;

/// What the links of the slow nodes do to packets.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// By the index of the switch's port.
    links: BTreeMap<u32, Link>,
    /// By the time when they are due, then in the order of their coming.
    under_way: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    taken: u64,
}

#[derive(Debug)]
struct Link {
    delay: Duration,
    loss: Loss,
    dice: Dice,
}

/// SplitMix64: the same packets are lost each time, as far as the same packets come.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn loses(&mut self, loss: Loss) -> bool {
        self.next() % 1000 < u64::from(loss.per_mille())
    }
}

impl Wire {
    /// Binds the queue of the calling thread's network namespace. `ports` has each slow node's port.
    pub(super) fn open(slow: &[Slow], ports: &BTreeMap<u8, u32>) -> Result<Wire> {
        let mut links = BTreeMap::new();
        for &Slow { node, delay_ms, loss } in slow {
            let port = ports.get(&node).with_context(|| format!("node {node} has no port at the switch"))?;
            let link = Link { delay: Duration::from_millis(delay_ms.into()), loss, dice: Dice(node.into()) };
            links.insert(*port, link);
        }
        let mut socket = Socket::open()?;
        socket.ask(&configuration()).context("cannot queue packets: does the kernel have nfnetlink_queue?")?;
        Ok(Wire { socket, links, under_way: BinaryHeap::new(), taken: 0 })
    }

    /// Works until the other end of `stop` is closed.
    pub(super) fn run(mut self, stop: &PipeReader) -> Result<()> {
        loop {
            let next = self.under_way.peek().map(|Reverse((due, _, _))| due.saturating_duration_since(Instant::now()));
            let timeout = next.map(Timespec::try_from).transpose().context("a delay does not fit a timespec")?;
            let mut waited =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
            match poll(&mut waited, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for packets"),
            }
            if !waited[1].revents().is_empty() {
                return Ok(());
            }
            let mut lost = self.take()?;
            lost.extend(self.release());
            for chunk in lost.chunks(VERDICTS_AT_ONCE) {
                self.socket.send(chunk)?;
            }
        }
    }

    /// Takes in what has come; the verdicts on what is lost.
    fn take(&mut self) -> Result<Vec<Message>> {
        let mut verdicts = Vec::new();
        let Wire { socket, links, under_way, taken } = self;
        while socket.receive(|kind, payload| {
            if kind != PACKET {
                return;
            }
            let (mut number, mut link) = (None, None);
            for (attribute, value) in attributes(payload) {
                match attribute {
                    PACKET_HEADER => number = read_u32(value),
                    _ if LINKS.contains(&attribute) => {
                        link = link.or_else(|| read_u32(value).filter(|index| links.contains_key(index)));
                    }
                    _ => {}
                }
            }
            let Some(number) = number else { return };
            match link.and_then(|index| links.get_mut(&index)) {
                Some(link) => match link.dice.loses(link.loss) {
                    true => verdicts.push(verdict(number, DROP)),
                    false => {
                        *taken += 1;
                        under_way.push(Reverse((Instant::now() + link.delay, *taken, number)));
                    }
                },
                None => verdicts.push(verdict(number, ACCEPT)),
            }
        })? {}
        Ok(verdicts)
    }

    /// The verdicts on what is due.
    fn release(&mut self) -> Vec<Message> {
        let now = Instant::now();
        let mut verdicts = Vec::new();
        while let Some(Reverse((due, _, number))) = self.under_way.peek()
            && *due <= now
        {
            verdicts.push(verdict(*number, ACCEPT));
            self.under_way.pop();
        }
        verdicts
    }
}

fn configuration() -> [Message; 4] {
    const BIND: u8 = 1;
    const META: u8 = 1;
    /// A large segment stays one packet.
    const WHOLE_SEGMENTS: u32 = 1 << 2;
    let config = || Message::new(SUBSYSTEM, CONFIG, 0, 0, filter::QUEUE);
    [
        config().with(|list| {
            list.bytes(1, &[BIND, 0, 0, 0]);
        }),
        config().with(|list| {
            list.bytes(2, &[0, 0, 0, 0, META]);
        }),
        config().with(|list| {
            list.u32(3, PACKETS_MAX);
        }),
        config().with(|list| {
            list.u32(4, WHOLE_SEGMENTS).u32(5, WHOLE_SEGMENTS);
        }),
    ]
}

fn verdict(number: u32, verdict: u32) -> Message {
    let header = [verdict.to_be_bytes(), number.to_be_bytes()].concat();
    Message::new(SUBSYSTEM, VERDICT, 0, 0, filter::QUEUE).with(|list| {
        list.bytes(2, &header);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_lose_the_share_that_was_asked_for_and_the_same_ones_each_time() {
        let lost = |seed, per_mille| {
            let (mut dice, loss) = (Dice(seed), Loss::new(per_mille).unwrap());
            (0..10_000).filter(|_| dice.loses(loss)).collect::<Vec<_>>()
        };
        assert_eq!(lost(1, 50), lost(1, 50));
        assert_ne!(lost(1, 50), lost(2, 50));
        assert!((400..600).contains(&lost(1, 50).len()));
        assert_eq!((lost(1, 0).len(), lost(1, 1000).len()), (0, 10_000));
    }
}
