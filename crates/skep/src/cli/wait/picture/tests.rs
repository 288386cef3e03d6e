//! Services at one moment, and what is told of them.

use std::sync::Arc;

use super::*;
use crate::cli::wait::fixture::{service, task};
use expect_test::{Expect, expect};
use skep_model::{Concurrency, JobStatus, Schedule, UpdateStatus};

fn check(service: &Service, tasks: &[Task], expected: Expect) {
    let tasks: Vec<Task> = tasks.iter().enumerate().map(|(number, task)| numbered(task, number)).collect();
    let picture = Picture::of(std::slice::from_ref(service), &tasks, Version(5), &BTreeSet::new());
    let mut text = picture.lines.iter().map(|(name, line)| format!("{name}: {line}\n")).collect::<String>();
    let told = picture.troubles.iter().map(|trouble| ("trouble", trouble));
    for (kind, trouble) in told.chain(picture.unplaced.iter().map(|trouble| ("unplaced", trouble))) {
        text.push_str(&format!("{kind} {}: {} {}\n", trouble.code, trouble.service, trouble.what));
    }
    text.push_str(if picture.settled { "settled" } else { "moving" });
    expected.assert_eq(&text);
}

/// Later in the list is newer.
fn numbered(task: &Task, number: usize) -> Task {
    let mut task = task.clone();
    task.id = TaskId::from_u128(number as u128);
    task.meta.created_at = Timestamp(number as u64);
    task
}

fn ended(number: u64, state: TaskState, error: &str) -> Task {
    let mut task = task("web", number, state);
    task.desired = DesiredState::Shutdown;
    task.status.error = Some(error.to_owned());
    task
}

#[test]
fn all_slots_running_is_settled_and_less_is_not() {
    let web = service("web", 2);
    let one = task("web", 1, TaskState::Running);
    check(
        &web,
        &[],
        expect![[r#"
        web: 0/2 running
        moving"#]],
    );
    check(
        &web,
        &[one.clone(), task("web", 2, TaskState::Preparing)],
        expect![[r#"
        web: 1/2 running, 1 preparing
        moving"#]],
    );
    check(
        &web,
        &[one, task("web", 2, TaskState::Running)],
        expect![[r#"
        web: 2/2 running
        settled"#]],
    );
}

#[test]
fn one_failure_is_restarted_and_the_third_is_trouble() {
    let web = service("web", 1);
    let failed = || ended(1, TaskState::Failed, "task: non-zero exit (1)");
    let next = || task("web", 1, TaskState::Ready);
    check(
        &web,
        &[failed(), next()],
        expect![[r#"
        web: 0/1 running, 1 ready (task: non-zero exit (1))
        moving"#]],
    );
    check(
        &web,
        &[failed(), failed(), failed(), next()],
        expect![[r#"
        web: 0/1 running, 1 failing (task: non-zero exit (1))
        trouble 1: web keeps failing
        moving"#]],
    );
    check(
        &web,
        &[failed(), failed(), failed(), task("web", 1, TaskState::Running)],
        expect![[r#"
        web: 1/1 running
        settled"#]],
    );
}

#[test]
fn a_policy_without_restart_is_content_with_completion_only() {
    let mut once = service("once", 1);
    let mut complete = task("once", 1, TaskState::Complete);
    Arc::make_mut(&mut complete.spec).restart.condition = Condition::None;
    Arc::make_mut(&mut once.spec).task = (*complete.spec).clone();
    check(
        &once,
        std::slice::from_ref(&complete),
        expect![[r#"
        once: 0/1 running, 1 complete
        settled"#]],
    );
    complete.status.state = TaskState::Failed;
    complete.status.error = Some("task: non-zero exit (3)".to_owned());
    check(
        &once,
        &[complete],
        expect![[r#"
        once: 0/1 running, 1 failing (task: non-zero exit (3))
        trouble 1: once failed, and its restart policy ends here
        moving"#]],
    );
}

#[test]
fn what_no_node_fits_and_what_a_registry_lacks() {
    let web = service("web", 1);
    let mut pending = task("web", 1, TaskState::Pending);
    pending.status.error = Some("no suitable node (1 node does not satisfy the constraints)".to_owned());
    check(
        &web,
        &[pending],
        expect![[r#"
        web: 0/1 running, 1 pending (no suitable node (1 node does not satisfy the constraints))
        unplaced 2: web cannot be placed: no suitable node (1 node does not satisfy the constraints)
        moving"#]],
    );
    let rejected = || ended(1, TaskState::Rejected, "no such image: nginx:9");
    check(
        &web,
        &[rejected(), rejected()],
        expect![[r#"
        web: 0/1 running, 1 failing (no such image: nginx:9)
        trouble 1: web keeps failing
        moving"#]],
    );
}

#[test]
fn updates_are_waited_for_and_their_ends_are_told_apart() {
    let mut web = service("web", 1);
    let mut old = task("web", 1, TaskState::Running);
    web.spec_version = Version(5);
    Arc::make_mut(&mut old.spec).container.image = "old".to_owned();
    let new = || Task { spec_version: Version(5), ..task("web", 1, TaskState::Running) };
    check(
        &web,
        std::slice::from_ref(&old),
        expect![[r#"
        web: 0/1 running, 1 to be updated
        moving"#]],
    );
    let mut status = |state, version| {
        let message = "of task 7".to_owned();
        web.update_status =
            Some(UpdateStatus { state, started_at: Timestamp(0), completed_at: None, message, progress: None });
        web.spec_version = Version(version);
        web.clone()
    };
    check(
        &status(UpdateState::Updating, 5),
        &[new()],
        expect![[r#"
        web: 1/1 running, watched for failures
        moving"#]],
    );
    check(
        &status(UpdateState::Completed, 5),
        &[new()],
        expect![[r#"
        web: 1/1 running
        settled"#]],
    );
    check(
        &status(UpdateState::Paused, 5),
        &[new()],
        expect![[r#"
        web: 1/1 running
        trouble 1: web was not updated: of task 7
        settled"#]],
    );
    // A rollback of an earlier deploy is not this one's.
    check(
        &status(UpdateState::RollbackCompleted, 5),
        &[new()],
        expect![[r#"
        web: 1/1 running
        settled"#]],
    );
    check(
        &status(UpdateState::RollbackCompleted, 6),
        &[new()],
        expect![[r#"
        web: 1/1 running
        trouble 3: web was rolled back (of task 7)
        settled"#]],
    );
    check(
        &status(UpdateState::RollbackPaused, 5),
        &[new()],
        expect![[r#"
            web: 1/1 running
            trouble 1: web was not rolled back: of task 7
            settled"#]],
    );
    check(
        &status(UpdateState::RollbackPaused, 6),
        &[new()],
        expect![[r#"
            web: 1/1 running
            trouble 1: web was not updated, and going back failed too: of task 7
            settled"#]],
    );
    // One that somebody asked for is no failure, whenever it was.
    let mut asked = status(UpdateState::RollbackCompleted, 6);
    asked.update_status.as_mut().unwrap().message = format!("{} completed", UpdateStatus::ASKED_FOR);
    check(
        &asked,
        &[new()],
        expect![[r#"
            web: 1/1 running
            settled"#]],
    );
}

#[test]
fn a_job_is_settled_by_its_completions_and_a_schedule_at_once() {
    let mut job = service("j", 2);
    Arc::make_mut(&mut job.spec).mode = Mode::ReplicatedJob { max_concurrent: 2, total_completions: 2 };
    job.job = Some(JobStatus { iteration: 2, ..JobStatus::default() });
    let of_run = |number, state, run| Task { iteration: Some(run), ..task("j", number, state) };
    let earlier = of_run(1, TaskState::Failed, 1);
    let first = of_run(1, TaskState::Complete, 2);
    check(
        &job,
        &[earlier.clone(), first.clone(), of_run(2, TaskState::Running, 2)],
        expect![[r#"
            j: 1/2 completed, 1 running
            moving"#]],
    );
    check(
        &job,
        &[earlier, first, of_run(2, TaskState::Complete, 2)],
        expect![[r#"
        j: 2/2 completed
        settled"#]],
    );
    let schedule = Schedule { cron: "@daily".to_owned(), timezone: String::new(), concurrency: Concurrency::Forbid };
    Arc::make_mut(&mut job.spec).schedule = Some(schedule);
    job.job = Some(JobStatus::default());
    check(
        &job,
        &[],
        expect![[r#"
        j: runs by its schedule
        settled"#]],
    );
}

#[test]
fn what_waits_for_another_service_says_so_and_is_no_trouble() {
    let web = service("web", 1);
    let mut waits = task("web", 1, TaskState::New);
    (waits.node, waits.status.error) = (None, Some("waits for db to be healthy".to_owned()));
    check(
        &web,
        &[waits],
        expect![[r#"
        web: 0/1 running, 1 waiting (waits for db to be healthy)
        moving"#]],
    );
}

#[test]
fn a_task_that_waits_for_the_one_before_it_to_make_room_is_not_lost() {
    let web = service("web", 1);
    let mut old = task("web", 1, TaskState::Running);
    old.desired = DesiredState::Shutdown;
    let mut new = task("web", 1, TaskState::Pending);
    (new.node, new.status.error) =
        (None, Some("no suitable node (host-mode port already in use on 1 node)".to_owned()));
    check(
        &web,
        &[old, new],
        expect![[r#"
        web: 0/1 running, 1 pending
        moving"#]],
    );
}
