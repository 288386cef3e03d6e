//! Partitions are silent and go the way that was asked for, slow links delay and lose, and healing ends it all.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use skep_lab::{Direction, Lab, Loss, Node};

/// For what must come: as long as a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not come. Too short can only hide a fault of the lab's, never fail a test.
const SILENCE: Duration = Duration::from_millis(300);

fn udp(node: &Node, address: IpAddr) -> UdpSocket {
    node.in_netns(|| UdpSocket::bind((address, 0)).unwrap()).unwrap()
}

fn addresses(node: &Node) -> [IpAddr; 2] {
    [node.address().into(), node.address_v6().into()]
}

/// What `socket` gets within `patience`; none: nothing.
fn get(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(patience)).unwrap();
    match socket.recv(&mut buffer) {
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Says `word` until it is heard: the first packet may be lost to address resolution.
fn must_reach(from: &UdpSocket, to: &UdpSocket, word: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        from.send_to(word, to.local_addr().unwrap()).unwrap();
        match get(to, Duration::from_millis(100)) {
            Some(heard) if heard == word => return,
            _ => assert!(Instant::now() < deadline, "{word:?} was not heard"),
        }
    }
}

/// A send is no error, and nothing comes.
fn must_not_reach(from: &UdpSocket, to: &UdpSocket) {
    from.send_to(b"lost", to.local_addr().unwrap()).unwrap();
    assert_eq!(get(to, SILENCE), None);
}

#[test]
fn a_partition_is_silent_over_both_families_and_ends_with_healing() {
    let lab = Lab::builder().nodes(3).build().unwrap();
    lab.partition(&[1], &[2], Direction::Both).unwrap();
    let (n1, n2, n3) = (lab.node(1), lab.node(2), lab.node(3));
    for family in [0, 1] {
        let [one, two, three] = [n1, n2, n3].map(|node| udp(node, addresses(node)[family]));
        must_not_reach(&one, &two);
        must_not_reach(&two, &one);
        must_reach(&one, &three, b"beside");
        must_reach(&three, &two, b"the cut");
    }
    lab.heal().unwrap();
    assert!(lab.faults().unwrap().is_empty());
    for family in [0, 1] {
        let [one, two] = [n1, n2].map(|node| udp(node, addresses(node)[family]));
        must_reach(&one, &two, b"again");
        must_reach(&two, &one, b"again");
    }
}

#[test]
fn one_way_leaves_the_other_way_open_even_to_strangers() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    lab.partition(&[1], &[2], Direction::OneWay).unwrap();
    for family in [0, 1] {
        let [one, two] = [1, 2].map(|number| udp(lab.node(number), addresses(lab.node(number))[family]));
        must_reach(&two, &one, b"open");
        must_not_reach(&one, &two);
    }
}

#[test]
fn an_open_connection_stalls_in_a_partition_and_goes_on_after_it() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let [server, client] = [lab.node(1), lab.node(2)];
    let listener = server.in_netns(|| TcpListener::bind((server.address(), 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut near = client.in_netns(|| TcpStream::connect(address).unwrap()).unwrap();
    let mut far = listener.accept().unwrap().0;
    lab.partition(&[1], &[2], Direction::Both).unwrap();
    near.write_all(b"late").unwrap();
    far.set_read_timeout(Some(SILENCE)).unwrap();
    let mut heard = [0; 4];
    let error = far.read(&mut heard).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    // Nor is a newcomer refused: it waits.
    let refused = client.in_netns(|| TcpStream::connect_timeout(&address, SILENCE).unwrap_err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    lab.heal().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"late");
}

#[test]
fn partitions_add_up_and_another_process_sees_and_ends_them() {
    let lab = Lab::builder().nodes(3).build().unwrap();
    lab.partition(&[1], &[2], Direction::OneWay).unwrap();
    lab.partition(&[2], &[3], Direction::Both).unwrap();
    let other = Lab::attach(lab.name()).unwrap();
    let cuts: Vec<_> = other.faults().unwrap().cuts.iter().map(|cut| (cut.from, cut.to)).collect();
    assert_eq!(cuts, [(1, 2), (2, 3), (3, 2)]);
    other.heal().unwrap();
    let [one, two] = [1, 2].map(|number| udp(lab.node(number), lab.node(number).address().into()));
    must_reach(&one, &two, b"again");
    assert!(lab.partition(&[1], &[4], Direction::Both).unwrap_err().to_string().contains("no node 4"));
}

#[test]
fn a_slow_link_delays_each_way_and_keeps_the_order() {
    let delay = Duration::from_millis(40);
    let lab = Lab::builder().nodes(2).build().unwrap();
    lab.slow(2, delay, Loss::NONE).unwrap();
    for family in [0, 1] {
        let [one, two] = [1, 2].map(|number| udp(lab.node(number), addresses(lab.node(number))[family]));
        must_reach(&one, &two, b"known");
        for (from, to) in [(&one, &two), (&two, &one)] {
            let begun = Instant::now();
            for number in 0..50_u8 {
                from.send_to(&[number], to.local_addr().unwrap()).unwrap();
            }
            // What was said until it was heard may come more than once, and before.
            let heard = || get(to, PATIENCE).filter(|packet| packet.len() == 1);
            let heard: Vec<u8> = std::iter::repeat_with(heard).flatten().flatten().take(50).collect();
            assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
            assert_eq!(heard, (0..50).collect::<Vec<_>>());
        }
    }
    // A connection carries large segments as well.
    let server = lab.node(2);
    let listener = server.in_netns(|| TcpListener::bind((server.address(), 0)).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let begun = Instant::now();
    let mut near = lab.node(1).in_netns(|| TcpStream::connect(address).unwrap()).unwrap();
    assert!(begun.elapsed() >= 2 * delay, "there and back");
    let mut far = listener.accept().unwrap().0;
    let writer = std::thread::spawn(move || near.write_all(&vec![7; 1 << 20]).unwrap());
    let mut all = Vec::new();
    far.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![7; 1 << 20]);
    writer.join().unwrap();
}

#[test]
fn a_lossy_link_loses_some_and_a_dead_one_all() {
    let lab = Lab::builder().nodes(3).build().unwrap();
    let [one, two, three] = [1, 2, 3].map(|number| udp(lab.node(number), lab.node(number).address().into()));
    must_reach(&one, &two, b"known");
    must_reach(&one, &three, b"known");
    lab.slow(2, Duration::ZERO, "50%".parse().unwrap()).unwrap();
    lab.slow(3, Duration::ZERO, "100%".parse().unwrap()).unwrap();
    for _ in 0..200 {
        one.send_to(b"n", two.local_addr().unwrap()).unwrap();
        one.send_to(b"n", three.local_addr().unwrap()).unwrap();
    }
    let is_one = |socket: &UdpSocket, patience| get(socket, patience).map(|packet| u32::from(packet == b"n"));
    let mut heard = 0;
    while heard < 50 {
        heard += is_one(&two, PATIENCE).expect("half of them come");
    }
    while let Some(more) = is_one(&two, SILENCE) {
        heard += more;
    }
    assert!(heard < 150, "{heard} of 200");
    while let Some(packet) = get(&three, SILENCE) {
        assert_eq!(packet, b"known", "of what was sent before, one may be left");
    }
    lab.heal().unwrap();
    must_reach(&one, &three, b"again");
}
