//! Events: what happened to the cluster's objects, as this manager saw it, and a memory of the last of them.
//!
//! Nothing of it is replicated: [`watch`] compares each state of the cluster with the one before ([`diff`]), so that what
//! changed twice between two looks is one event, and what came and went is none. The memory has a bound, and says where
//! it begins.

mod diff;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{StreamExt, stream};
use skep_api::{Event, EventMessage, EventsRequest, Messages, Refusal, RefusalKind};
use skep_model::{Cluster, Timestamp};
use skep_store::Store;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;

/// Events that are kept: some 200 bytes each.
const KEPT: usize = 8192;
/// Events that may wait for a reader.
const QUEUE: usize = 1024;

/// The last events, and those who wait for the next.
pub struct EventLog {
    memory: Mutex<Memory>,
}

struct Memory {
    events: VecDeque<Event>,
    /// Nothing is known of what was before.
    begins_at: Timestamp,
    readers: broadcast::Sender<Event>,
}

/// Tells the log of every change that this manager learns of.
pub async fn watch(store: Store, log: Arc<EventLog>, stop: CancellationToken) {
    let mut watch = store.watch();
    let mut seen: Arc<Cluster> = watch.borrow_and_update().clone();
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = watch.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let cluster = watch.borrow_and_update().clone();
        log.add(diff::between(&seen, &cluster, wall_clock()));
        seen = cluster;
    }
}

impl EventLog {
    pub(crate) fn new() -> Self {
        let (readers, _) = broadcast::channel(QUEUE);
        Self { memory: Mutex::new(Memory { events: VecDeque::new(), begins_at: wall_clock(), readers }) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock panics")
    }

    fn add(&self, events: Vec<Event>) {
        let mut memory = self.memory();
        for event in events {
            // Nobody may be reading.
            let _ = memory.readers.send(event.clone());
            memory.events.push_back(event);
        }
        while memory.events.len() > KEPT {
            memory.events.pop_front();
            memory.begins_at = memory.events.front().map_or(memory.begins_at, |first| first.at);
        }
    }

    /// What is remembered of the time that is asked for, then what comes in it.
    pub(crate) fn read(&self, request: EventsRequest) -> Messages<EventMessage> {
        let EventsRequest { since, until } = request;
        let memory = self.memory();
        let within = |event: &&Event| {
            since.is_some_and(|since| event.at >= since) && until.is_none_or(|until| event.at <= until)
        };
        let begins = since.filter(|since| *since < memory.begins_at).map(|_| EventMessage::BeginsAt(memory.begins_at));
        let past: Vec<EventMessage> = memory.events.iter().filter(within).cloned().map(EventMessage::Event).collect();
        let past = stream::iter(begins.into_iter().chain(past).map(Ok));
        let coming = BroadcastStream::new(memory.readers.subscribe()).map(|event| match event {
            Ok(event) => Ok(EventMessage::Event(event)),
            Err(_) => Err(Refusal::new(RefusalKind::Unavailable, "the reader is too slow: events were lost")),
        });
        let Some(until) = until else { return past.chain(coming).boxed() };
        match until.since(wall_clock()) {
            left if left.is_zero() => past.boxed(),
            left => past.chain(coming.take_until(tokio::time::sleep(left))).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::EventAction;
    use skep_model::{Kind, Labels};

    fn event(at: u64) -> Event {
        let (kind, action) = (Kind::Service, EventAction::Update);
        Event { at: Timestamp(at), kind, action, id: at.to_string(), attributes: Labels::new() }
    }

    async fn told(log: &EventLog, since: u64, until: u64) -> Vec<String> {
        let request = EventsRequest { since: Some(Timestamp(since)), until: Some(Timestamp(until)) };
        let words = |message: Result<EventMessage, Refusal>| match message {
            Ok(EventMessage::BeginsAt(at)) => format!("from {}", at.0),
            Ok(EventMessage::Event(event)) => event.id,
            Err(refusal) => refusal.to_string(),
        };
        log.read(request).map(words).collect().await
    }

    #[tokio::test]
    async fn the_past_is_told_as_far_as_it_is_remembered() {
        let log = EventLog::new();
        log.memory().begins_at = Timestamp(5);
        log.add(vec![event(6), event(7), event(8)]);
        assert_eq!(told(&log, 7, 8).await, ["7", "8"]);
        assert_eq!(told(&log, 6, 7).await, ["6", "7"]);
        assert_eq!(told(&log, 2, 6).await, ["from 5", "6"]);
        log.add((100..100 + KEPT as u64).map(event).collect());
        assert_eq!(told(&log, 1, 101).await, ["from 100", "100", "101"]);
        assert_eq!(log.memory().events.len(), KEPT);
    }

    #[tokio::test]
    async fn what_comes_follows_what_was() {
        let log = EventLog::new();
        log.add(vec![event(6)]);
        let mut stream = log.read(EventsRequest::default());
        let first = tokio::time::timeout(std::time::Duration::from_millis(10), stream.next()).await;
        assert!(first.is_err(), "what was before is not told");
        log.add(vec![event(9)]);
        assert_eq!(stream.next().await, Some(Ok(EventMessage::Event(event(9)))));
    }
}
