//! Load on published ports while something happens: each request on a connection of its own, each failure kept with its kind.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use skep_lab::http_get;

use crate::world::World;

/// How many ask at once at each address.
pub const CLIENTS: usize = 2;
/// Between two requests of a client: the machine is shared with what is under load.
const PAUSE: Duration = Duration::from_millis(5);

/// What clients of one address got.
#[derive(Debug, Default)]
pub struct Seen {
    pub answered: usize,
    /// When a request began, counted from the load's beginning; how long it took; how it failed.
    pub failed: Vec<(Duration, Duration, String)>,
    /// Answers by their text.
    pub answers: BTreeMap<String, usize>,
}

impl Seen {
    /// Every request was answered, and there were some.
    pub fn assert_whole(&self, who: &str) {
        assert!(self.failed.is_empty(), "{who}: {} of {} failed: {:?}", self.failed.len(), self.asked(), self.failed);
        assert!(self.answered > 20, "{who}: {} requests", self.answered);
    }

    fn asked(&self) -> usize {
        self.answered + self.failed.len()
    }

    fn note(&mut self, began: Duration, took: Duration, answer: anyhow::Result<skep_lab::HttpAnswer>) {
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.answered += 1;
                *self.answers.entry(answer.body).or_default() += 1;
            }
            Ok(answer) => self.failed.push((began, took, format!("status {}", answer.status))),
            Err(error) => {
                let cause = error.root_cause().downcast_ref::<io::Error>().map(|error| format!("{:?}", error.kind()));
                self.failed.push((began, took, cause.unwrap_or_else(|| format!("{error:#}"))));
            }
        }
    }
}

/// Asks at every address without a break, from outside the nodes, until `act` has ended.
pub fn during<T>(world: &World, addresses: &[SocketAddr], act: impl FnOnce() -> T) -> (T, Vec<Seen>) {
    let (over, start) = (AtomicBool::new(false), Instant::now());
    let seen: Vec<Mutex<Seen>> = addresses.iter().map(|_| Mutex::default()).collect();
    let acted = thread::scope(|scope| {
        for (address, seen) in addresses.iter().zip(&seen) {
            for _ in 0..CLIENTS {
                let over = &over;
                scope.spawn(move || {
                    let ask = || {
                        while !over.load(Ordering::Relaxed) {
                            let began = start.elapsed();
                            let answer = http_get(*address, "/");
                            seen.lock().expect("no client panics").note(began, start.elapsed() - began, answer);
                            thread::sleep(PAUSE);
                        }
                    };
                    world.lab().outside(ask).unwrap();
                });
            }
        }
        let _end = End(&over);
        act()
    });
    (acted, seen.into_iter().map(|seen| seen.into_inner().expect("no client panics")).collect())
}

/// Sets what it holds when it goes, on a panic too: a scope waits for its threads.
pub struct End<'a>(pub &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
