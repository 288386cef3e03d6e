//! Managers among each other: every kind of message there and back, and who is let in.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use skep_api::*;
use skep_model::{Rejection, Role};

use crate::arbitrary::draw;
use crate::cluster::{Daemon, Members};

const LINK: PeerLink = PeerLink { protocol: PEER_PROTOCOL, from: 1, to: u64::MAX };
const VOTE: RaftVote = RaftVote { term: 7, node: 1, committed: true };

fn at(index: u64) -> RaftPosition {
    RaftPosition { term: 7, node: 1, index }
}

fn append(index: u64) -> AppendRequest {
    let entry = |index, payload| RaftEntry { position: at(index), payload };
    AppendRequest {
        link: LINK,
        vote: VOTE,
        previous: index.checked_sub(1).map(at),
        entries: vec![
            entry(index, RaftPayload::Blank),
            entry(index + 1, RaftPayload::Changes(Bytes::from_static(b"\x00\xff"))),
            entry(index + 2, RaftPayload::Members(Bytes::from_static(b"members"))),
        ],
        committed: Some(at(index)),
        acknowledged: vec![Acknowledged { raft_id: 2, index }],
    }
}

/// Answers with what it was asked.
struct Echo;

impl Peer for Echo {
    async fn vote(&self, _: Caller, request: VoteRequest) -> Result<VoteReply, Refusal> {
        assert_eq!(request.acknowledged, Some(3));
        Ok(VoteReply { vote: request.vote, granted: request.handed_over, last: request.last })
    }

    async fn pre_vote(&self, _: Caller, request: VoteRequest) -> Result<VoteReply, Refusal> {
        Ok(VoteReply { vote: request.vote, granted: !request.handed_over, last: None })
    }

    async fn beat(&self, _: Caller, request: AppendRequest) -> Result<AppendReply, Refusal> {
        assert_eq!(request, append(0));
        Ok(AppendReply::Matched { last: None })
    }

    async fn transfer_leader(&self, _: Caller, request: TransferRequest) -> Result<TransferReply, Refusal> {
        match request.to {
            2 => Ok(TransferReply::Accepted),
            _ => Ok(TransferReply::Refused { reason: "behind".into() }),
        }
    }

    async fn propose(&self, _: Caller, request: ProposeRequest) -> Result<ProposeReply, Refusal> {
        match request.changes[0] {
            0 => Err(Refusal::new(RefusalKind::Denied, "not you")),
            1 => Err(Refusal::new(RefusalKind::Internal, "broken")),
            seed => Ok(reply(seed)),
        }
    }

    async fn read_index(&self, _: Caller, request: ReadIndexRequest) -> Result<ReadIndexReply, Refusal> {
        Ok(ReadIndexReply::Index(request.link.from))
    }

    async fn apply_hash(&self, _: Caller, request: ApplyHashRequest) -> Result<ApplyHashReply, Refusal> {
        assert!(request.decided);
        Ok(ApplyHashReply::Differs(request.hash))
    }

    async fn snapshot(&self, _: Caller, mut input: Messages<SnapshotPart>) -> Result<SnapshotReply, Refusal> {
        let Some(Ok(SnapshotPart::Begin(begin))) = input.next().await else { panic!("what it is comes first") };
        let mut size = 0;
        while let Some(part) = input.next().await {
            match part? {
                SnapshotPart::Data(data) => size += data.len() as u64,
                SnapshotPart::Begin(_) => panic!("only once"),
            }
        }
        assert_eq!((begin.size, begin.members.as_ref()), (size, b"members".as_slice()));
        Ok(SnapshotReply { vote: begin.vote })
    }

    async fn append(&self, _: Caller, input: Messages<AppendRequest>) -> Result<Messages<AppendReply>, Refusal> {
        let replies = input.map(|request| {
            let request = request?;
            assert_eq!(request, append(request.entries[0].position.index));
            Ok(match request.previous {
                Some(previous) if previous.index == 1 => AppendReply::Conflict(previous),
                Some(_) => AppendReply::HigherVote(request.vote),
                None => AppendReply::Matched { last: Some(at(2)) },
            })
        });
        Ok(replies.boxed())
    }
}

fn reply(seed: u8) -> ProposeReply {
    let elsewhere = NotLeading { leader: Some(3), address: Some("10.0.0.3:7377".into()) };
    match seed {
        2 => ProposeReply::Committed(u64::MAX),
        3 => ProposeReply::NotLeading(elsewhere),
        4 => ProposeReply::Unknown,
        5 => ProposeReply::TooLarge { bytes: 5, limit: 4 },
        6 => ProposeReply::Stopped { reason: "disk full".into() },
        _ => ProposeReply::Rejected { rejection: draw::<Rejection>(u64::from(seed)), revision: 9 },
    }
}

#[tokio::test]
async fn every_message_comes_back_as_it_was() -> Result<()> {
    let members = Members::new(1)?;
    let daemon =
        Daemon::start(Server::new().peer(Arc::new(Echo)), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let peer = PeerClient::new(members.connect(2, Role::Manager, &daemon).await?);
    let vote = VoteRequest { link: LINK, vote: VOTE, last: Some(at(4)), handed_over: true, acknowledged: Some(3) };
    let granted = VoteReply { vote: VOTE, granted: true, last: Some(at(4)) };
    assert_eq!(peer.vote(vote.clone()).await?, granted);
    assert_eq!(peer.pre_vote(vote).await?, VoteReply { vote: VOTE, granted: false, last: None });
    assert_eq!(peer.beat(append(0)).await?, AppendReply::Matched { last: None });

    let replies: Vec<_> = peer.append(stream::iter([append(0), append(2), append(9)])).await?.collect().await;
    let replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let expected =
        [AppendReply::Matched { last: Some(at(2)) }, AppendReply::Conflict(at(1)), AppendReply::HigherVote(VOTE)];
    assert_eq!(replies, expected);

    let members_bytes = Bytes::from_static(b"members");
    let begin = SnapshotBegin {
        link: LINK,
        vote: VOTE,
        last: Some(at(8)),
        members_at: None,
        members: members_bytes,
        size: 3 << 20,
    };
    let data = (0..3).map(|_| SnapshotPart::Data(Bytes::from(vec![1; 1 << 20])));
    let parts: Vec<_> = std::iter::once(SnapshotPart::Begin(begin)).chain(data).collect();
    assert_eq!(peer.snapshot(stream::iter(parts)).await?, SnapshotReply { vote: VOTE });

    let transfer = TransferRequest { link: LINK, from_leader: VOTE, to: 2, last: Some(at(1)) };
    assert_eq!(peer.transfer_leader(transfer.clone()).await?, TransferReply::Accepted);
    let refused = peer.transfer_leader(TransferRequest { to: 3, ..transfer }).await?;
    assert_eq!(refused, TransferReply::Refused { reason: "behind".into() });
    assert_eq!(peer.read_index(ReadIndexRequest { link: LINK }).await?, ReadIndexReply::Index(1));
    let hash = ApplyHashRequest { link: LINK, index: 255, hash: u64::MAX, decided: true };
    assert_eq!(peer.apply_hash(hash).await?, ApplyHashReply::Differs(u64::MAX));
    for seed in 2..80 {
        let request = ProposeRequest { link: LINK, changes: Bytes::from(vec![seed]) };
        assert_eq!(peer.propose_once(request).await?, reply(seed));
    }
    daemon.stop().await
}

#[tokio::test]
async fn what_was_surely_not_proposed_is_told_apart() -> Result<()> {
    let members = Members::new(1)?;
    let daemon =
        Daemon::start(Server::new().peer(Arc::new(Echo)), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let worker = PeerClient::new(members.connect(3, Role::Worker, &daemon).await?);
    let refused = worker.read_index(ReadIndexRequest { link: LINK }).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied, "{refused}");

    let peer = PeerClient::new(members.connect(2, Role::Manager, &daemon).await?);
    let propose = async |kind: u8| {
        let request = ProposeRequest { link: LINK, changes: Bytes::from(vec![kind]) };
        peer.propose_once(request).await.unwrap_err()
    };
    let denied = propose(0).await;
    assert!(matches!(denied, ProposeFailure::NotProposed(_)), "{denied:?}");
    let broken = propose(1).await;
    assert!(matches!(broken, ProposeFailure::Unknown(_)), "{broken:?}");
    daemon.stop().await?;
    // The first call may find the old connection as it breaks; after that there is none.
    let mut last = propose(2).await;
    for _ in 0..3 {
        last = propose(2).await;
    }
    assert!(matches!(last, ProposeFailure::NotProposed(_)), "{last:?}");
    Ok(())
}
