//! Feature levels: what managers of two neighbouring versions may write together.
//!
//! Each build has a level, each node tells its own, and the cluster's is the lowest of its managers' — raised by the
//! leader, never lowered. A kind of change or a setting that came with a level is written only once the cluster has
//! that level: then every manager can read it, and a manager of a lower level is refused.

use crate::{Cluster, Node, Placement, Scheduling, ServiceSpec, TaskSpec};

/// This build's level.
///
/// - 0: builds that knew no levels: one manager, nothing else.
/// - 1: several managers, autolock.
/// - 2: the tunnel between nodes.
/// - 3: jobs, order, placement and contents of services beyond Swarm's oldest; IPv6 within networks.
/// - 4: hooks, templates and volumes of services; drivers, balancing and keys of networks; the doctor; a range or port is
///   given once, whoever writes.
pub const FEATURE_LEVEL: u32 = 4;

/// Something that needs every manager to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Managers' keys wrapped by an unlock key.
    Autolock,
    /// Nodes' keys and addresses in the tunnel between them: managers write them, agents are told of them.
    Tunnel,
    /// What a service or network may ask for since level 3: an older manager would lose it.
    Services,
    /// Updates that keep what they can: tasks that live on with other constraints, revisions that know whether they were
    /// completed, moves that stop nothing before the new task is prepared.
    GentleUpdates,
    /// `post_start` and `pre_stop` of services.
    Hooks,
    /// Secrets and configs that are templates: an agent that does not know them would deliver them as they are.
    Templates,
    /// Volumes with options: an older node would put the data into a folder.
    VolumeOptions,
    /// Agents examine themselves and their way to the others; managers pass the question on.
    Doctor,
    /// Networks of other drivers than `overlay`, the host's own, addresses that are kept for one task: an older manager
    /// would make a network over all nodes of each.
    Drivers,
    /// Ranges and ports that two would have are refused when they are written, which all managers must do alike.
    Claims,
    /// A CA that was made elsewhere: older managers read its cluster out of its name.
    GivenCa,
    /// Which task a service's connections lead to: an older manager would lose it.
    Balancing,
    /// Nodes that change their keys in the tunnel by themselves: they are told which one the others know.
    Rekeying,
}

impl Feature {
    /// The level that it came with.
    pub fn level(self) -> u32 {
        match self {
            Feature::Autolock => 1,
            Feature::Tunnel => 2,
            Feature::Services => 3,
            Feature::GentleUpdates
            | Feature::Hooks
            | Feature::Templates
            | Feature::VolumeOptions
            | Feature::Doctor
            | Feature::Drivers
            | Feature::Claims
            | Feature::GivenCa
            | Feature::Balancing
            | Feature::Rekeying => 4,
        }
    }
}

impl Cluster {
    /// The level that all managers are known to have; 0 before the first manager has written one.
    pub fn level(&self) -> u32 {
        self.config.as_ref().map_or(0, |config| config.level)
    }

    /// Whether `feature` may be used.
    pub fn has(&self, feature: Feature) -> bool {
        self.level() >= feature.level()
    }
}

impl ServiceSpec {
    /// What it asks for that came with a feature, by the names in a compose file: an older manager would not keep it.
    pub fn needs(&self) -> Vec<(Feature, &'static str)> {
        let Placement { strategy, affinity, anti_affinity, volumes, .. } = &self.task.placement;
        let Scheduling { priority, min_available, rebalance_on_join } = self.scheduling;
        let asked = [
            (Feature::Services, "deploy.mode: replicated-job or global-job", self.mode.is_job()),
            (Feature::Services, "depends_on", !self.depends_on.is_empty()),
            (
                Feature::Services,
                "deploy.resources.reservations.generic_resources",
                !self.task.resources.generic.is_empty(),
            ),
            (Feature::Services, "x-skep.on-change", self.task.container.on_change.is_some()),
            (Feature::Hooks, "post_start", !self.task.container.post_start.is_empty()),
            (Feature::Hooks, "pre_stop", !self.task.container.pre_stop.is_empty()),
            (Feature::VolumeOptions, "volumes: driver_opts", self.task.container.has_volume_options()),
            (Feature::Services, "x-skep.placement", strategy.is_some()),
            (Feature::Services, "x-skep.affinity", !affinity.is_empty()),
            (Feature::Services, "x-skep.anti-affinity", !anti_affinity.is_empty()),
            (Feature::Services, "x-skep.volume", volumes.is_some()),
            (Feature::Services, "x-skep.priority", priority != 0),
            (Feature::Services, "x-skep.min-available", min_available != 0),
            (Feature::Services, "x-skep.rebalance", rebalance_on_join),
            (Feature::Services, "x-skep.schedule", self.schedule.is_some()),
            (Feature::Drivers, "network_mode: host", self.task.host_network),
            (Feature::Services, "x-skep.progress-deadline", self.progress_deadline.is_some()),
            (Feature::Balancing, "x-skep.session-affinity", self.endpoint.session_affinity.is_some()),
            (Feature::Balancing, "x-skep.prefer-local", self.endpoint.prefer_local),
        ];
        asked.into_iter().filter(|(.., asked)| *asked).map(|(feature, name, _)| (feature, name)).collect()
    }
}

impl TaskSpec {
    /// The level of a node's skep that runs it as it is asked for: an older one would run it without a word, and without
    /// what it does not know.
    pub fn level_of_agent(&self) -> u32 {
        let container = &self.container;
        let asked = [
            (Feature::Hooks, !container.post_start.is_empty() || !container.pre_stop.is_empty()),
            (Feature::Templates, container.has_content_templates()),
            (Feature::VolumeOptions, container.has_volume_options()),
            (Feature::Drivers, self.host_network),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(feature, _)| feature.level()).max().unwrap_or(0)
    }
}

impl Node {
    /// The level of its skep; 0 until it has told one.
    pub fn level(&self) -> u32 {
        self.description.as_ref().map_or(0, |description| description.level)
    }
}
