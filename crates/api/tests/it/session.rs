//! An agent's session: every kind of message there and back, and who the manager sees.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use skep_api::*;
use skep_model::{ContentDigest, EndpointMode, NodeId, Role, TaskId, Timestamp};
use tokio::sync::mpsc;

use crate::arbitrary::draw;
use crate::cluster::{Daemon, Members};

/// Sends what it is made of, and hands on what it hears.
struct FakeDispatcher {
    says: Vec<ManagerMessage>,
    hears: mpsc::Sender<AgentMessage>,
}

impl Dispatcher for FakeDispatcher {
    async fn session(
        &self,
        caller: Caller,
        mut input: Messages<AgentMessage>,
    ) -> Result<Messages<ManagerMessage>, Refusal> {
        let node = caller.member()?.node_id;
        let hears = self.hears.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = input.next().await {
                if hears.send(message).await.is_err() {
                    return;
                }
            }
        });
        let welcome = Welcome {
            node,
            heartbeat_period: Duration::from_secs(1),
            managers: vec!["10.0.0.1:7377".into()],
            time: Timestamp(7),
            settles: true,
        };
        let says = [ManagerMessage::Welcome(welcome)].into_iter().chain(self.says.clone());
        Ok(stream::iter(says.map(Ok)).chain(stream::pending()).boxed())
    }
}

fn exec_spec() -> ExecSpec {
    ExecSpec {
        argv: vec!["sh".into()],
        env: vec!["A=b".into()],
        user: Some("1000:1000".into()),
        working_dir: Some("/srv".into()),
        tty: true,
        stdin: true,
        privileged: true,
        size: Some(TerminalSize { rows: u16::MAX, columns: 1 }),
    }
}

pub fn assignments(seed: u64) -> Assignments {
    let content = AssignedContent { digest: draw(seed), name: draw(seed), data: Bytes::from_static(b"\x00secret\xff") };
    let network = AssignedNetwork {
        id: draw(seed),
        spec: draw(seed),
        subnet: draw(seed),
        gateway: draw(seed),
        blocks: vec![draw(seed), draw(seed + 1)],
        subnet_v6: draw(seed),
        reserved: draw(seed),
    };
    let endpoint = ServiceEndpoint {
        service: draw(seed),
        name: "counter_web".into(),
        mode: EndpointMode::DnsRr,
        networks: vec![EndpointNetwork { network: draw(seed), virtual_ip: draw(seed), aliases: vec!["web".into()] }],
        ports: draw(seed),
        backends: vec![Backend {
            task: draw(seed),
            slot: draw(seed),
            node: draw(seed),
            addresses: draw(seed),
            hostname: Some("db".into()),
        }],
        draining: vec![Backend {
            task: draw(seed + 1),
            slot: draw(seed + 1),
            node: draw(seed + 1),
            addresses: draw(seed + 1),
            hostname: None,
        }],
        session_affinity: draw(seed),
        prefer_local: draw(seed),
    };
    let set = vec![
        Assignment::Task(Box::new(draw(seed))),
        Assignment::Secret(content.clone()),
        Assignment::Config(content),
        Assignment::Network(network),
        Assignment::Endpoint(endpoint),
        Assignment::Place(AssignedPlace {
            address: draw(seed),
            nodes: draw(seed),
            pool: draw(seed),
            prefix: draw(seed),
            key: draw(seed),
        }),
        Assignment::Peer(AssignedPeer {
            node: draw(seed),
            key: draw(seed),
            endpoint: draw(seed),
            address: draw(seed),
            blocks: vec![draw(seed), draw(seed + 1)],
        }),
    ];
    let mut removed: Vec<AssignmentKey> = set.iter().map(Assignment::key).collect();
    removed.push(AssignmentKey::Secret(ContentDigest("abc".into())));
    Assignments { base: seed.is_multiple_of(2).then_some(seed), revision: seed + 1, set, removed }
}

fn said() -> Vec<ManagerMessage> {
    let (request, task) = (u64::MAX, TaskId::from_u128(3));
    let options = LogOptions { tail: Some(0), since: Some(draw(1)), follow: true };
    let mut said = vec![
        ManagerMessage::Log { request, task, options },
        ManagerMessage::Exec { request, task, spec: exec_spec() },
        ManagerMessage::Feed { request, input: ExecInput::Stdin(Bytes::new()) },
        ManagerMessage::Feed { request, input: ExecInput::End },
        ManagerMessage::Cancel { request },
        ManagerMessage::Settled { task },
        ManagerMessage::Probe { request, managers: vec![manager()] },
        ManagerMessage::LeaseGrant(LeaseGrant {
            sent: u64::MAX,
            granted_for: Duration::from_secs(15),
            tasks: vec![draw(5), draw(6)],
        }),
        ManagerMessage::Standing(Standing { role: Role::Manager, raft_id: None, managers: vec![] }),
        ManagerMessage::Standing(Standing { role: Role::Worker, raft_id: Some(7), managers: vec!["a:1".into()] }),
    ];
    said.extend((0..30).map(|seed| ManagerMessage::Assignments(assignments(seed))));
    said
}

fn heard() -> Vec<AgentMessage> {
    let request = 9;
    let hello = Hello {
        protocol: DISPATCH_PROTOCOL,
        description: draw(4),
        address: "10.0.0.2".into(),
        revision: 77,
        instance: "machine-boot".into(),
        acknowledges: true,
        tunnel: Some(TunnelHello { key: draw(7), port: u16::MAX, address: draw(7) }),
    };
    let entry =
        |stream| LogEntry { task: draw(1), node: draw(2), stream, at: draw(3), data: Bytes::from_static(b"x\n") };
    let entries = vec![entry(OutputStream::Stdout), entry(OutputStream::Stderr)];
    let tasks = (0..20).map(|seed| TaskReport { task: draw(seed), status: draw(seed) }).collect();
    vec![
        AgentMessage::Hello(hello),
        AgentMessage::Heartbeat { sent: u64::MAX },
        AgentMessage::Report { tasks },
        AgentMessage::Log { request, entries },
        AgentMessage::Exec { request, output: ExecOutput::Started },
        AgentMessage::Exec { request, output: ExecOutput::Exit(137) },
        AgentMessage::End { request, error: Some("the container is gone".into()) },
        AgentMessage::End { request, error: None },
        AgentMessage::Applied { revision: u64::MAX },
        AgentMessage::Settle { task: draw(7) },
        AgentMessage::Probed { request, part: ProbePart::Began { time: draw(8) } },
        AgentMessage::Probed { request, part: ProbePart::Examined(examined()) },
        AgentMessage::Tunnel(TunnelHello { key: draw(7), port: 7377, address: None }),
        AgentMessage::Leaving,
    ]
}

#[tokio::test]
async fn every_message_survives_in_both_directions() -> Result<()> {
    let members = Members::new(1)?;
    let (hears, mut from_agent) = mpsc::channel(64);
    let dispatcher = FakeDispatcher { says: said(), hears };
    let server = Server::new().dispatcher(Arc::new(dispatcher));
    let daemon = Daemon::start(server, &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;

    let client = DispatcherClient::new(members.connect(2, Role::Worker, &daemon).await?);
    let mut session = client.session(stream::iter(heard()).chain(stream::pending())).await?;
    match session.next().await.expect("a welcome")? {
        ManagerMessage::Welcome(welcome) => assert_eq!(welcome.node, NodeId::from_u128(2)),
        other => panic!("expected a welcome, got {other:?}"),
    }
    for expected in said() {
        assert_eq!(session.next().await.expect("a message")?, expected);
    }
    for expected in heard() {
        assert_eq!(from_agent.recv().await.expect("a message"), expected);
    }
    // The session is still open: stopping does not wait for it for ever, and the agent learns of it.
    daemon.stop().await?;
    match session.next().await {
        None | Some(Err(_)) => Ok(()),
        Some(Ok(message)) => anyhow::bail!("unexpected {message:?}"),
    }
}

fn manager() -> ManagerTarget {
    ManagerTarget { node: Some(draw(9)), address: "10.0.0.1:7377".to_owned() }
}

fn examined() -> Examined {
    Examined {
        complaints: vec![Complaint { what: "the disk is full".to_owned(), mend: String::new() }],
        peers: vec![PeerProbe {
            node: draw(10),
            address: [10, 127, 240, 2].into(),
            endpoint: "[2001:db8::2]:7377".parse().ok(),
            sent: 30,
            answered: 29,
            round_trip: Some(Duration::from_micros(7)),
            passes: Some(1340),
            received_bytes: u64::MAX,
            handshake_age: None,
        }],
        managers: vec![ManagerProbe { manager: manager(), reached: Reached::Silent, connected_in: None }],
        firewall: Some(Firewall::Firewalld),
        tunnel_port: 7377,
        mtu: 1340,
        interface_mtu: 1420,
        clock_synchronised: Some(false),
    }
}
