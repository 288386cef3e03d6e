//! Laws of updates and jobs, over random clusters, images and events.

use std::time::Duration;

use proptest::prelude::*;
use skep_model::*;

use crate::play::Play;
use crate::play::agents::Behaviour;

const MINUTE: Duration = Duration::from_secs(60);

fn image(seed: u64) -> Behaviour {
    let tenths = |shift: u32, most: u64| Duration::from_millis(100 * ((seed >> shift) % most));
    Behaviour {
        pull: tenths(0, 50),
        start: tenths(8, 20),
        healthy: Some(tenths(16, 60)),
        stop: tenths(24, 40),
        ..Behaviour::default()
    }
}

/// A cluster with one service `web` that runs.
fn running(nodes: usize, words: &str) -> Play {
    let mut play = Play::new();
    play.command(&format!("nodes {nodes}"));
    play.command(&format!("create web image=app:1 {words}"));
    play.run_for(2 * MINUTE);
    play
}

fn update_state(play: &Play) -> Option<UpdateState> {
    play.sim.cluster.services[&play.service("web")].update_status.as_ref().map(|status| status.state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn stop_first_never_takes_more_than_may_change_at_once(
        nodes in 1usize..4, replicas in 1u64..7, parallelism in 1u64..4, delay in 0u64..3, seed: u64, leader in 0u64..40,
    ) {
        let words = format!("replicas={replicas} parallelism={parallelism} delay={delay}s monitor=1s");
        let mut play = running(nodes, &words);
        play.agents.images.insert("app:2".to_owned(), image(seed));
        play.command("update web image=app:2");
        play.least.clear();
        play.run_for(Duration::from_millis(leader * 500));
        play.command("leader change");
        play.run_for(10 * MINUTE);
        prop_assert_eq!(update_state(&play), Some(UpdateState::Completed));
        prop_assert!(play.least["web"] as u64 >= replicas.saturating_sub(parallelism), "{:?}", play.least);
    }

    #[test]
    fn start_first_never_serves_fewer_than_wanted(
        nodes in 1usize..4, replicas in 1u64..7, parallelism in 0u64..4, good: bool, seed: u64, leader in 0u64..40,
    ) {
        let words = format!("replicas={replicas} parallelism={parallelism} order=start-first monitor=1s on-failure=rollback rollback.order=start-first");
        let mut play = running(nodes, &words);
        let image = if good { image(seed) } else { Behaviour { healthy: None, gives_up: Duration::from_secs(5), ..image(seed) } };
        play.agents.images.insert("app:2".to_owned(), image);
        play.command("update web image=app:2");
        play.least.clear();
        play.run_for(Duration::from_millis(leader * 500));
        play.command("leader change");
        play.run_for(10 * MINUTE);
        let end = if good { UpdateState::Completed } else { UpdateState::RollbackCompleted };
        prop_assert_eq!(update_state(&play), Some(end));
        prop_assert!(play.least["web"] as u64 >= replicas, "{:?}", play.least);
    }

    /// Whatever the images do and the nodes did: once nodes answer and time passes, the update has an end.
    #[test]
    fn an_update_always_ends(
        replicas in 0u64..6,
        policy in (0u64..4, 0usize..3, 0usize..3, 0usize..2),
        claims in 0usize..5,
        events in proptest::collection::vec((0u8..9, 0usize..3, 0u64..30), 1..14),
    ) {
        let (parallelism, action, ratio, order) = policy;
        let action = ["pause", "continue", "rollback"][action];
        let (ratio, order) = (["0", "0.3", "1"][ratio], ["stop-first", "start-first"][order]);
        let claims = ["", "port=8080", "cpus=3", "most=1", "needs=disk==ssd"][claims];
        let words = format!(
            "replicas={replicas} parallelism={parallelism} on-failure={action} ratio={ratio} order={order} deadline=1m {claims}"
        );
        let mut play = running(3, &words);
        for (number, (event, which, span)) in events.into_iter().enumerate() {
            let node = format!("n{}", which + 1);
            let name = format!("app:{}", number + 2);
            let image = match event {
                0 => Some("exits=1 after=1s"),
                1 => Some("rejected=gone"),
                2 => Some("healthy=never"),
                3 => Some("pull=20s"),
                _ => None,
            };
            if let Some(image) = image {
                play.command(&format!("image {name} {image}"));
                play.command(&format!("update web image={name}"));
            }
            match event {
                4 => play.set_node(&node, "down"),
                5 => play.set_node(&node, ["drain", "pause", "active"][span as usize % 3]),
                6 => drop(play.command("leader change")),
                7 => play.set_node(&node, "disk=ssd"),
                8 => drop(play.command(&format!("update web replicas={}", span % 6))),
                _ => {}
            }
            play.run_for(Duration::from_secs(span));
        }
        for node in ["n1", "n2", "n3"] {
            play.set_node(node, "up");
            play.set_node(node, "active");
        }
        play.run_for(40 * MINUTE);
        let state = update_state(&play);
        let ended = !matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted));
        prop_assert!(ended, "{state:?}: {:?}", play.sim.cluster.services[&play.service("web")].update_status);
        let index = play.sim.index;
        play.run_for(Duration::from_secs(1));
        prop_assert!(play.sim.index - index < 60, "{} writes a second at rest", play.sim.index - index);
    }

    /// A run of a job ends well as often as it is meant to, and no more, whatever becomes of nodes and leaders.
    #[test]
    fn a_job_completes_as_often_as_it_is_meant_to(
        at_once in 0u64..4, total in 0u64..7, events in proptest::collection::vec((0u8..4, 0usize..3, 1u64..20), 0..8),
    ) {
        let mut play = Play::new();
        play.command("nodes 3");
        play.command("image app:1 exits=0 after=7s");
        play.command(&format!("create job job={at_once}/{total} image=app:1"));
        for (event, which, span) in events {
            let node = format!("n{}", which + 1);
            match event {
                0 => play.set_node(&node, "down"),
                1 => play.set_node(&node, "up"),
                2 => drop(play.command("leader change")),
                _ => play.set_node(&node, ["drain", "active"][span as usize % 2]),
            }
            play.run_for(Duration::from_secs(span));
            let id = play.service("job");
            let live = play.sim.cluster.tasks_of_service(id).filter(|task| task.is_live()).count() as u64;
            let most = if at_once == 0 { total } else { at_once };
            prop_assert!(live <= most, "{live} of at most {most}");
        }
        for node in ["n1", "n2", "n3"] {
            play.set_node(node, "up");
            play.set_node(node, "active");
        }
        play.run_for(10 * MINUTE);
        let tasks: Vec<_> = play.sim.cluster.tasks_of_service(play.service("job")).collect();
        // Of a slot whose node was lost for a while two may have ended well.
        let done = tasks.iter().filter(|task| task.status.state == TaskState::Complete).map(|task| task.slot);
        let done = done.collect::<std::collections::BTreeSet<_>>().len() as u64;
        prop_assert_eq!((done, tasks.iter().filter(|task| task.is_live()).count()), (total, 0));
    }
}
