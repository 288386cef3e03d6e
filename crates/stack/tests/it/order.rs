//! Jobs, schedules, order and deadlines: from the file to the spec, and what is refused with its place.

use std::time::Duration;

use expect_test::{Expect, expect};
use skep_model::{Concurrency, Dependency, DependencyCondition, Mode, Schedule};

use crate::{convert_with, converted};

fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&convert_with(text, &[]).unwrap_err());
}

#[test]
fn replicas_of_a_job_are_its_completions() {
    let spec = converted("services: {j: {image: x, deploy: {mode: replicated-job, replicas: 5}}}").spec;
    assert_eq!(spec.services[0].mode, Mode::ReplicatedJob { max_concurrent: 5, total_completions: 5 });
    let spec = converted("services: {j: {image: x, deploy: {mode: global-job}}}").spec;
    assert_eq!(spec.services[0].mode, Mode::GlobalJob);
}

#[test]
fn what_has_a_schedule_is_a_job() {
    let text =
        "services: {j: {image: x, x-skep: {schedule: '0 3 * * *', timezone: Europe/Berlin, concurrency: replace}}}";
    let service = &converted(text).spec.services[0];
    assert_eq!(service.mode, Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 });
    let expected = Schedule {
        cron: "0 3 * * *".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        concurrency: Concurrency::Replace,
    };
    assert_eq!(service.schedule, Some(expected));
}

#[test]
fn dependencies_have_the_names_of_the_cluster() {
    let text = "services:\n  web: {image: x, depends_on: {db: {condition: service_healthy, restart: true}}}\n  db: {image: y}\n  late: {image: z, depends_on: [db]}\n";
    let conversion = converted(text);
    assert!(conversion.warnings.is_empty(), "{:?}", conversion.warnings);
    let of =
        |name: &str| conversion.spec.services.iter().find(|service| service.name == name).unwrap().depends_on.clone();
    let on_db = |condition, restart| Dependency { service: "st_db".to_owned(), condition, required: true, restart };
    assert_eq!(of("st_web"), [on_db(DependencyCondition::Healthy, true)]);
    assert_eq!(of("st_late"), [on_db(DependencyCondition::Started, false)]);
}

#[test]
fn a_deadline_is_the_services() {
    let text = "services: {a: {image: x, x-skep: {progress-deadline: 90s}}}";
    assert_eq!(converted(text).spec.services[0].progress_deadline, Some(Duration::from_secs(90)));
}

#[test]
fn what_cannot_be_is_refused_where_it_stands() {
    refused(
        "services: {j: {image: x, x-skep: {schedule: '0 25 * * *'}}}",
        expect![[r#"
        compose.yml:1:45: error: services.j.x-skep.schedule: `25` is no hour; it must be 0-23
            1 | services: {j: {image: x, x-skep: {schedule: '0 25 * * *'}}}
              |                                             ^^^^^^^^^^^^
        "#]],
    );
    refused(
        "services: {j: {image: x, x-skep: {schedule: '@daily', timezone: Berlin}}}",
        expect![[r#"
        compose.yml:1:65: error: services.j.x-skep.timezone: time zone `Berlin` is not known; did you mean Europe/Berlin?
            1 | services: {j: {image: x, x-skep: {schedule: '@daily', timezone: Berlin}}}
              |                                                                 ^^^^^^
        "#]],
    );
    refused(
        "services: {j: {image: x, x-skep: {timezone: Europe/Berlin}}}",
        expect![[r#"
        compose.yml:1:45: error: services.j.x-skep.timezone has no meaning without x-skep.schedule
            1 | services: {j: {image: x, x-skep: {timezone: Europe/Berlin}}}
              |                                             ^^^^^^^^^^^^^
        "#]],
    );
    refused(
        "services: {j: {image: x, deploy: {mode: global}, x-skep: {schedule: '@daily', concurrency: allow}}}",
        expect![[r#"
            compose.yml:1:92: error: services.j.x-skep.concurrency: a node has one task of a global job at a time
                1 | : {mode: global}, x-skep: {schedule: '@daily', concurrency: allow}}}
                  |                                                             ^^^^^
                   help: use concurrency: forbid or replace, or deploy: {mode: replicated-job}
        "#]],
    );
    refused(
        "services: {j: {image: x, deploy: {mode: replicated-job, update_config: {parallelism: 2}}}}",
        expect![[r#"
            compose.yml:1:72: error: services.j.deploy.update_config: jobs may not have one
                1 | services: {j: {image: x, deploy: {mode: replicated-job, update_config: {parallelism: 2}}}}
                  |                                                                        ^
                   help: a job whose file changes runs again: remove it
        "#]],
    );
    refused(
        "services: {a: {image: x, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: y}}",
        expect![[r#"
            compose.yml:1:39: error: services.a.depends_on.b waits for b to complete, which is restarted whenever it ends
                1 | services: {a: {image: x, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: y}}
                  |                                       ^
                   help: write condition: service_healthy, or make it a job: deploy: {mode: replicated-job}
        "#]],
    );
    refused(
        "services: {a: {image: x, x-skep: {progress-deadline: 0s}}}",
        expect![[r#"
        compose.yml:1:54: error: services.a.x-skep.progress-deadline must be above 0
            1 | services: {a: {image: x, x-skep: {progress-deadline: 0s}}}
              |                                                      ^^
               help: 10m is the default
        "#]],
    );
}
