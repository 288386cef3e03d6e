//! A job's runs, as changes count them.

use std::sync::Arc;

use skep_model::*;

use crate::{AT, service_spec};

fn job(schedule: Option<Schedule>) -> (Cluster, ServiceId) {
    let mut cluster = Cluster::default();
    let spec = ServiceSpec {
        mode: Mode::ReplicatedJob { max_concurrent: 1, total_completions: 2 },
        schedule,
        ..service_spec("job")
    };
    let id = ServiceId::from_u128(7);
    let service = Service::new(id, spec, AT);
    cluster.apply(&Change::CreateService { service: Box::new(service) }, 1).unwrap();
    (cluster, id)
}

fn update(cluster: &mut Cluster, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
    let service = &cluster.services[&id];
    let mut spec = (*service.spec).clone();
    edit(&mut spec);
    let (expected, spec) = (service.meta.version, Arc::new(spec));
    let index = cluster.version.0 + 1;
    cluster.apply(&Change::UpdateService { service: id, expected, spec, at: AT }, index).unwrap();
}

#[test]
fn a_new_spec_runs_a_job_again_and_another_size_does_not() {
    let (mut cluster, id) = job(None);
    let run = |cluster: &Cluster| cluster.services[&id].job.as_ref().unwrap().iteration;
    assert_eq!(run(&cluster), 1);
    update(&mut cluster, id, |spec| spec.mode = Mode::ReplicatedJob { max_concurrent: 3, total_completions: 3 });
    assert_eq!(run(&cluster), 1);
    update(&mut cluster, id, |spec| spec.task.force_update += 1);
    assert_eq!(run(&cluster), 2);
    update(&mut cluster, id, |_| {});
    assert_eq!(run(&cluster), 2, "the same spec is no change");
}

#[test]
fn a_schedule_counts_each_time_once() {
    let schedule = Schedule { cron: "@daily".to_owned(), timezone: String::new(), concurrency: Concurrency::Forbid };
    let (mut cluster, id) = job(Some(schedule));
    assert_eq!(cluster.services[&id].job.as_ref().unwrap().iteration, 0);
    let expected = cluster.services[&id].meta.version;
    let due = AT.after(std::time::Duration::from_secs(60));
    let follow = |outcome, expected| Change::FollowSchedule {
        service: id,
        expected,
        due,
        outcome,
        message: "run 1".to_owned(),
        at: due,
    };
    cluster.apply(&follow(Due::Run, expected), 2).unwrap();
    assert!(cluster.apply(&follow(Due::Run, expected), 3).is_err(), "two leaders do not begin one run twice");
    let status = cluster.services[&id].job.clone().unwrap();
    assert_eq!((status.iteration, status.followed_to, status.last_execution), (1, due, due));
    cluster.apply(&follow(Due::Skip, cluster.services[&id].meta.version), 3).unwrap();
    assert_eq!(cluster.services[&id].job.as_ref().unwrap().iteration, 1);
}

#[test]
fn jobs_and_order_are_refused_in_words() {
    let words = |edit: &dyn Fn(&mut ServiceSpec)| {
        let mut spec = service_spec("job");
        edit(&mut spec);
        spec.validate().unwrap_err().to_string()
    };
    let job = |spec: &mut ServiceSpec| spec.mode = Mode::GlobalJob;
    let schedule = |cron: &str, zone: &str, concurrency| {
        Some(Schedule { cron: cron.to_owned(), timezone: zone.to_owned(), concurrency })
    };
    assert_eq!(
        words(&|spec| {
            job(spec);
            spec.update.parallelism = 2;
        }),
        "service job: jobs may not have an update config"
    );
    assert!(words(&|spec| spec.schedule = schedule("@daily", "", Concurrency::Forbid)).contains("only a job"));
    for (cron, zone, concurrency, part) in [
        ("0 25 * * *", "", Concurrency::Forbid, "`25` is no hour"),
        ("@daily", "Berlin", Concurrency::Forbid, "did you mean Europe/Berlin?"),
        ("@daily", "", Concurrency::Allow, "one task of a global job"),
    ] {
        let told = words(&|spec| {
            job(spec);
            spec.schedule = schedule(cron, zone, concurrency);
        });
        assert!(told.contains(part), "{told}");
    }
    let itself = Dependency {
        service: "JOB".to_owned(),
        condition: DependencyCondition::Started,
        required: true,
        restart: false,
    };
    assert_eq!(words(&|spec| spec.depends_on.push(itself.clone())), "service job: it depends on itself");
}
