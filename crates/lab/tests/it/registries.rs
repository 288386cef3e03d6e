//! A registry is where it was put and nowhere else, and serves the images of `cargo xtask images`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use skep_lab::{Lab, OUTSIDE_ADDRESS, http_get, images_folder};

fn tags(address: Ipv4Addr) -> Option<String> {
    let answer = http_get(SocketAddr::from((address, 5000)), "/v2/library/busybox/tags/list").ok()?;
    assert_eq!(answer.status, 200);
    Some(answer.body)
}

#[test]
fn a_nodes_registry_is_on_its_loopback_only() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let registry = lab.node(1).start_registry(&images_folder().unwrap()).unwrap();
    assert_eq!(registry.name(), "127.0.0.1:5000");
    assert!(lab.node(1).in_netns(|| tags(Ipv4Addr::LOCALHOST)).unwrap().unwrap().contains("\"latest\""));
    assert_eq!(lab.node(2).in_netns(|| tags(Ipv4Addr::LOCALHOST)).unwrap(), None);
    let address = lab.node(1).address();
    assert_eq!(lab.outside(|| tags(address)).unwrap(), None);
    registry.stop().unwrap();
    assert_eq!(lab.node(1).in_netns(|| tags(Ipv4Addr::LOCALHOST)).unwrap(), None);
}

#[test]
fn the_labs_registry_serves_every_node_and_refuses_pushes() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    lab.start_registry(&images_folder().unwrap()).unwrap();
    for node in lab.nodes() {
        assert!(node.in_netns(|| tags(OUTSIDE_ADDRESS)).unwrap().is_some(), "from {}", node.name());
    }
    let answer = lab.node(1).in_netns(|| post("/v2/library/busybox/blobs/uploads/")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

fn post(path: &str) -> String {
    let mut stream = TcpStream::connect((OUTSIDE_ADDRESS, 5000)).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
