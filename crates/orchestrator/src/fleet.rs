//! The working picture of one service while its changes are decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{
    Change, Cluster, DesiredState, Feature, IdSource, Labels, Meta, NodeId, NodeState, Service, Slot, Task, TaskId,
    TaskSpec, TaskState, TaskStatus, Timestamp, VolumePlacement, lease,
};

use crate::slot::SlotTasks;
use crate::{allocator, newest_first, order};

/// One service, its slots, and the changes decided so far.
///
/// A decision is taken into the picture at once, so that a later step does not decide it again.
pub struct Fleet<'a> {
    pub cluster: &'a Cluster,
    pub service: &'a Arc<Service>,
    pub now: Timestamp,
    pub slots: BTreeMap<Slot, SlotTasks>,
    pub changes: Vec<Change>,
    /// What new tasks run, made with the first of them: a thousand tasks have one.
    task_spec: Option<Arc<TaskSpec>>,
    ids: &'a mut IdSource,
}

impl<'a> Fleet<'a> {
    pub fn new(cluster: &'a Cluster, service: &'a Arc<Service>, now: Timestamp, ids: &'a mut IdSource) -> Self {
        let mut slots: BTreeMap<Slot, SlotTasks> = BTreeMap::new();
        for task in cluster.tasks_of_service(service.id) {
            slots.entry(task.slot).or_default().tasks.push(Arc::clone(task));
        }
        for slot in slots.values_mut() {
            slot.tasks.sort_by(|a, b| newest_first(a, b));
        }
        Self { cluster, service, now, slots, changes: Vec::new(), task_spec: None, ids }
    }

    /// Makes a task of the service's present spec.
    pub fn create(&mut self, slot: Slot, desired: DesiredState, not_before: Option<Timestamp>, failures_before: u32) {
        let spec = &self.service.spec;
        let waits_for = order::unmet_before(self, slot);
        // Its image is pulled while it waits for the slot.
        let waits = desired == DesiredState::Running && spec.task.at_most_one && self.may_still_run(slot, None);
        let (desired, not_before) = if waits { (DesiredState::Ready, Some(self.now)) } else { (desired, not_before) };
        // A network that a service uses cannot be removed; should one be missing all the same, the slot
        // stays empty and the next round asks again.
        let Ok(networks) = allocator::resolve_networks(self.cluster, &spec.task) else { return };
        let created_at = self.creation_time(slot);
        let home = self.home_of(slot);
        let task = Task {
            id: self.ids.next_id(),
            meta: Meta::new(created_at),
            service: self.service.id,
            service_name: spec.name.clone(),
            slot,
            spec: self.task_spec(),
            spec_version: self.service.spec_version,
            networks,
            host_ports: allocator::host_ports(self.service),
            node: None,
            desired,
            status: match waits_for {
                None => TaskStatus::new(TaskState::Pending, self.now, "pending task scheduling"),
                Some(reason) => TaskStatus::waiting(reason, self.now),
            },
            not_before,
            failures_before,
            iteration: self.service.job.as_ref().map(|job| job.iteration),
            running_since: None,
            withdrawn: false,
            generic: Vec::new(),
            stop_reason: None,
            home,
            service_labels: self.labels_for_templates(),
        };
        self.add(slot, task);
    }

    /// Most tasks have no use for them.
    fn labels_for_templates(&self) -> Labels {
        let spec = &self.service.spec;
        let asked = self.cluster.has(Feature::Templates) && spec.task.container.has_templates();
        if asked { spec.labels.clone() } else { Labels::new() }
    }

    /// Makes a task of the spec that `ended` had, to go on in its slot.
    ///
    /// While an update is paused, what ends for other reasons is not updated on the way.
    pub fn create_again(&mut self, ended: &Task, desired: DesiredState, not_before: Option<Timestamp>, failures: u32) {
        let created_at = self.creation_time(ended.slot);
        let waits = desired == DesiredState::Running && ended.spec.at_most_one && self.may_still_run(ended.slot, None);
        let (desired, not_before) = if waits { (DesiredState::Ready, Some(self.now)) } else { (desired, not_before) };
        let task = Task {
            id: self.ids.next_id(),
            meta: Meta::new(created_at),
            node: None,
            desired,
            status: TaskStatus::new(TaskState::Pending, self.now, "pending task scheduling"),
            not_before,
            failures_before: failures,
            running_since: None,
            withdrawn: false,
            generic: Vec::new(),
            stop_reason: None,
            home: self.home_of(ended.slot),
            ..ended.clone()
        };
        self.add(ended.slot, task);
    }

    /// Tasks of a slot are ordered by their creation, also where two are made at one time.
    fn creation_time(&self, slot: Slot) -> Timestamp {
        let newest = self.slots.get(&slot).and_then(|slot| slot.newest()).map(|task| task.meta.created_at);
        newest.map_or(self.now, |newest| self.now.max(Timestamp(newest.0 + 1)))
    }

    fn add(&mut self, slot: Slot, task: Task) {
        self.slots.entry(slot).or_default().tasks.insert(0, Arc::new(task.clone()));
        self.changes.push(Change::CreateTask { task: Box::new(task) });
    }

    /// What tasks of the service's present spec run.
    pub fn task_spec(&mut self) -> Arc<TaskSpec> {
        Arc::clone(self.task_spec.get_or_insert_with(|| Arc::new(self.service.spec.task.clone())))
    }

    /// The node that has the data of the slot's named volumes: the one where it was last, if that used one of them.
    fn home_of(&self, slot: Slot) -> Option<NodeId> {
        let spec = &self.service.spec.task;
        let wanted = spec.local_volumes();
        let ignores = wanted.is_empty() || spec.placement.volumes == Some(VolumePlacement::Free);
        if ignores || matches!(slot, Slot::Node(_)) || !self.cluster.has(Feature::Services) {
            return None;
        }
        let used = |task: &Task| {
            // One that was rejected never had its volumes made; where it was to find them it knew itself.
            let node = task.node.filter(|_| task.status.state != TaskState::Rejected);
            node.filter(|_| !task.spec.local_volumes().is_disjoint(&wanted))
        };
        self.slots.get(&slot)?.tasks.iter().find_map(|task| used(task).or(task.home))
    }

    /// Whether a task of the slot, `beside` aside, may still run: what [`lease::held_up_by`] says, on this picture.
    pub fn may_still_run(&self, slot: Slot, beside: Option<TaskId>) -> bool {
        let own = self.slots.get(&slot).is_some_and(|slot| slot.may_still_run(beside));
        let name = &self.service.spec.name;
        let left = |task: &Task| {
            task.service != self.service.id && task.slot == slot && task.service_name == *name && lease::may_run(task)
        };
        own || self.cluster.tasks.values().any(|task| left(task))
    }

    /// Wants `desired` of a task; nothing when it is wanted already or the task would go back.
    pub fn want(&mut self, task: &Task, desired: DesiredState) {
        self.want_because(task, desired, None);
    }

    /// As [`Self::want`], with what is to be said of it to who looks at the task later.
    pub fn want_because(&mut self, task: &Task, desired: DesiredState, reason: Option<String>) {
        if task.desired >= desired {
            return;
        }
        let slot = self.slots.entry(task.slot).or_default();
        let notes = self.cluster.has(Feature::Services);
        for known in slot.tasks.iter_mut().filter(|known| known.id == task.id) {
            let known = Arc::make_mut(known);
            known.withdrawn |= notes && known.desired == DesiredState::Ready && desired > DesiredState::Running;
            known.desired = desired;
        }
        let reason = reason.filter(|_| self.cluster.has(Feature::Services));
        self.changes.push(Change::SetTaskDesired { task: task.id, desired, at: self.now, reason });
    }

    /// Wants a slot gone: all of its tasks are to stop and be forgotten.
    pub fn abandon(&mut self, slot: Slot) {
        let tasks = self.slots.get(&slot).map(|slot| slot.tasks.clone()).unwrap_or_default();
        for task in tasks {
            self.want(&task, DesiredState::Remove);
        }
    }

    /// Whether the node can be counted on to run the tasks that it has.
    pub fn node_is_up(&self, node: NodeId) -> bool {
        self.cluster.nodes.get(&node).is_some_and(|node| node.status.state != NodeState::Down)
    }
}
