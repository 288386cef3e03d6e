//! A client that asks as containers do, and a server that answers as the world does.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::lab::Place;

const PATIENCE: Duration = Duration::from_secs(20);

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let labels = name.split('.').map(str::as_bytes);
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

pub fn with_edns(mut query: Message, bytes: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(bytes);
    query.set_edns(edns);
    query
}

/// Asks from a place, by UDP.
pub fn ask(place: &impl Place, server: SocketAddr, query: &Message) -> Message {
    let bytes = query.to_vec().unwrap();
    let answer = place.run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(server).unwrap();
        socket.send(&bytes).unwrap();
        let mut buffer = [0; 65535];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    checked(&answer, query)
}

/// Asks several questions on one connection.
pub fn ask_tcp(place: &impl Place, server: SocketAddr, queries: &[Message]) -> Vec<Message> {
    let bytes: Vec<Vec<u8>> = queries.iter().map(|query| query.to_vec().unwrap()).collect();
    let answers = place.run(move || {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = |bytes: Vec<u8>| {
            write(&mut stream, &bytes);
            read(&mut stream).unwrap()
        };
        bytes.into_iter().map(ask).collect::<Vec<_>>()
    });
    answers.iter().zip(queries).map(|(answer, query)| checked(answer, query)).collect()
}

fn checked(answer: &[u8], query: &Message) -> Message {
    let answer = Message::from_vec(answer).unwrap();
    assert_eq!(answer.metadata.id, query.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.queries, query.queries);
    answer
}

/// `CODE TTL DATA …` of an answer.
pub fn words(answer: &Message) -> String {
    let mut words = answer.metadata.response_code.to_string();
    for record in &answer.answers {
        words.push_str(&format!(", {} {}", record.ttl, record.data));
    }
    words
}

pub fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn write(stream: &mut TcpStream, message: &[u8]) {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).unwrap();
}

fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// Serves the world's names by UDP and TCP until the process ends; counts the questions.
pub fn serve_world(place: &impl Place, address: IpAddr) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let at = (address, 53);
    let (udp, tcp) = place.run(move || (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap()));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut held = Vec::new();
        let mut is_released = false;
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = world(&buffer[..length], Some(512));
            let name = Message::from_vec(&answer).unwrap().queries[0].name().to_ascii();
            is_released |= name == RELEASE;
            if name == HELD && !is_released {
                held.push((answer, client));
                continue;
            }
            udp.send_to(&answer, client).unwrap();
            for (answer, client) in if is_released { std::mem::take(&mut held) } else { Vec::new() } {
                udp.send_to(&answer, client).unwrap();
            }
        }
    });
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            while let Some(query) = read(&mut stream) {
                count.fetch_add(1, Ordering::SeqCst);
                write(&mut stream, &world(&query, None));
            }
        }
    });
    asked
}

/// By UDP, the answer to the first waits until the second is asked.
const HELD: &str = "held.example.com.";
const RELEASE: &str = "release.example.com.";

fn world(query: &[u8], bytes_max: Option<u16>) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    let record = |ttl, data| Record::from_rdata(question.name().clone(), ttl, data);
    match question.name().to_ascii().to_ascii_lowercase().as_str() {
        "missing.example.com." => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let name = || Name::from_ascii("example.com.").unwrap();
            let soa = RData::SOA(SOA::new(name(), name(), 1, 2, 3, 4, 600));
            answer.add_authority(Record::from_rdata(name(), 900, soa));
        }
        "broken.example.com." => answer.metadata.response_code = ResponseCode::ServFail,
        "big.example.com." => {
            let text = |number: u8| record(60, RData::TXT(TXT::new(vec![format!("{number}").repeat(40)])));
            answer.add_answers((0..30).map(text));
        }
        _ => drop(answer.add_answer(record(600, RData::A(A::new(192, 0, 2, 1))))),
    }
    if let Some(edns) = query.edns.clone() {
        answer.set_edns(edns);
    }
    let bytes = answer.to_vec().unwrap();
    let bytes_max = bytes_max.map(|bytes_max| query.edns.as_ref().map_or(bytes_max, Edns::max_payload));
    match bytes_max {
        Some(bytes_max) if bytes.len() > bytes_max.into() => answer.truncate().to_vec().unwrap(),
        _ => bytes,
    }
}
