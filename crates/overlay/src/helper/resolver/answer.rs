//! What a question is answered with, decided from the snapshot alone. Pure: the order of shuffled addresses is the
//! caller's, and what must be asked upstream is handed back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name as DnsName, RData, Record, RecordType};
use ipnet::IpNet;

use super::message;
use crate::snapshot::{Name, NameKind, Outside, Snapshot, View, Zone};

/// Bytes of a UDP answer for a client that does not say how much it takes (RFC 1035 §4.2.1).
const UDP_BYTES_DEFAULT: u16 = 512;
/// At most, whatever it says: more would travel in fragments.
const UDP_BYTES_MAX: u16 = 4096;
/// What we say that we take in a UDP question.
const UDP_BYTES_OURS: u16 = 1232;
/// Of a reverse answer, in seconds.
const REVERSE_TTL_S: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Debug)]
pub enum Decision {
    Reply(Vec<u8>),
    /// The snapshot does not know; an upstream may.
    Forward(Question),
    /// Not a question: an answer to it could go round for ever.
    Ignore,
}

/// What is needed to ask upstream and to take the answer.
#[derive(Debug)]
pub struct Question {
    pub transport: Transport,
    /// The client takes this many bytes.
    pub bytes_max: usize,
    /// Questions with the same key have the same answer; None: its answer is the asker's own.
    pub cache_key: Option<Vec<u8>>,
    /// The reply when no upstream answers.
    pub failure: Vec<u8>,
}

/// Decides on `query`, which came from `sandbox`.
pub fn decide(
    snapshot: &Snapshot,
    sandbox: &str,
    query: &[u8],
    transport: Transport,
    shuffle: impl FnOnce(&mut [IpAddr]),
) -> Decision {
    let message = match Message::from_vec(query) {
        Ok(message) => message,
        Err(_) => return unreadable(query),
    };
    if message.metadata.message_type == MessageType::Response {
        return Decision::Ignore;
    }
    let reply = Replier { message: &message, bytes_max: bytes_max(&message, transport) };
    if message.metadata.op_code != OpCode::Query {
        return reply.code(ResponseCode::NotImp);
    }
    let [question] = message.queries.as_slice() else { return reply.code(ResponseCode::FormErr) };
    // A sandbox that has just left the snapshot asks for a last time.
    let Some(view) = snapshot.sandboxes.get(sandbox) else { return reply.code(ResponseCode::ServFail) };
    let text = text(question.name());
    if let Some(records) = known(&snapshot.zones, view, question, &text, shuffle) {
        return Decision::Reply(reply.records(ResponseCode::NoError, records));
    }
    let is_single_label = !text.contains('.') && !text.is_empty();
    if view.outside == Outside::Deny || (is_single_label && view.search.is_empty()) {
        return reply.code(ResponseCode::NXDomain);
    }
    let failure = reply.records(ResponseCode::ServFail, Vec::new());
    if snapshot.upstreams.is_empty() {
        return Decision::Reply(failure);
    }
    let cache_key = cache_key(query, &message);
    Decision::Forward(Question { transport, bytes_max: reply.bytes_max, cache_key, failure })
}

/// FORMERR if it is a question at all: its header is readable.
fn unreadable(query: &[u8]) -> Decision {
    let Some(&[id_high, id_low, flags]) = query.get(..3) else { return Decision::Ignore };
    let is_response = flags & 0x80 != 0;
    if query.len() < message::HEADER_BYTES || is_response {
        return Decision::Ignore;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let reply = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec();
    reply.map_or(Decision::Ignore, Decision::Reply)
}

fn bytes_max(message: &Message, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => u16::MAX.into(),
        Transport::Udp => {
            let asked = message.edns.as_ref().map_or(UDP_BYTES_DEFAULT, Edns::max_payload);
            asked.clamp(UDP_BYTES_DEFAULT, UDP_BYTES_MAX).into()
        }
    }
}

/// The records of a name or address that one of the view's networks knows: empty if it has none of this type.
fn known(
    zones: &BTreeMap<String, Zone>,
    view: &View,
    question: &Query,
    text: &str,
    shuffle: impl FnOnce(&mut [IpAddr]),
) -> Option<Vec<Record>> {
    if !matches!(question.query_class(), DNSClass::IN | DNSClass::ANY) {
        return None;
    }
    let mut zones = view.networks.iter().filter_map(|network| zones.get(network));
    if let Some(address) = reverse_address(question.name()) {
        let name = zones.find_map(|zone| zone.reverse.get(&address))?;
        let asked = matches!(question.query_type(), RecordType::PTR | RecordType::ANY);
        let target = asked.then(|| dns_name(name)).flatten();
        let record = |target| Record::from_rdata(question.name().clone(), REVERSE_TTL_S, RData::PTR(PTR(target)));
        return Some(target.map(record).into_iter().collect());
    }
    let name = zones.find_map(|zone| find(zone, text))?;
    let mut addresses = name.addresses.clone();
    if name.kind == NameKind::Tasks {
        shuffle(&mut addresses);
    }
    let record = |address| Record::from_rdata(question.name().clone(), name.kind.ttl_s(), address);
    Some(addresses.into_iter().filter_map(|address| of_type(address, question.query_type())).map(record).collect())
}

/// `NAME`, or `NAME.<network>`.
fn find<'a>(zone: &'a Zone, text: &str) -> Option<&'a Name> {
    let within = || text.strip_suffix(zone.name.as_str())?.strip_suffix('.');
    zone.names.get(text).or_else(|| zone.names.get(within()?))
}

fn of_type(address: IpAddr, asked: RecordType) -> Option<RData> {
    match (address, asked) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => Some(RData::A(A(address))),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(address))),
        _ => None,
    }
}

/// Lower case, without the trailing dot. A label with a dot inside, which no zone has, stays distinct from two.
fn text(name: &DnsName) -> String {
    let label = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase().replace('.', "\\.");
    name.iter().map(label).collect::<Vec<_>>().join(".")
}

fn dns_name(text: &str) -> Option<DnsName> {
    // From bytes: names of services have underscores, which host names may not have.
    DnsName::from_labels(text.split('.').map(str::as_bytes)).ok()
}

fn reverse_address(name: &DnsName) -> Option<IpAddr> {
    match name.parse_arpa_name().ok()? {
        IpNet::V4(net) => (net.prefix_len() == 32).then(|| net.addr().into()),
        IpNet::V6(net) => (net.prefix_len() == 128).then(|| net.addr().into()),
    }
}

/// The question in lower case and everything of the header and of EDNS that changes what an upstream answers.
fn cache_key(query: &[u8], message: &Message) -> Option<Vec<u8>> {
    let question = query.get(message::HEADER_BYTES..message::question_end(query)?)?;
    let edns = message.edns.as_ref();
    let has_options = edns.is_some_and(|edns| !edns.options().options.is_empty() || edns.version() != 0);
    if has_options {
        return None;
    }
    let flags = [
        message.metadata.recursion_desired,
        message.metadata.checking_disabled,
        message.metadata.authentic_data,
        edns.is_some(),
        edns.is_some_and(|edns| edns.flags().dnssec_ok),
    ];
    let mut key = question.to_ascii_lowercase();
    key.push(flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    Some(key)
}

struct Replier<'a> {
    message: &'a Message,
    bytes_max: usize,
}

impl Replier<'_> {
    fn code(&self, code: ResponseCode) -> Decision {
        Decision::Reply(self.records(code, Vec::new()))
    }

    fn records(&self, code: ResponseCode, records: Vec<Record>) -> Vec<u8> {
        let asked = &self.message.metadata;
        let mut reply = Message::response(asked.id, asked.op_code);
        reply.metadata.response_code = code;
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        reply.add_queries(self.message.queries.iter().cloned());
        reply.add_answers(records);
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_OURS);
            reply.set_edns(edns);
        }
        match reply.to_vec() {
            Ok(bytes) if bytes.len() <= self.bytes_max => bytes,
            // The client asks again by TCP (RFC 2181 §9).
            _ => reply.truncate().to_vec().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
