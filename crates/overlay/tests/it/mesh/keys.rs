//! Nodes that change their keys in the tunnel while containers talk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use skep_overlay::tunnel::PrivateKey;

use super::{Peer, host, nodes};
use crate::lab::{self, Place};

/// `own` has another key, which `other` is told.
fn change_key(own: &mut Peer, other: &mut Peer, seed: u8) {
    let key = PrivateKey::from_bytes([seed; 32]);
    let node = format!("node{}", own.number);
    let peers = &mut other.wanted.mesh.as_mut().unwrap().peers;
    peers.iter_mut().filter(|peer| peer.node == node).for_each(|peer| peer.key = key.public());
    own.wanted.mesh.as_mut().unwrap().key = key;
    other.apply();
    own.apply();
}

fn converse(stream: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).unwrap();
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, words);
}

#[test]
fn another_key_ends_no_connection() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let b = two.start("b", &[(1, 2)]);
        let listener = b.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..length]).unwrap();
            }
        });
        let mut stream = a.run(|| TcpStream::connect((host(1, 2, 2), 80)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        converse(&mut stream, b"with the first keys");
        change_key(&mut one, &mut two, 101);
        converse(&mut stream, b"with another of the first node's");
        change_key(&mut two, &mut one, 102);
        converse(&mut stream, b"and of the second's");
        change_key(&mut one, &mut two, 103);
        converse(&mut stream, b"and once more");
    });
}
