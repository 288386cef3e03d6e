//! What the resolver answers to each kind of question, without a socket.

use std::path::PathBuf;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::snapshot::{FORMAT, RESOLVER_PORT};

fn snapshot() -> Snapshot {
    let name =
        |kind, addresses: &[&str]| Name { kind, addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() };
    let many: Vec<String> = (1..=100).map(|last| format!("10.64.1.{last}")).collect();
    let back = Zone {
        name: "shop_back".into(),
        names: BTreeMap::from([
            ("web".into(), name(NameKind::Vip, &["10.64.0.100"])),
            ("tasks.web".into(), name(NameKind::Tasks, &["10.64.0.2", "10.64.0.3"])),
            ("web.1".into(), name(NameKind::Container, &["10.64.0.2"])),
            ("idle".into(), name(NameKind::Tasks, &[])),
            ("many".into(), name(NameKind::Tasks, &many.iter().map(String::as_str).collect::<Vec<_>>())),
        ]),
        reverse: BTreeMap::from([("10.64.0.2".parse().unwrap(), "shop_web.1.shop_back".into())]),
    };
    let front = Zone {
        name: "front".into(),
        names: BTreeMap::from([("web".into(), name(NameKind::Vip, &["10.65.0.100"]))]),
        reverse: BTreeMap::new(),
    };
    let view = |networks: &[&str], outside, search: &[&str]| View {
        netns: PathBuf::from("/nowhere"),
        networks: networks.iter().map(ToString::to_string).collect(),
        outside,
        search: search.iter().map(ToString::to_string).collect(),
    };
    Snapshot {
        format: FORMAT,
        resolver_port: RESOLVER_PORT,
        upstreams: vec!["192.0.2.53:53".parse().unwrap()],
        zones: BTreeMap::from([("n1".into(), back), ("n2".into(), front)]),
        sandboxes: BTreeMap::from([
            ("one".into(), view(&["n1"], Outside::Forward, &[])),
            ("both".into(), view(&["n2", "n1"], Outside::Forward, &["example.com"])),
            ("inner".into(), view(&["n1"], Outside::Deny, &[])),
        ]),
        listeners: vec![],
        tunnel: None,
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(DnsName::from_labels(labels).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

/// Each line is a sandbox's question and what becomes of it; shuffling reverses.
fn check(questions: &[(&str, &str, RecordType)], expected: Expect) {
    let mut seen = String::new();
    for (sandbox, name, kind) in questions {
        let query = query(name, *kind);
        let decided =
            decide(&snapshot(), sandbox, &query.to_vec().unwrap(), Transport::Udp, |addresses| addresses.reverse());
        let outcome = match decided {
            Decision::Reply(reply) => {
                let reply = Message::from_vec(&reply).unwrap();
                assert_eq!(reply.metadata.id, query.metadata.id);
                assert_eq!(reply.queries, query.queries);
                let records: Vec<String> = reply.answers.iter().map(|r| format!("{} {}", r.ttl, r.data)).collect();
                format!("{} {records:?}", reply.metadata.response_code)
            }
            Decision::Forward(_) => "forward".to_owned(),
            Decision::Ignore => "ignore".to_owned(),
        };
        seen.push_str(&format!("{sandbox} {name} {kind}: {outcome}\n"));
    }
    expected.assert_eq(&seen);
}

#[test]
fn names_of_the_cluster() {
    use RecordType::{A, AAAA, MX, PTR};
    check(
        &[
            ("one", "web", A),
            ("one", "WEB.", A),
            ("one", "web.shop_back", A),
            ("one", "web", AAAA),
            ("one", "web", MX),
            ("one", "tasks.web", A),
            ("one", "web.1", A),
            ("one", "idle", A),
            ("one", "web.front", A),
            ("both", "web", A),
            ("both", "web.shop_back", A),
            ("one", "2.0.64.10.in-addr.arpa", PTR),
            ("one", "2.0.64.10.in-addr.arpa", A),
        ],
        expect![[r#"
            one web A: No Error ["30 10.64.0.100"]
            one WEB. A: No Error ["30 10.64.0.100"]
            one web.shop_back A: No Error ["30 10.64.0.100"]
            one web AAAA: No Error []
            one web MX: No Error []
            one tasks.web A: No Error ["5 10.64.0.3", "5 10.64.0.2"]
            one web.1 A: No Error ["5 10.64.0.2"]
            one idle A: No Error []
            one web.front A: forward
            both web A: No Error ["30 10.65.0.100"]
            both web.shop_back A: No Error ["30 10.64.0.100"]
            one 2.0.64.10.in-addr.arpa PTR: No Error ["5 shop_web.1.shop_back."]
            one 2.0.64.10.in-addr.arpa A: No Error []
        "#]],
    );
}

#[test]
fn names_of_the_world() {
    use RecordType::{A, PTR};
    check(
        &[
            ("one", "example.com", A),
            ("one", "nobody", A),
            ("both", "nobody", A),
            ("inner", "example.com", A),
            ("inner", "web", A),
            ("one", "9.9.9.9.in-addr.arpa", PTR),
            ("inner", "9.9.9.9.in-addr.arpa", PTR),
            ("gone", "web", A),
        ],
        expect![[r#"
            one example.com A: forward
            one nobody A: Non-Existent Domain []
            both nobody A: forward
            inner example.com A: Non-Existent Domain []
            inner web A: No Error ["30 10.64.0.100"]
            one 9.9.9.9.in-addr.arpa PTR: forward
            inner 9.9.9.9.in-addr.arpa PTR: Non-Existent Domain []
            gone web A: Server Failure []
        "#]],
    );
}

#[test]
fn a_long_answer_is_cut_to_what_the_client_takes() {
    let ask = |edns: Option<u16>, transport| {
        let mut query = query("many", RecordType::A);
        if let Some(bytes) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            query.set_edns(edns);
        }
        let decided = decide(&snapshot(), "one", &query.to_vec().unwrap(), transport, |_| ());
        let Decision::Reply(reply) = decided else { panic!("{decided:?}") };
        let parsed = Message::from_vec(&reply).unwrap();
        assert_eq!(parsed.edns.is_some(), edns.is_some());
        (parsed.metadata.truncation, parsed.answers.len())
    };
    assert_eq!(ask(None, Transport::Udp), (true, 0));
    assert_eq!(ask(Some(1232), Transport::Udp), (true, 0));
    assert_eq!(ask(Some(4096), Transport::Udp), (false, 100));
    assert_eq!(ask(None, Transport::Tcp), (false, 100));
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let decided = |bytes: &[u8]| match decide(&snapshot(), "one", bytes, Transport::Udp, |_| ()) {
        Decision::Reply(reply) => Message::from_vec(&reply).unwrap().metadata.response_code.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(decided(b"short"), "Ignore");
    assert_eq!(decided(&[0; 12]), ResponseCode::FormErr.to_string(), "no question");
    assert_eq!(decided(&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 99]), ResponseCode::FormErr.to_string());
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    assert_eq!(decided(&response), "Ignore");
    let mut update = query("web", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(decided(&update.to_vec().unwrap()), ResponseCode::NotImp.to_string());
}

#[test]
fn without_upstreams_the_world_fails_at_once() {
    let snapshot = Snapshot { upstreams: vec![], ..snapshot() };
    let query = query("example.com", RecordType::A).to_vec().unwrap();
    let Decision::Reply(reply) = decide(&snapshot, "one", &query, Transport::Udp, |_| ()) else { panic!() };
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn spellings_of_a_question_share_a_key_and_kinds_do_not() {
    let key = |message: &Message| cache_key(&message.to_vec().unwrap(), message).unwrap();
    let plain = query("example.com", RecordType::A);
    assert_eq!(key(&plain), key(&query("EXAMPLE.com", RecordType::A)));
    assert_ne!(key(&plain), key(&query("example.com", RecordType::AAAA)));
    let mut secured = plain.clone();
    secured.metadata.checking_disabled = true;
    assert_ne!(key(&plain), key(&secured));
    secured = plain.clone();
    secured.set_edns(Edns::new());
    assert_ne!(key(&plain), key(&secured));
}

proptest! {
    /// Containers may send anything: it is answered, refused or ignored, never a panic, never an answer to an answer.
    #[test]
    fn damaged_questions_do_no_harm(
        damage in proptest::collection::vec((0usize..64, any::<u8>()), 0..8),
        length in 0usize..64,
    ) {
        let mut bytes = with_edns().to_vec().unwrap();
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(length);
        let is_response = bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
        match decide(&snapshot(), "both", &bytes, Transport::Udp, |_| ()) {
            Decision::Reply(reply) => {
                prop_assert!(!is_response);
                prop_assert_eq!(&reply[..2], &bytes[..2]);
                prop_assert!(reply[2] & 0x80 != 0);
            }
            Decision::Forward(question) => {
                prop_assert!(!is_response);
                prop_assert_eq!(&question.failure[..2], &bytes[..2]);
            }
            Decision::Ignore => {}
        }
    }
}

fn with_edns() -> Message {
    let mut message = query("tasks.web.shop_back", RecordType::A);
    message.set_edns(Edns::new());
    message
}
