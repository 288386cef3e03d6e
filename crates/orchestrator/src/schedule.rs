//! Schedules of jobs: when the next run is due, and what becomes of one that is.
//!
//! How far the schedule was followed is in the cluster, and a run begins by a change that names the version it was
//! decided on: whoever leads, each time that is due counts once.

use std::time::Duration;

use skep_model::{Change, Concurrency, Cron, Due, Schedule, Service, TimeZone, Timestamp};

use crate::fleet::Fleet;
use crate::{job, restart};

/// A run that no leader began in time is made up for, once, within this long; later ones are left out.
const LATE_MAX: Duration = Duration::from_secs(3600);
/// Later than this is worth a word.
const LATE: Duration = Duration::from_secs(60);

/// Whether a run may begin beside the last one.
pub fn runs_overlap(service: &Service) -> bool {
    service.spec.schedule.as_ref().is_some_and(|schedule| schedule.concurrency == Concurrency::Allow)
}

/// When the next run of a scheduled job is due.
pub fn next_due(service: &Service) -> Option<Timestamp> {
    let (schedule, job) = (service.spec.schedule.as_ref()?, service.job.as_ref()?);
    let (cron, zone) = read(schedule)?;
    cron.next(job.followed_to, &zone)
}

/// `None` for what no manager accepts.
fn read(schedule: &Schedule) -> Option<(Cron, TimeZone)> {
    Some((schedule.cron.parse().ok()?, TimeZone::named(&schedule.timezone).ok()?))
}

/// The change that begins a run that is due, or says why it is left out.
pub fn follow(fleet: &Fleet) -> Option<Change> {
    let service = fleet.service;
    let (schedule, job) = (service.spec.schedule.as_ref()?, service.job.as_ref()?);
    let now = fleet.now;
    let change = |due, outcome, message| {
        Some(Change::FollowSchedule {
            service: service.id,
            expected: service.meta.version,
            due,
            outcome,
            message,
            at: now,
        })
    };
    if restart::lies_ahead(job.followed_to, now) {
        return change(now, Due::Skip, "the clock was set back; the schedule goes on from here".to_owned());
    }
    let (cron, zone) = read(schedule)?;
    let first = cron.next(job.followed_to, &zone).filter(|first| *first <= now)?;
    let recent = Timestamp(now.0.saturating_sub(LATE_MAX.as_nanos() as u64)).max(job.followed_to);
    // At most a run each second of an hour.
    let due = std::iter::successors(cron.next(recent, &zone), |at| cron.next(*at, &zone));
    let Some(due) = due.take_while(|at| *at <= now).last() else {
        let message = format!("the run of {} was missed: no manager led for too long", zone.shown(first));
        return change(now, Due::Skip, message);
    };
    let when = zone.shown(due);
    if schedule.concurrency == Concurrency::Forbid && job::is_busy(fleet) {
        return change(due, Due::Skip, format!("the run of {when} was left out: the one before still goes on"));
    }
    let number = job.iteration + 1;
    let message = match first < due {
        true => format!("run {number}, of {when}; those from {} on were missed", zone.shown(first)),
        false if now.since(due) > LATE => format!("run {number}, of {when}, begun late at {}", zone.shown(now)),
        false => format!("run {number}, of {when}"),
    };
    change(due, Due::Run, message)
}
