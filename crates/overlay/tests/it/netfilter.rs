//! nftables as others use it on the same machine: counting, flushing, and a firewall like Docker's.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;
const GET_RULE: u16 = NEW_TABLE | 7;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

/// How many IPv4 tables there are in the calling thread's namespace.
pub fn tables() -> usize {
    exchange(&[(GET_TABLE, DUMP, vec![])]).iter().filter(|kind| **kind == NEW_TABLE).count()
}

/// How many rules a chain of the table `filter` has.
pub fn rules(chain: &str) -> usize {
    let place = [string(1, "filter"), string(2, chain)].concat();
    exchange(&[(GET_RULE, DUMP, place)]).iter().filter(|kind| **kind == NEW_RULE).count()
}

/// What `nft flush ruleset` does.
pub fn flush() {
    exchange(&[(BATCH_BEGIN, 0, vec![]), (DELETE_TABLE, ACKNOWLEDGE, vec![]), (BATCH_END, 0, vec![])]);
}

/// The table `filter` with a FORWARD chain whose policy is to drop, and nothing else.
pub fn dropping_firewall() {
    make(vec![table(), forward_chain()]);
}

/// The same as Docker has it: FORWARD asks DOCKER-USER first.
pub fn dropping_firewall_of_docker() {
    let jump = nested(2, &nested(2, &[word(1, -3i32 as u32), string(2, "DOCKER-USER")].concat()));
    let jump = [string(1, "immediate"), nested(2, &[word(1, 0), jump].concat())].concat();
    let rule = [string(1, "filter"), string(2, "FORWARD"), nested(4, &nested(1, &jump))].concat();
    let user = [string(1, "filter"), string(3, "DOCKER-USER")].concat();
    make(vec![table(), forward_chain(), (NEW_CHAIN, CREATE, user), (NEW_RULE, CREATE, rule)]);
}

type Request = (u16, u16, Vec<u8>);

fn table() -> Request {
    (NEW_TABLE, CREATE | ACKNOWLEDGE, string(1, "filter"))
}

fn forward_chain() -> Request {
    const FORWARD: u32 = 2;
    let hook = nested(4, &[word(1, FORWARD), word(2, 0)].concat());
    (NEW_CHAIN, CREATE, [string(1, "filter"), string(3, "FORWARD"), hook, word(5, 0), string(7, "filter")].concat())
}

fn make(mut requests: Vec<Request>) {
    requests.insert(0, (BATCH_BEGIN, 0, vec![]));
    requests.push((BATCH_END, 0, vec![]));
    exchange(&requests);
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | 1 << 15, value)
}

fn word(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn string(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}

/// Sends all in one go; the types of the answers up to the end of a list or the first acknowledgement.
fn exchange(requests: &[Request]) -> Vec<u16> {
    let family = AddressFamily::NETLINK;
    let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER));
    let socket = socket.unwrap();
    let mut bytes = Vec::new();
    for (kind, flags, attributes) in requests {
        bytes.extend_from_slice(&(20 + attributes.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | 1).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(if kind >> 8 == 10 { &[2, 0, 0, 0] } else { &[0, 0, 0, 10] });
        bytes.extend_from_slice(attributes);
    }
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &bytes, SendFlags::empty(), &kernel).unwrap();
    let mut kinds = Vec::new();
    loop {
        let mut buffer = vec![0u8; 65536];
        let (_, length) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let total = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
            if kinds.ends_with(&[2]) {
                assert_eq!(rest[16..20], [0; 4], "the kernel refused");
                return kinds;
            }
            if kinds.ends_with(&[3]) {
                return kinds;
            }
            rest = &rest[total.next_multiple_of(4)..];
        }
    }
}
