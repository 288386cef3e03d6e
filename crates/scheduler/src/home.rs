//! Tasks that stay where their data is.
//!
//! A named volume is a folder of one node. A task whose slot had one before carries that node with it
//! ([`skep_model::Task::home`]), and goes there or waits.

use skep_model::{Availability, Node, NodeState, Placement, TaskSpec, VolumePlacement};

/// Whether a task with these demands waits for this node, its home, rather than to go elsewhere.
pub fn holds(home: &Node, placement: &Placement) -> bool {
    match placement.volumes {
        Some(VolumePlacement::Free) => false,
        Some(VolumePlacement::Stay) => true,
        None => {
            home.status.state != NodeState::Down
                && home.spec.availability != Availability::Drain
                && home.satisfies(&placement.constraints)
        }
    }
}

/// `volume pgdata`, `volumes cache and pgdata`: what keeps a task of this spec on its node.
pub fn words(spec: &TaskSpec) -> String {
    let names = spec.local_volumes();
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        None => "data".to_owned(),
        Some((only, [])) => format!("volume {only}"),
        Some((last, others)) => format!("volumes {} and {last}", others.join(", ")),
    }
}

/// Whether the volumes of such tasks have a say in where they go.
pub fn matters(spec: &TaskSpec) -> bool {
    spec.placement.volumes != Some(VolumePlacement::Free) && !spec.local_volumes().is_empty()
}
