//! Beside other programs: their firewalls, and their ports.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use skep_overlay::plan::Protocol::{Tcp, Udp};
use skep_overlay::{Warning, ports};

use crate::lab::{self, INTERNET, NODE, Place, host, publish, start};
use crate::netfilter;

#[test]
fn dockers_drop_policy_does_not_stop_containers() {
    lab::run(|lab| {
        netfilter::dropping_firewall_of_docker();
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        node.published.push(publish(Tcp, 8080, 80, &[host(1, 3)]));
        assert_eq!(overlay.apply(&node).unwrap().warnings, []);
        overlay.apply(&node).unwrap();
        assert_eq!(netfilter::rules("DOCKER-USER"), 4, "once, however often applied");
        b.serve(80, "b");
        lab.outside().serve(80, "internet");
        assert!(a.ask(host(1, 3), 80).is_ok());
        assert!(a.ask(INTERNET, 80).is_ok());
        assert!(lab.outside().ask(NODE, 8080).is_ok());
        overlay.teardown().unwrap();
        assert_eq!(netfilter::rules("DOCKER-USER"), 0);
        assert_eq!(netfilter::rules("FORWARD"), 1, "others' rules stay");
    });
}

#[test]
fn another_firewalls_drop_policy_is_reported() {
    lab::run(|lab| {
        netfilter::dropping_firewall();
        let warnings = lab.overlay().apply(&lab::empty()).unwrap().warnings;
        let expected = Warning::ForwardDropped { table: "ip filter".into(), chain: "FORWARD".into() };
        assert_eq!(warnings, [expected]);
        assert!(warnings[0].to_string().contains("`ip filter FORWARD` drops forwarded packets"), "{}", warnings[0]);
    });
}

#[test]
fn the_program_that_holds_a_port_is_named() {
    lab::run(|_lab| {
        let one: IpAddr = NODE.into();
        let _tcp = TcpListener::bind((NODE, 8080)).unwrap();
        let _udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
        let pid = std::process::id();
        let holders = ports::holders(Tcp, None, 8080);
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert_eq!(holders[0].address, one);
        assert_eq!(holders[0].process.as_ref().map(|process| process.pid), Some(pid));
        assert!(holders[0].to_string().ends_with(&format!("(pid {pid})")), "{}", holders[0]);
        assert_eq!(ports::holders(Tcp, Some(one), 8080).len(), 1);
        assert_eq!(ports::holders(Tcp, Some([127, 0, 0, 1].into()), 8080), []);
        assert_eq!(ports::holders(Udp, Some(one), 5353).len(), 1);
        assert_eq!(ports::holders(Udp, None, 8080), []);
    });
}
