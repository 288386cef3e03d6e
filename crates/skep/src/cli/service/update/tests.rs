//! A service, a command line, and what becomes of the service.

use super::*;
use clap::Parser;
use skep_model::{HealthTest, Mode, PublishMode};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(line: &str) -> Result<Options> {
    let words = words(line).map_err(anyhow::Error::msg)?;
    let line = std::iter::once("update".to_owned()).chain(words).chain(["web".to_owned()]);
    Ok(Line::try_parse_from(line)?.options)
}

fn edited(spec: &ServiceSpec, line: &str) -> Result<ServiceSpec> {
    let options = options(line)?;
    let lists = options.lists.lists(|_| None)?;
    options.edited(&lists, spec.clone())
}

fn web() -> ServiceSpec {
    ServiceSpec::new("web", "nginx:1@sha256:aa")
}

/// Applies the lines one after the other.
fn after(lines: &[&str]) -> ServiceSpec {
    lines.iter().fold(web(), |spec, line| edited(&spec, line).unwrap_or_else(|problem| panic!("{line}: {problem}")))
}

#[test]
fn nothing_asked_is_nothing_changed() {
    assert_eq!(after(&[""]), web());
}

#[test]
fn removals_come_before_additions_and_additions_replace() {
    let env = |lines: &[&str]| after(lines).task.container.env;
    assert_eq!(env(&["--env-add A=1 --env-add B=2", "--env-rm A --env-add B=3 --env-add C=4"]), ["B=3", "C=4"]);
    assert_eq!(env(&["--env-add A=1", "--env-rm A --env-add A=2"]), ["A=2"]);
    let labels = after(&["--label-add a=1 --label-add b=2", "--label-rm a --label-add b=3"]).labels;
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "3".to_owned())]);
    let mounts = after(&[
        "--mount-add source=x,target=/a --mount-add source=y,target=/b",
        "--mount-rm /a --mount-add type=tmpfs,target=/b",
    ]);
    assert_eq!(mounts.task.container.mounts.len(), 1);
    assert!(matches!(mounts.task.container.mounts[0].kind, skep_model::MountKind::Tmpfs { .. }));
    let secrets = after(&["--secret-add a --secret-add source=a,target=/x", "--secret-rm a --secret-add b"]);
    let names: Vec<_> = secrets.task.container.secrets.iter().map(|secret| secret.secret.as_str()).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn what_is_not_there_cannot_be_missed() {
    let line = "--env-rm A --label-rm b --mount-rm /c --secret-rm d --config-rm e --publish-rm 80 --network-rm f \
                --constraint-rm node.role==worker --host-rm g --dns-rm 1.1.1.1 --ulimit-rm core --sysctl-rm h --group-rm i \
                --container-label-rm j --placement-pref-rm spread=node.labels.k --dns-search-rm l --dns-option-rm m";
    let spec = edited(&web(), line).unwrap();
    assert_eq!(ServiceSpec { task: web().task, ..spec.clone() }, web());
    assert_eq!(spec.task.container, web().task.container);
}

#[test]
fn ports_are_removed_by_the_containers_port() {
    let ports = |lines: &[&str]| -> Vec<(u16, u16)> {
        after(lines).endpoint.ports.iter().map(|port| (port.published, port.target)).collect()
    };
    let both = "--publish-add 8080:80 --publish-add 8081:81";
    assert_eq!(ports(&[both, "--publish-rm 80"]), [(8081, 81)]);
    assert_eq!(ports(&[both, "--publish-rm 80 --publish-add 9090:80"]), [(8081, 81), (9090, 80)]);
    assert_eq!(ports(&[both, "--publish-rm 80/udp"]), [(8080, 80), (8081, 81)]);
    assert_eq!(ports(&[both, "--publish-rm 9999:80"]), [(8080, 80), (8081, 81)]);
    assert_eq!(ports(&[both, "--publish-rm 8080-8081:80-81"]), []);
    assert_eq!(ports(&[both, both]), [(8080, 80), (8081, 81)]);
    let host = "--publish-add target=80,published=8080,mode=host";
    assert_eq!(ports(&[host, "--publish-rm target=80,mode=ingress"]), [(8080, 80)]);
    assert_eq!(ports(&[host, "--publish-rm 80"]), []);
    assert_eq!(after(&[host]).endpoint.ports[0].mode, PublishMode::Host);
}

#[test]
fn capabilities_are_added_or_dropped_but_never_both() {
    let caps = |lines: &[&str]| {
        let container = after(lines).task.container;
        (container.cap_add, container.cap_drop)
    };
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(caps(&["--cap-add CHOWN", "--cap-drop chown"]), (vec![], owned(&["CAP_CHOWN"])));
    assert_eq!(caps(&["--cap-drop CHOWN", "--cap-add chown"]), (owned(&["CAP_CHOWN"]), vec![]));
    assert_eq!(caps(&["--cap-drop CHOWN --cap-add chown"]), (owned(&["CAP_CHOWN"]), vec![]));
}

#[test]
fn another_image_is_of_other_platforms() {
    let mut spec = web();
    spec.task.placement.platforms = vec![skep_model::PlatformSpec::default()];
    let kept = edited(&spec, "--env-add A=1").unwrap();
    assert_eq!(kept.task.placement.platforms.len(), 1);
    let other = edited(&spec, "--image nginx").unwrap();
    assert_eq!((other.task.container.image.as_str(), other.task.placement.platforms.len()), ("nginx:latest", 0));
}

#[test]
fn scalars_are_set_and_taken_away() {
    let spec = after(&[
        "--force --args 'sh -c ls' --user 33 --limit-memory 64m --replicas 4",
        "--force --user '' --limit-memory 0",
    ]);
    assert_eq!(spec.task.force_update, 2);
    assert_eq!(spec.task.container.args.unwrap(), ["sh", "-c", "ls"]);
    assert_eq!((spec.task.container.user, spec.task.resources.limits.memory), (None, None));
    assert_eq!(spec.mode, Mode::Replicated { replicas: 4 });
    let checked = after(&["--no-healthcheck", "--health-cmd true"]).task.container.health_check.unwrap();
    assert_eq!(checked.test, Some(HealthTest::Shell("true".to_owned())));
    let logged = after(&["--log-opt max-size=1m", "--log-opt max-file=2"]).task.log_driver.unwrap();
    assert_eq!(logged.options.len(), 2);
    let logged =
        after(&["--log-opt max-size=1m", "--log-driver json-file --log-opt max-file=2"]).task.log_driver.unwrap();
    assert_eq!(logged.options.len(), 1);
}

#[test]
fn a_service_that_leaves_its_last_network_is_in_the_default_one() {
    let networks = |lines: &[&str]| -> Vec<String> {
        after(lines).task.networks.into_iter().map(|network| network.network).collect()
    };
    assert_eq!(networks(&["--network-add a --network-add b", "--network-rm A"]), ["b"]);
    assert_eq!(networks(&["--network-add a", "--network-rm a"]), ["default"]);
    assert_eq!(networks(&["--network-add a", "--network-rm a --network-add none"]), [""; 0]);
    assert_eq!(networks(&["--network-add a", "--network-add name=a,alias=x"]), ["a"]);
}

#[test]
fn mistakes_are_refused_before_anything_is_sent() {
    let mut global = web();
    global.mode = Mode::Global;
    assert!(edited(&global, "--replicas 2").unwrap_err().to_string().contains("global service"));
    for line in ["--limit-memory 1k", "--image ''", "--mount-add target=/a,type=bind", "--env-add =x", "--args \"'\""] {
        assert!(edited(&web(), line).is_err(), "{line}");
    }
    assert!(options("--env A=1").is_err(), "of create only");
}
