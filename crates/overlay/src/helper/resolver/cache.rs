//! Answers of upstreams, kept as bytes for as long as they may be; bounded in number and size, the oldest go first.
//! The clock is the caller's.

use std::collections::{BTreeMap, HashMap};

use super::message::{self, HEADER_BYTES};

const ENTRIES_MAX: usize = 1024;
const BYTES_MAX: usize = 512 << 10;
/// Longer is not believed: a container that runs for weeks should see a change today.
const SECONDS_MAX: u32 = 3600;

#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Vec<u8>, Entry>,
    /// In the order of their coming.
    order: BTreeMap<u64, Vec<u8>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    response: Vec<u8>,
    ttls: Vec<usize>,
    stored_s: u64,
    seconds: u32,
}

impl Entry {
    fn bytes(&self, key: &[u8]) -> usize {
        self.response.len() + self.ttls.len() * size_of::<usize>() + 2 * key.len() + size_of::<Self>()
    }
}

impl Cache {
    /// The answer to `query`, which has this key: with its id, its spelling of the name, and aged times to live.
    pub fn get(&mut self, key: &[u8], query: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let entry = self.entries.get(key)?;
        let age_s = u32::try_from(now_s.saturating_sub(entry.stored_s)).unwrap_or(u32::MAX);
        if age_s >= entry.seconds {
            self.remove(key);
            return None;
        }
        let mut response = entry.response.clone();
        for at in &entry.ttls {
            let ttl = response.get_mut(*at..at + 4)?;
            let left = u32::from_be_bytes([ttl[0], ttl[1], ttl[2], ttl[3]]).saturating_sub(age_s);
            ttl.copy_from_slice(&left.to_be_bytes());
        }
        response.get_mut(..2)?.copy_from_slice(query.get(..2)?);
        let question = HEADER_BYTES..message::question_end(query)?;
        response.get_mut(question.clone())?.copy_from_slice(query.get(question)?);
        Some(response)
    }

    /// Keeps `response`, if it may be kept.
    pub fn put(&mut self, key: Vec<u8>, response: &[u8], now_s: u64) {
        let Some(message::Lifetime { seconds, ttls }) = message::lifetime(response) else { return };
        self.remove(&key);
        let number = self.next;
        self.next += 1;
        let seconds = seconds.min(SECONDS_MAX);
        let entry = Entry { number, response: response.to_vec(), ttls, stored_s: now_s, seconds };
        self.bytes += entry.bytes(&key);
        self.order.insert(number, key.clone());
        self.entries.insert(key, entry);
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes(key);
            self.order.remove(&entry.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn query(name: &str, id: u16) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn response(name: &str, ttl: u32) -> Vec<u8> {
        let mut message = Message::response(1, OpCode::Query);
        let name = Name::from_ascii(name).unwrap();
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1))));
        message.to_vec().unwrap()
    }

    #[test]
    fn an_answer_is_the_askers_own_and_ages() {
        let mut cache = Cache::default();
        cache.put(b"key".to_vec(), &response("example.com.", 60), 100);
        let asked = query("ExAmple.com.", 7);
        let answer = Message::from_vec(&cache.get(b"key", &asked, 110).unwrap()).unwrap();
        assert_eq!(answer.metadata.id, 7);
        assert_eq!(answer.queries[0].name().to_string(), "ExAmple.com.");
        assert_eq!(answer.answers[0].ttl, 50);
        assert_eq!(cache.get(b"key", &asked, 160), None, "it has died");
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut cache = Cache::default();
        let count = ENTRIES_MAX as u64 * 3;
        for number in 0..count {
            cache.put(number.to_be_bytes().to_vec(), &response("example.com.", 60), 0);
        }
        assert!(cache.entries.len() <= ENTRIES_MAX && cache.bytes <= BYTES_MAX);
        assert_eq!(cache.entries.len(), cache.order.len());
        let asked = query("example.com.", 7);
        assert!(cache.get(&(count - 1).to_be_bytes(), &asked, 0).is_some());
        assert!(cache.get(&0u64.to_be_bytes(), &asked, 0).is_none());
    }
}
