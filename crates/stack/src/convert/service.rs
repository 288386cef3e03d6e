//! One service: its parts put together, and what of it a cluster cannot honour.

use skep_compose_spec::project::Service;
use skep_model::{ServiceSpec, TaskSpec};

use super::{Context, IMAGE_LABEL, container, deploy, endpoint, order};

/// Attributes that mean something on one machine only, and what to do instead.
const SINGLE_MACHINE: [(&str, &str); 3] = [
    ("container_name", "tasks are named service.slot; reach the service by its name"),
    ("annotations", "use labels"),
    ("build", "the image must be in a registry: build and push it before the deploy"),
];

/// `None`, with a report, for a service without an image.
pub(super) fn convert(cx: &mut Context<'_>, service: &Service) -> Option<ServiceSpec> {
    for (attribute, help) in SINGLE_MACHINE {
        if let Some(at) = service.wrote(attribute) {
            cx.no_effect(at, &format!("services.{}.{attribute}", service.name), help);
        }
    }
    let errors = cx.report.error_count();
    let Some(image) = service.image.clone() else {
        let at = service.wrote("build").unwrap_or(service.span);
        cx.report
            .error(at, format!("services.{} has no image", service.name))
            .with_help("a cluster runs images from a registry: add image: beside build:, build and push it");
        return None;
    };
    let mut labels = cx.labels(&service.deploy.labels);
    labels.insert(IMAGE_LABEL.to_owned(), image.clone());
    let mode = deploy::mode(cx, service);
    let spec = ServiceSpec {
        name: cx.full_name(&service.name, None, false),
        labels,
        mode,
        task: TaskSpec {
            container: container::convert(cx, service, with_tag(image)),
            resources: deploy::resources(cx, service),
            restart: deploy::restart(service),
            placement: deploy::placement(cx, service),
            networks: endpoint::networks(cx, service, mode),
            host_network: endpoint::is_host(cx, service),
            log_driver: container::log_driver(cx, service),
            force_update: 0,
            at_most_one: deploy::at_most_one(cx, service),
            drain: service.skep.drain,
        },
        update: deploy::update(service.deploy.update_config.as_ref()),
        rollback: deploy::update(service.deploy.rollback_config.as_ref()),
        endpoint: endpoint::endpoint(cx, service),
        progress_deadline: deploy::progress_deadline(cx, service),
        depends_on: order::dependencies(cx, service),
        schedule: order::schedule(cx, service, mode),
        scheduling: deploy::scheduling(service),
    };
    // What is wrong with a part has been said where the part stands.
    if cx.report.error_count() == errors
        && let Err(invalid) = spec.validate()
    {
        cx.invalid(service.span, &invalid);
    }
    Some(spec)
}

/// Docker's default tag, for an image with neither tag nor digest.
pub fn with_tag(image: String) -> String {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains([':', '@']) { image } else { format!("{image}:latest") }
}
