//! Who gets a certificate, what for, and what the others are told.

use futures::StreamExt;
use skep_api::{
    AgentMessage, Assignment, ControlClient, DISPATCH_PROTOCOL, DispatcherClient, Hello, ManagerMessage, RefusalKind,
};
use skep_identity::{Credentials, NodeClock, NodeKey, Synchronised};
use skep_model::{Change, ContentDigest, Contents, Id, Labels, Meta, NodeDescription, Role, Secret};
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{World, days_ago, expired, now};

#[tokio::test]
async fn a_node_off_for_a_year_comes_back_by_itself_and_may_do_nothing_before_it_has_renewed() {
    let world = World::start(NodeClock::new()).await;
    let node = world.join(&world.worker_token).await.unwrap();
    let lapsed = expired(&world.first_ca, &node);
    let refused = session(&world, &lapsed, "a").await.map(|_| ()).unwrap_err();
    assert!(refused.message.contains("renewal only"), "{refused}");
    let back = world.renew(&lapsed).await.unwrap();
    assert_eq!(back.identity(), node.identity());
    assert!(!back.remaining(now()).is_zero());
    drop(session(&world, &back, "a").await.unwrap());
    world.stop().await;
}

#[tokio::test]
async fn a_removed_node_and_another_key_get_no_certificate() {
    let world = World::start(NodeClock::new()).await;
    let node = world.join(&world.worker_token).await.unwrap();
    // Somebody who holds the key of the CA, but not the node's.
    let refused = world.renew_with(&node, &NodeKey::generate().unwrap()).await.unwrap_err();
    assert!(refused.kind == RefusalKind::Denied && refused.message.contains("another key"), "{refused}");
    let mut told = session(&world, &node, "a").await.unwrap();
    world.store.propose(vec![Change::RemoveNode { node: node.identity().node_id }]).await.unwrap();
    while let Some(message) = told.next().await {
        message.unwrap();
    }
    for refused in [world.renew(&node).await.unwrap_err(), session(&world, &node, "a").await.map(|_| ()).unwrap_err()] {
        assert!(refused.kind == RefusalKind::Denied && refused.message.contains("no longer"), "{refused}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_rotation_waits_for_who_is_up_and_not_for_who_is_down() {
    let world = World::start(NodeClock::new()).await;
    let (up, down) = (world.join(&world.worker_token).await.unwrap(), world.join(&world.worker_token).await.unwrap());
    world.is_down(down.identity().node_id).await;
    let old_issuer = world.first_ca.digest().to_string();
    let mut told = session(&world, &up, "a").await.unwrap();
    let rotated = world.rotate().await;

    // The node is told, and what it is told lets it renew although the manager has not renewed yet.
    let update = loop {
        if let ManagerMessage::Trust(update) = told.next().await.unwrap().unwrap() {
            break update;
        }
    };
    assert!(update.renew);
    let informed = up.with_authorities(&update.authorities).unwrap();
    let renewed = world.renew(&informed).await.unwrap();
    let config = world.cluster().config.clone().unwrap();
    assert_eq!((config.trust.trusted.len(), config.trust.retired.len()), (1, 0), "the manager has not renewed");
    world.renew_manager().await;
    world.until(|cluster| cluster.config.as_ref().unwrap().trust.trusted.is_empty()).await;
    let cluster = world.cluster();
    assert_eq!(cluster.config.as_ref().unwrap().trust.retired, [world.first_ca.certificate_pem()]);
    assert_eq!(cluster.nodes[&up.identity().node_id].certificate.issuer, rotated.issuer);
    assert_eq!(cluster.nodes[&down.identity().node_id].certificate.issuer, old_issuer);
    drop(session(&world, &renewed, "a").await.unwrap());

    // The manager learns of the end as nodes do; the one that was down is let in for renewal, and then is a member.
    world.renew_manager().await;
    let refused = session(&world, &down, "b").await.map(|_| ()).unwrap_err();
    assert!(refused.message.contains("renewal only"), "{refused}");
    let back = world.renew(&expired(&world.first_ca, &down)).await.unwrap();
    drop(session(&world, &back, "b").await.unwrap());
    world.stop().await;
}

#[tokio::test]
async fn tokens_say_what_is_wrong_with_them() {
    let world = World::start(NodeClock::new()).await;
    let rotated = world.rotate().await;
    // First the manager does not know yet, then the joining node itself sees it in the chain.
    let refused = world.join(&world.worker_token).await.unwrap_err();
    assert!(refused.message.contains("CA was rotated"), "{refused}");
    world.renew_manager().await;
    let refused = world.join(&world.worker_token).await.unwrap_err();
    assert!(refused.message.contains("CA was rotated"), "{refused}");
    let joined: Credentials = world.join(&rotated.worker_token).await.unwrap();
    assert_eq!(joined.identity().role, Role::Worker);
    let another =
        skep_identity::JoinToken::generate(rotated.worker_token.parse::<skep_identity::JoinToken>().unwrap().ca());
    let refused = world.join(&another.unwrap().to_string()).await.unwrap_err();
    assert!(refused.message.contains("no longer, valid"), "{refused}");
    world.stop().await;
}

#[tokio::test]
async fn a_manager_whose_clock_is_behind_issues_nothing_and_says_why() {
    let clock = NodeClock::shifted(-400 * 86_400, || Synchronised::No);
    clock.at_least(days_ago(1));
    let world = World::start(clock).await;
    let refused = world.join(&world.worker_token).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Unavailable);
    assert!(refused.message.contains("waiting for it to be set"), "{refused}");
    world.stop().await;
}

#[tokio::test]
async fn a_worker_is_not_told_of_secrets_that_its_tasks_do_not_use_whatever_it_asks() {
    let world = World::start(NodeClock::new()).await;
    let node = world.join(&world.worker_token).await.unwrap();
    let secret = Secret {
        id: Id::from_u128(9),
        meta: Meta::new(now()),
        name: "password".to_owned(),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest("aa".to_owned()), (*b"hush").into(), now()),
    };
    world.store.propose(vec![Change::CreateSecret { secret: Box::new(secret) }]).await.unwrap();
    // What it is told by itself: its assignments.
    let mut told = session(&world, &node, "a").await.unwrap();
    let assignments = loop {
        if let ManagerMessage::Assignments(assignments) = told.next().await.unwrap().unwrap() {
            break assignments;
        }
    };
    assert!(!assignments.set.iter().any(|it| matches!(it, Assignment::Secret(_))), "{assignments:?}");
    // And what it could ask for with its certificate.
    let control = ControlClient::new(world.connect(&node).await.unwrap());
    for refused in [
        control.secret("password").await.map(|_| ()).unwrap_err(),
        control.secrets(Default::default()).await.map(|_| ()).unwrap_err(),
        control.services(Default::default()).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(refused.kind, RefusalKind::Denied, "{refused}");
    }
    world.stop().await;
}

/// Opens a session from the machine `instance`; returns what the manager says, the welcome aside.
#[tokio::test]
async fn a_flood_of_wrong_tokens_or_of_sessions_is_held_up_and_refused() {
    let world = World::start(NodeClock::new()).await;
    let (one, two) = (world.join(&world.worker_token).await.unwrap(), world.join(&world.worker_token).await.unwrap());
    let open = (0..48).map(|_| session(&world, &one, "a"));
    let refused = futures::future::join_all(open).await.into_iter().filter_map(Result::err);
    let flooded = refused.filter(|refusal| refusal.message.contains("too fast")).count();
    assert!(flooded > 0, "none of 48 sessions at once was refused");
    drop(session(&world, &two, "b").await.unwrap());

    let guess =
        skep_identity::JoinToken::generate(world.worker_token.parse::<skep_identity::JoinToken>().unwrap().ca());
    let guess = guess.unwrap().to_string();
    for wrong in futures::future::join_all((0..48).map(|_| world.join(&guess))).await {
        assert_eq!(wrong.unwrap_err().kind, RefusalKind::Denied);
    }
    let refused = world.join(&world.worker_token).await.unwrap_err();
    assert!(refused.kind == RefusalKind::Unavailable && refused.message.contains("127.0.0.1"), "{refused}");
    world.stop().await;
}

async fn session(
    world: &World,
    node: &Credentials,
    instance: &str,
) -> Result<skep_api::Messages<ManagerMessage>, skep_api::Refusal> {
    let (to_manager, outgoing) = tokio::sync::mpsc::channel(8);
    let description = NodeDescription::default();
    let (address, instance) = ("127.0.0.1".to_owned(), instance.to_owned());
    let (acknowledges, tunnel) = (false, None);
    let hello =
        Hello { protocol: DISPATCH_PROTOCOL, description, address, revision: 0, instance, acknowledges, tunnel };
    to_manager.send(AgentMessage::Hello(hello)).await.unwrap();
    let mut messages = DispatcherClient::new(world.connect(node).await?).session(ReceiverStream::new(outgoing)).await?;
    let Some(Ok(ManagerMessage::Welcome(welcome))) = messages.next().await else { panic!("no welcome") };
    assert!(welcome.time > days_ago(1));
    // The sender lives as long as the session: its end would be the agent's.
    let stream = futures::stream::unfold((messages, to_manager), async |(mut messages, to_manager)| {
        let message = messages.next().await?;
        Some((message, (messages, to_manager)))
    });
    Ok(stream.boxed())
}
