//! Compose project to stack: names, labels and defaults as `docker stack deploy` gives them.

mod container;
mod deploy;
mod endpoint;
mod network;
mod order;
mod service;
mod storage;

use std::collections::BTreeMap;

use skep_compose_spec::project::{Content, ContentSource};
use skep_compose_spec::{Diagnostic, Project, Report, Span};
use skep_model::{ContentKind, InvalidSpec, Labels, PortSpec, Stack, validate_content_name, validate_service_name};

pub use service::with_tag;

use crate::spec::{ContentSpec, StackSpec};

/// The service's label that keeps the image as the file has it, without the digest.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";

/// A secret's and a config's size limits in bytes, Swarm's.
const SECRET_BYTES_MAX: usize = 500 << 10;
const CONFIG_BYTES_MAX: usize = 1000 << 10;

/// A stack, and what its user should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    pub spec: StackSpec,
    pub warnings: Vec<Diagnostic>,
}

/// What every part of a conversion needs.
struct Context<'p> {
    project: &'p Project,
    stack: &'p str,
    report: Report,
    spec: StackSpec,
    /// By the services that were converted so far.
    published: Vec<Published>,
}

/// A port, and who published it where.
struct Published {
    service: String,
    span: Span,
    port: PortSpec,
}

/// Makes `project` the stack named `stack`. Errors come all at once, with the warnings beside them.
pub fn convert(project: &Project, stack: &str) -> Result<Conversion, Vec<Diagnostic>> {
    let mut cx = Context {
        project,
        stack,
        report: Report::on(&project.sources),
        spec: StackSpec { name: stack.to_owned(), ..StackSpec::default() },
        published: Vec::new(),
    };
    if let Err(problem) = validate_service_name(stack) {
        cx.report.error_nowhere(format!("invalid stack name: {problem}"));
    }
    for service in project.services.values() {
        let spec = service::convert(&mut cx, service);
        cx.spec.services.extend(spec);
    }
    network::convert(&mut cx);
    cx.spec.secrets = cx.contents("secret", &project.secrets, SECRET_BYTES_MAX);
    cx.spec.configs = cx.contents("config", &project.configs, CONFIG_BYTES_MAX);
    if cx.report.has_errors() {
        return Err(cx.report.into_sorted());
    }
    let mut spec = cx.spec;
    spec.services.sort_by(|a, b| a.name.cmp(&b.name));
    spec.networks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Conversion { spec, warnings: cx.report.into_sorted() })
}

impl<'p> Context<'p> {
    /// The name in the cluster of one of the project's networks, volumes, secrets or configs.
    fn full_name(&self, key: &str, name: Option<&str>, external: bool) -> String {
        Project::full_name(self.stack, key, name, external)
    }

    /// The name in the cluster of a service: by its key in the file, or another stack's by its whole name.
    fn service_name(&self, named: &str) -> String {
        match self.project.services.contains_key(named) {
            true => self.full_name(named, None, false),
            false => named.to_owned(),
        }
    }

    /// Labels as written, and the stack's own.
    fn labels(&self, written: &BTreeMap<String, String>) -> Labels {
        let mut labels = written.clone();
        labels.insert(Stack::LABEL.to_owned(), self.stack.to_owned());
        labels
    }

    fn invalid(&mut self, at: Span, invalid: &InvalidSpec) {
        self.report.error(at, invalid.to_string());
    }

    /// Something that was written and has no effect.
    fn no_effect(&mut self, at: Span, what: &str, help: &str) {
        self.report.warning(at, format!("{what} has no effect in a cluster")).with_help(help);
    }

    fn contents(&mut self, kind: &str, all: &BTreeMap<String, Content>, bytes_max: usize) -> Vec<ContentSpec> {
        let mut contents = Vec::new();
        for (key, content) in all {
            let external = content.source == ContentSource::External;
            let name = self.full_name(key, content.name.as_deref(), external);
            let Some(data) = content.source.data() else { continue };
            if let Err(problem) = validate_content_name(&name) {
                self.report.error(content.span, format!("{kind} {key}: {problem}"));
            }
            if data.is_empty() || data.len() > bytes_max {
                let size = data.len();
                self.report
                    .error(content.span, format!("{kind} {key} has {size} bytes; it must have 1 to {bytes_max}"));
            }
            let template = content.template_driver.as_ref();
            if let Some(driver) = template.filter(|driver| driver.value != "golang") {
                let what = format!("{kind} {key}: template_driver `{}`", driver.value);
                self.report.error(driver.span, format!("{what} is not known")).with_help("golang is");
            }
            let of_kind = template.map_or(ContentKind::Plain, |_| ContentKind::Template);
            let labels = self.labels(&content.labels);
            contents.push(ContentSpec { name, labels, data: data.clone(), kind: of_kind });
        }
        contents.sort_by(|a, b| a.name.cmp(&b.name));
        contents
    }
}
