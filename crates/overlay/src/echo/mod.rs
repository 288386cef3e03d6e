//! Round trips: ICMP echoes to other nodes' own addresses in the tunnel, so that each is an encrypted packet there and
//! back, answered by the other node's kernel whatever its version of skep.
//!
//! Echoes are never fragmented within the tunnel. How long a packet may be is found by sending long ones and short ones
//! together: only where the short ones come back, and the long ones do not, their length is to blame, and not loss or
//! a machine that is slow. All calls block; the addresses are probed at the same time.

mod search;
mod wire;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::search::Search;
use crate::sys;

/// A handshake comes first, and is repeated after five seconds.
const GREETING_WAIT: Duration = Duration::from_secs(7);
const GREETING_PAUSE: Duration = Duration::from_millis(250);
/// Between two rounds of small echoes.
const ROUND_PAUSE: Duration = Duration::from_millis(30);
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_millis(2000);
/// How much longer than the slowest short echo a long one may take.
const LENIENCE: u32 = 4;
const LENIENCE_MIN: Duration = Duration::from_millis(300);
/// Of a small echo, with its headers, in bytes.
const SMALL: u16 = 84;
/// Copies of each length.
const COPIES: u32 = 5;

/// What was found of the way to one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    pub sent: u32,
    pub answered: u32,
    /// The middle one of all.
    pub round_trip: Option<Duration>,
    /// The longest packet that passed; none where it could not be judged.
    pub passes: Option<u16>,
}

/// Whether each address answers, how fast and how reliably by `rounds` small echoes, and how long a packet may be, up to
/// `longest`. Takes a second or two; up to some twenty where ways are bad.
pub fn examine(addresses: &[Ipv4Addr], rounds: u32, longest: u16) -> io::Result<Vec<Way>> {
    let mut prober = Prober::open(addresses)?;
    let there = prober.greet()?;
    let mut ways = prober.rounds(rounds)?;
    let lengths = prober.lengths(&there, longest)?;
    ways.iter_mut().zip(lengths).for_each(|(way, passes)| way.passes = passes);
    Ok(ways)
}

/// The longest packet that passes to each address, up to `longest`; none where nothing came back that would tell.
pub fn longest_passing(addresses: &[Ipv4Addr], longest: u16) -> io::Result<Vec<Option<u16>>> {
    let mut prober = Prober::open(addresses)?;
    let there = prober.greet()?;
    prober.lengths(&there, longest)
}

struct Prober<'a> {
    socket: Socket,
    addresses: &'a [Ipv4Addr],
    /// Tells this prober's echoes from others' on the machine.
    id: u16,
    next: u16,
    /// Those that may still be answered.
    out: HashMap<u16, Sent>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    to: usize,
    length: u16,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    from: usize,
    length: u16,
    took: Duration,
}

impl<'a> Prober<'a> {
    fn open(addresses: &'a [Ipv4Addr]) -> io::Result<Self> {
        static PROBERS: AtomicU16 = AtomicU16::new(0);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        sys::udp::forbid_fragments(socket.as_fd())?;
        // Many answers come at once. A kernel that gives less room is no failure.
        let _ = socket.set_recv_buffer_size(1 << 20);
        let id = (std::process::id() as u16).wrapping_mul(31) ^ PROBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { socket, addresses, id, next: 0, out: HashMap::new() })
    }

    /// What the kernel would not send, for want of a way, is as good as lost.
    fn send(&mut self, to: usize, length: u16) {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let address = SockAddr::from(SocketAddrV4::new(self.addresses[to], 0));
        let at = Instant::now();
        if self.socket.send_to(&wire::request(self.id, number, length), &address).is_ok() {
            self.out.insert(number, Sent { to, length, at });
        }
    }

    /// The next answer; none until `until`, or if nothing is waited for.
    fn receive(&mut self, until: Instant) -> io::Result<Option<Answer>> {
        let mut buffer = [0; 128];
        while !self.out.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(reply) = wire::reply(&buffer[..length]).filter(|reply| reply.id == self.id) else { continue };
            let is_from = |sent: &Sent| self.addresses[sent.to] == reply.from;
            if self.out.get(&reply.number).is_some_and(is_from)
                && let Some(Sent { to, length, at }) = self.out.remove(&reply.number)
            {
                return Ok(Some(Answer { from: to, length, took: at.elapsed() }));
            }
        }
        Ok(None)
    }

    /// Makes the tunnel shake hands; which addresses answered.
    fn greet(&mut self) -> io::Result<Vec<bool>> {
        let mut there = vec![false; self.addresses.len()];
        let deadline = Instant::now() + GREETING_WAIT;
        while there.contains(&false) && Instant::now() < deadline {
            (0..there.len()).filter(|&to| !there[to]).for_each(|to| self.send(to, SMALL));
            let until = Instant::now() + GREETING_PAUSE;
            while let Some(answer) = self.receive(until)? {
                there[answer.from] = true;
            }
            if there.contains(&false) {
                // Where nothing could be sent, nothing was waited for.
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
        }
        self.out.clear();
        Ok(there)
    }

    fn rounds(&mut self, rounds: u32) -> io::Result<Vec<Way>> {
        let mut took = vec![Vec::new(); self.addresses.len()];
        for round in 1..=rounds {
            (0..took.len()).for_each(|to| self.send(to, SMALL));
            let begun = Instant::now();
            let until = begun + if round == rounds { ANSWER_WAIT } else { ROUND_PAUSE };
            while let Some(answer) = self.receive(until)? {
                took[answer.from].push(answer.took);
            }
            if round < rounds {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
        }
        self.out.clear();
        let way = |mut took: Vec<Duration>| {
            took.sort_unstable();
            let round_trip = took.get(took.len() / 2).copied();
            Way { sent: rounds, answered: u32::try_from(took.len()).unwrap_or(rounds), round_trip, passes: None }
        };
        Ok(took.into_iter().map(way).collect())
    }

    fn lengths(&mut self, there: &[bool], longest: u16) -> io::Result<Vec<Option<u16>>> {
        let mut searches: Vec<Search> = there.iter().map(|&there| Search::new(longest, there)).collect();
        loop {
            let tried: Vec<(usize, u16)> =
                searches.iter().enumerate().filter_map(|(to, search)| Some((to, search.next()?))).collect();
            if tried.is_empty() {
                return Ok(searches.iter().map(Search::found).collect());
            }
            let counts = self.compare(&tried)?;
            for ((to, length), Count { long, short }) in tried.into_iter().zip(counts) {
                searches[to].learn(length, long, short);
            }
        }
    }

    /// Sends short echoes and those of another length together; how many came back of each.
    fn compare(&mut self, tried: &[(usize, u16)]) -> io::Result<Vec<Count>> {
        for _ in 0..COPIES {
            for &(to, length) in tried {
                self.send(to, length);
                self.send(to, SMALL);
            }
        }
        let places: HashMap<usize, usize> = tried.iter().enumerate().map(|(place, (to, _))| (*to, place)).collect();
        let mut counts = vec![Count::default(); tried.len()];
        let mut short_out = self.out.values().filter(|sent| sent.length == SMALL).count();
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut until = deadline;
        while let Some(Answer { from, length, took }) = self.receive(until)? {
            let count = &mut counts[places[&from]];
            match length == SMALL {
                true => (count.short, short_out) = (count.short + 1, short_out - 1),
                false => count.long += 1,
            }
            if short_out == 0 {
                // All that is still waited for are long ones.
                until = deadline.min(Instant::now() + LENIENCE_MIN.max(took * LENIENCE));
            }
        }
        self.out.clear();
        Ok(counts)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    long: u32,
    short: u32,
}
