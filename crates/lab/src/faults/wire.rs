//! The slow links: takes the packets that slow nodes queue, and lets each go after its delay, or loses it.
//!
//! The kernel keeps the packets; only their numbers come here, and a verdict goes back. Few kernels lack a queue, while
//! `netem`, which does the same, is left out of some. When this ends, the kernel drops what it still keeps.

use std::collections::VecDeque;
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
/// The attribute of a packet (linux/netfilter/nfnetlink_queue.h) that begins with its number.
const PACKET_HEADER: u16 = 1;
const VERDICT: u16 = 1;
const CONFIG: u16 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// As many packets of a node are under way at once; more are lost. At 1,000 bytes each and 100 ms that is some 5 Gbit/s.
const PACKETS_MAX: u32 = 65536;
const VERDICTS_AT_ONCE: usize = 256;

/// The slow link of one node.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    delay: Duration,
    loss: Loss,
    dice: Dice,
    /// When each packet is due, and its number. All are as late, so that the first is due first.
    under_way: VecDeque<(Instant, u32)>,
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

impl Link {
    /// Binds the queue of the calling thread's network namespace.
    pub(super) fn open(slow: Slow) -> Result<Link> {
        let Slow { node, delay_ms, loss } = slow;
        let mut socket = Socket::open()?;
        socket.ask(&configuration()).context("cannot queue packets: does the kernel have nfnetlink_queue?")?;
        let delay = Duration::from_millis(delay_ms.into());
        Ok(Link { socket, delay, loss, dice: Dice(node.into()), under_way: VecDeque::new() })
    }

    /// Takes in what has come, and lets go what is due.
    fn work(&mut self) -> Result<()> {
        let mut verdicts = self.take()?;
        let now = Instant::now();
        while let Some((_, number)) = self.under_way.pop_front_if(|(due, _)| *due <= now) {
            verdicts.push(verdict(number, ACCEPT));
        }
        verdicts.chunks(VERDICTS_AT_ONCE).try_for_each(|chunk| self.socket.send(chunk))
    }

    /// The verdicts on what is lost.
    fn take(&mut self) -> Result<Vec<Message>> {
        let mut verdicts = Vec::new();
        let Link { socket, delay, loss, dice, under_way } = self;
        while socket.receive(|kind, payload| {
            let header = attributes(payload).find(|(attribute, _)| kind == PACKET && *attribute == PACKET_HEADER);
            let Some(number) = header.and_then(|(_, value)| read_u32(value)) else { return };
            match dice.loses(*loss) {
                true => verdicts.push(verdict(number, DROP)),
                false => under_way.push_back((Instant::now() + *delay, number)),
            }
        })? {}
        Ok(verdicts)
    }
}

/// Is all `links`, until the other end of `stop` is closed.
pub(super) fn run(mut links: Vec<Link>, stop: &PipeReader) -> Result<()> {
    loop {
        let next = links.iter().filter_map(|link| link.under_way.front()).map(|(due, _)| *due).min();
        let left = next.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().context("a delay does not fit a timespec")?;
        let mut waited = vec![PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        waited.extend(links.iter().map(|link| PollFd::new(&link.socket, PollFlags::IN)));
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for packets"),
        }
        if !waited[0].revents().is_empty() {
            return Ok(());
        }
        links.iter_mut().try_for_each(Link::work)?;
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
