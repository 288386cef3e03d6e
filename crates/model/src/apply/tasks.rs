//! Changes of tasks: made, placed, wanted, reported.
//!
//! States and wishes only move forward, and no wish is taken that could run a second container of an at-most-one slot.

use std::sync::Arc;

use super::{already_exists, backwards, in_use, not_found};
use crate::change::Kind;
use crate::{
    Cluster, DesiredState, Feature, GenericResource, NodeId, Rejection, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Timestamp, Version, lease,
};

impl Cluster {
    pub(super) fn create_task(&mut self, task: &Task, version: Version) -> Result<(), Rejection> {
        if self.tasks.contains_key(&task.id) {
            return Err(already_exists(Kind::Task, &task.id));
        }
        if !self.services.contains_key(&task.service) {
            return Err(not_found(Kind::Service, &task.service));
        }
        if task.desired == DesiredState::Running {
            self.check_slot_is_free(task)?;
        }
        let mut task = task.clone();
        task.meta.version = version;
        // A service's thousand tasks have one spec in memory, as they have where they were made.
        if let Some(sibling) = self.tasks_of_service(task.service).next_back().filter(|it| it.spec == task.spec) {
            task.spec = Arc::clone(&sibling.spec);
        }
        self.index.tasks_of_service.insert((task.service, task.id));
        if let Some(node) = task.node {
            self.index.tasks_of_node.insert((node, task.id));
        }
        self.tasks.insert(task.id, Arc::new(task));
        Ok(())
    }

    /// The last word on at-most-one, whoever decided on how old a state.
    fn check_slot_is_free(&self, task: &Task) -> Result<(), Rejection> {
        match lease::held_up_by(self, task) {
            Some(holder) => Err(in_use(Kind::Task, &task.name(), format!("task {}, which may still run", holder.id))),
            None => Ok(()),
        }
    }

    pub(super) fn set_task_pending(
        &mut self,
        id: TaskId,
        reason: &Option<String>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let task = self.task_mut(id)?;
        if task.status.state > TaskState::Pending {
            return Err(backwards(task, TaskState::Pending.word()));
        }
        let mut status = TaskStatus::new(TaskState::Pending, at, "pending task scheduling");
        status.error.clone_from(reason);
        task.status = status;
        task.meta.version = version;
        Ok(())
    }

    pub(super) fn set_task_waiting(
        &mut self,
        id: TaskId,
        reason: &str,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let task = self.task_mut(id)?;
        if task.status.state > TaskState::New {
            return Err(backwards(task, TaskState::New.word()));
        }
        task.status = TaskStatus::waiting(reason.to_owned(), at);
        task.meta.version = version;
        Ok(())
    }

    pub(super) fn assign_task(
        &mut self,
        id: TaskId,
        node: NodeId,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        if !self.nodes.contains_key(&node) {
            return Err(not_found(Kind::Node, &node));
        }
        let generic = self.generic_for(id, node)?;
        let task = self.task_mut(id)?;
        // One that is to stop has nothing to do anywhere, and whoever waits for its slot counts on that.
        if task.status.state != TaskState::Pending || task.desired > DesiredState::Running {
            return Err(backwards(task, TaskState::Assigned.word()));
        }
        let before = task.node.replace(node);
        task.generic = generic;
        task.status = TaskStatus::new(TaskState::Assigned, at, "scheduler assigned task to node");
        task.meta.version = version;
        if let Some(before) = before {
            self.index.tasks_of_node.remove(&(before, id));
        }
        self.index.tasks_of_node.insert((node, id));
        Ok(())
    }

    /// What a task is given of a node's generic resources: the first that no other task there has.
    ///
    /// Chosen here, as every manager applies the same assignments in the same order.
    fn generic_for(&self, id: TaskId, node: NodeId) -> Result<Vec<GenericResource>, Rejection> {
        let Some(task) = self.tasks.get(&id).filter(|task| !task.spec.resources.generic.is_empty()) else {
            return Ok(Vec::new());
        };
        let free = self.free_generic(node);
        let wanted = task.spec.resources.generic.iter();
        wanted
            .map(|wanted| {
                let taken = || Rejection::Taken {
                    what: format!("{} {} of node {node}", wanted.amount, wanted.kind),
                    by: "its other tasks".to_owned(),
                };
                let have = free.iter().find(|have| have.kind == wanted.kind && have.amount >= wanted.amount);
                let have = have.ok_or_else(taken)?;
                let count = usize::try_from(wanted.amount).unwrap_or(usize::MAX);
                let ids = have.ids.iter().take(count).cloned().collect();
                Ok(GenericResource { kind: wanted.kind.clone(), amount: wanted.amount, ids })
            })
            .collect()
    }

    pub(super) fn set_task_desired(
        &mut self,
        id: TaskId,
        desired: DesiredState,
        reason: &Option<String>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        if desired == DesiredState::Running
            && let Some(task) = self.tasks.get(&id)
        {
            self.check_slot_is_free(task)?;
        }
        let notes = self.has(Feature::Services);
        let task = self.task_mut(id)?;
        if desired < task.desired {
            return Err(backwards(task, desired.word()));
        }
        if desired != task.desired {
            task.withdrawn |= notes && task.desired == DesiredState::Ready && desired > DesiredState::Running;
            task.desired = desired;
            if reason.is_some() {
                task.stop_reason.clone_from(reason);
            }
            (task.meta.version, task.meta.updated_at) = (version, at);
        }
        Ok(())
    }

    pub(super) fn report_task(
        &mut self,
        id: TaskId,
        node: NodeId,
        status: &TaskStatus,
        version: Version,
    ) -> Result<(), Rejection> {
        let notes = self.has(Feature::Services);
        let task = self.task_mut(id)?;
        if task.node != Some(node) {
            return Err(not_found(Kind::Task, &id));
        }
        if status.state < task.status.state || (task.status.state.is_terminal() && status.state != task.status.state) {
            return Err(backwards(task, status.state.word()));
        }
        if notes && status.state == TaskState::Running && task.running_since.is_none() {
            task.running_since = Some(status.at);
        }
        task.status = status.clone();
        task.meta.version = version;
        Ok(())
    }

    pub(super) fn refresh_task(
        &mut self,
        id: TaskId,
        spec: &Arc<TaskSpec>,
        spec_version: Version,
        version: Version,
    ) -> Result<(), Rejection> {
        let task = self.task_mut(id)?;
        // Its container is what its old spec says: only files of it can be other ones, and what was asked of its node.
        if task.status.state.is_terminal() || !task.spec.lives_on_as(spec) {
            return Err(backwards(task, "refreshed"));
        }
        (task.spec, task.spec_version, task.meta.version) = (Arc::clone(spec), spec_version, version);
        Ok(())
    }
}
