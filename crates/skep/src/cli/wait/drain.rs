//! Waiting until a drained node is empty and what it had serves elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_api::{ControlClient, Filter};
use skep_model::{DesiredState, NodeId, Service, Slot, Task, TaskState, VolumePlacement};
use tokio::time::Instant;

use super::follow::{Followed, follow};
use super::screen::{Progress, Screen};
use super::{UNPLACED, explain};
use crate::cli::Result;
use crate::cli::failure::{self, Exit};
use crate::cli::output;

/// What moves away: slots of services that had a task on the node.
pub type Slots = BTreeSet<(String, Slot)>;

/// The slots that a node has tasks of.
pub async fn slots_on(control: &ControlClient, node: NodeId) -> Result<Slots> {
    let tasks = control.tasks(Filter { node: Some(node.to_string()), ..Filter::default() }).await?;
    Ok(tasks.into_iter().filter(|task| task.occupies_node()).map(|task| (task.service_name, task.slot)).collect())
}

/// Returns once nothing of `slots` is on the node and all of it runs elsewhere; an [`Exit`] says what cannot.
pub async fn until_empty(
    control: &ControlClient,
    (node, name): (NodeId, &str),
    slots: &Slots,
    timeout: Duration,
) -> Result {
    let mut screen = Screen::new(Progress::Shown);
    let mut unplaced_since: Option<Instant> = None;
    let what = format!("draining {name}");
    let followed = Followed { what, timeout, watch_with: format!("skep node ps {name}") };
    let stuck = follow(control, &followed, async || {
        let services = control.services(Filter::default()).await?;
        let tasks = control.tasks(Filter::default()).await?;
        let picture = Picture::of(node, slots, &services, &tasks);
        screen.show(&picture.lines);
        if picture.left == 0 && picture.unplaced.is_empty() && picture.moving == 0 {
            return Ok(Some(BTreeMap::new()));
        }
        let waits_for_room = picture.moving == 0 && !picture.unplaced.is_empty();
        let since = waits_for_room.then(|| *unplaced_since.get_or_insert_with(Instant::now));
        unplaced_since = since;
        Ok(since.filter(|since| since.elapsed() >= UNPLACED).map(|_| picture.unplaced))
    })
    .await?;
    if stuck.is_empty() {
        return Ok(());
    }
    for (service, reason) in stuck {
        output::complain(format_args!("service {service} cannot be placed elsewhere: {reason}"));
        explain::tell(control, &service).await;
    }
    let message = format!("{name} takes no tasks any more; what has no place goes on by itself when there is one");
    Err(Exit::saying(failure::UNPLACED, message))
}

/// How far a drain is.
#[derive(Debug, Default)]
struct Picture {
    lines: Vec<(String, String)>,
    /// Tasks that are still on the node.
    left: usize,
    /// Tasks on the node that stop, and replacements that start.
    moving: usize,
    /// Services of which a replacement has no place, and why.
    unplaced: BTreeMap<String, String>,
}

impl Picture {
    fn of(node: NodeId, slots: &Slots, services: &[Service], tasks: &[Task]) -> Picture {
        let mut picture = Picture::default();
        let names: BTreeSet<&String> = slots.iter().map(|(service, _)| service).collect();
        for name in names {
            let service = services.iter().find(|service| service.name() == name);
            let own: Vec<&Task> = tasks.iter().filter(|task| task.service_name == *name).collect();
            let left = own.iter().filter(|task| task.node == Some(node) && task.occupies_node());
            let (stay, stop): (Vec<&Task>, Vec<&Task>) = left.partition(|task| task.desired <= DesiredState::Running);
            let of_slots = slots.iter().filter(|(service, _)| service == name).map(|(_, slot)| *slot);
            let (mut wanted, mut moved, mut starting) = (0, 0, 0);
            for slot in of_slots.filter(|slot| matches!(slot, Slot::Replica(_)) && service.is_some()) {
                let live = own.iter().filter(|task| task.slot == slot && task.is_live() && task.node != Some(node));
                let Some(newest) = live.max_by_key(|task| (task.meta.created_at, task.id)) else { continue };
                wanted += 1;
                let stays_with_its_data = newest.spec.placement.volumes == Some(VolumePlacement::Stay);
                match (newest.status.state, &newest.status.error) {
                    (TaskState::Running, _) => moved += 1,
                    (TaskState::Pending, Some(_)) if stays_with_its_data => moved += 1,
                    (TaskState::Pending, Some(reason)) => {
                        picture.unplaced.insert(name.clone(), reason.clone());
                    }
                    _ => starting += 1,
                }
            }
            picture.left += stay.len() + stop.len();
            picture.moving += stop.len() + starting;
            let wanted = wanted.max(moved);
            picture
                .lines
                .push((name.clone(), line(service, stay.len(), stop.len(), moved, wanted, picture.unplaced.get(name))));
        }
        picture
    }
}

fn line(
    service: Option<&Service>,
    stay: usize,
    stop: usize,
    moved: usize,
    wanted: usize,
    reason: Option<&String>,
) -> String {
    let mut parts = Vec::new();
    if stay > 0 {
        let least = service.map_or(0, |service| service.spec.scheduling.min_available);
        let held = if least > 0 { format!(" (min-available {least})") } else { String::new() };
        parts.push(format!("{stay} to go{held}"));
    }
    if stop > 0 {
        parts.push(format!("{stop} stopping"));
    }
    if wanted > 0 {
        parts.push(format!("{moved}/{wanted} running elsewhere"));
    }
    if parts.is_empty() {
        parts.push("gone from the node".to_owned());
    }
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    parts.join(", ") + &reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::wait::fixture::{service, task};
    use expect_test::{Expect, expect};
    use std::sync::Arc;

    const DRAINED: NodeId = NodeId::from_u128(1);
    const OTHER: NodeId = NodeId::from_u128(2);

    fn check(service: &Service, tasks: &[(u64, NodeId, TaskState, DesiredState)], expected: Expect) {
        let made = tasks.iter().enumerate().map(|(number, (slot, node, state, desired))| {
            let mut task = task("web", *slot, *state);
            task.id = skep_model::TaskId::from_u128(number as u128);
            (task.node, task.desired) = (Some(*node), *desired);
            if *state == TaskState::Pending {
                task.node = None;
                task.status.error = Some("no suitable node (insufficient resources on 1 node)".to_owned());
            }
            task
        });
        let slots = Slots::from([("web".to_owned(), Slot::Replica(1)), ("web".to_owned(), Slot::Replica(2))]);
        let picture = Picture::of(DRAINED, &slots, std::slice::from_ref(service), &made.collect::<Vec<_>>());
        let ended = picture.left == 0 && picture.unplaced.is_empty() && picture.moving == 0;
        let lines = picture.lines.iter().map(|(name, line)| format!("{name}: {line}")).collect::<Vec<_>>().join("\n");
        expected.assert_eq(&format!("{lines}{}", if ended { " | end" } else { "" }));
    }

    #[test]
    fn a_drain_ends_when_all_runs_elsewhere() {
        use DesiredState::{Running as Wanted, Shutdown};
        let mut web = service("web", 2);
        Arc::make_mut(&mut web.spec).scheduling.min_available = 1;
        check(
            &web,
            &[
                (1, DRAINED, TaskState::Running, Shutdown),
                (1, OTHER, TaskState::Starting, Wanted),
                (2, DRAINED, TaskState::Running, Wanted),
            ],
            expect!["web: 1 to go (min-available 1), 1 stopping, 0/1 running elsewhere"],
        );
        check(
            &web,
            &[(1, OTHER, TaskState::Running, Wanted), (2, OTHER, TaskState::Pending, Wanted)],
            expect!["web: 1/2 running elsewhere (no suitable node (insufficient resources on 1 node))"],
        );
        check(
            &web,
            &[
                (1, DRAINED, TaskState::Shutdown, Shutdown),
                (1, OTHER, TaskState::Running, Wanted),
                (2, OTHER, TaskState::Running, Wanted),
            ],
            expect!["web: 2/2 running elsewhere | end"],
        );
    }
}
