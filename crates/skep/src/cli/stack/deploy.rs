//! `stack deploy`: files → project → specs → one request, and then the wait.
//!
//! Everything is checked before the request, and the request is applied whole or not at all.

use std::time::Duration;

use clap::Args;
use skep_api::{DeployAction, DeployMode, DeployRequest, Deployed, DeployedObject, NewContent, Prune};
use skep_model::Kind;
use skep_stack::{ContentSpec, StackSpec};

use super::atomic;
use crate::cli::Result;
use crate::cli::compose;
use crate::cli::host::Host;
use crate::cli::login;
use crate::cli::output::{self, time};
use crate::cli::wait::{self, Goal, Progress};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    files: compose::Files,
    /// Remove services that are no longer in the files
    #[arg(long)]
    prune: bool,
    /// Do not wait until the services run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// When a service does not come up, go back to the revision before, all of it; exit code 3
    #[arg(long, conflicts_with_all = ["detach", "dry_run"])]
    atomic: bool,
    /// Send along your logins for the images' registries
    #[arg(long)]
    with_registry_auth: bool,
    /// Only what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// Its name: the prefix of all that it makes
    stack: String,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let spec = specs(&options)?;
    let control = host.control().await?;
    let services = spec.services.iter().map(|service| service.name.clone()).collect();
    let before = match options.atomic {
        true => Some(atomic::before(&control, &options.stack).await?),
        false => None,
    };
    let deployed = control.deploy_stack(request(spec, &options)).await?;
    if !options.quiet {
        output::text(&lines(&deployed, options.dry_run))?;
    }
    deployed.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    if options.detach || options.dry_run {
        return Ok(());
    }
    let goal = Goal {
        services,
        stack: Some(options.stack.clone()),
        since: deployed.version,
        timeout: options.timeout,
        watch_with: format!("skep stack ps {}", options.stack),
    };
    let progress = if options.quiet { Progress::Silent } else { Progress::Shown };
    match (wait::until_settled(&control, &goal, progress).await, before) {
        (Err(error), Some(before)) => {
            Err(atomic::undo(&control, &options.stack, before, error, options.timeout, options.quiet).await)
        }
        (outcome, _) => outcome,
    }
}

/// The stack as its files ask for it; every mistake is said, and nothing was asked of the cluster yet.
fn specs(options: &Options) -> Result<StackSpec> {
    let project = compose::load(&options.files, Some(&options.stack))?;
    let conversion = match skep_stack::convert(&project, &options.stack) {
        Ok(conversion) => conversion,
        Err(diagnostics) => return Err(compose::refuse(&diagnostics)),
    };
    compose::tell(&conversion.warnings);
    let mut spec = conversion.spec;
    if options.with_registry_auth {
        for service in &mut spec.services {
            let container = &mut service.task.container;
            container.registry_auth = login::registry_auth(&container.image)?;
        }
    }
    Ok(spec)
}

fn request(spec: StackSpec, options: &Options) -> DeployRequest {
    // What is external is only referred to; the manager says so when it is not there.
    let StackSpec { name, services, networks, secrets, configs, external: _ } = spec;
    let contents = |contents: Vec<ContentSpec>| contents.into_iter().map(new_content).collect();
    DeployRequest {
        name,
        services,
        networks,
        secrets: contents(secrets),
        configs: contents(configs),
        prune: if options.prune { Prune::Yes } else { Prune::No },
        mode: if options.dry_run { DeployMode::Plan } else { DeployMode::Apply },
    }
}

fn new_content(spec: ContentSpec) -> NewContent {
    let ContentSpec { name, labels, data, kind } = spec;
    NewContent { name, labels, data: data.to_vec().into(), template: kind }
}

/// Docker's lines, in its order; what stays as it is is said of services only.
pub fn lines(deployed: &Deployed, dry_run: bool) -> String {
    let order = [Kind::Network, Kind::Secret, Kind::Config, Kind::Service];
    let mut text = String::new();
    for kind in order {
        for object in deployed.objects.iter().filter(|object| object.kind == kind) {
            if let Some(line) = line(object, dry_run) {
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    if text.is_empty() {
        text.push_str("Nothing to change\n");
    }
    text
}

fn line(object: &DeployedObject, dry_run: bool) -> Option<String> {
    let DeployedObject { kind, id, name, action } = object;
    let id = if id.is_empty() { String::new() } else { format!(" (id: {id})") };
    Some(match (action, dry_run) {
        (DeployAction::Created, false) => format!("Creating {kind} {name}"),
        (DeployAction::Updated, false) => format!("Updating {kind} {name}{id}"),
        (DeployAction::Removed, false) => format!("Removing {kind} {name}"),
        (DeployAction::Created, true) => format!("Would create {kind} {name}"),
        (DeployAction::Updated, true) => format!("Would update {kind} {name}{id}"),
        (DeployAction::Removed, true) => format!("Would remove {kind} {name}"),
        (DeployAction::Unchanged, _) if *kind == Kind::Service => format!("Unchanged {kind} {name}{id}"),
        (DeployAction::Unchanged, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use skep_model::Version;

    #[test]
    fn what_was_done_reads_as_in_docker() {
        let object = |kind, name: &str, action, id: &str| DeployedObject {
            kind,
            id: id.to_owned(),
            name: name.to_owned(),
            action,
        };
        let mut deployed = Deployed {
            revision: 2,
            version: Version(7),
            objects: vec![
                object(Kind::Service, "demo_web", DeployAction::Updated, "yg4nblu8oss4bn9fscycvjj3f"),
                object(Kind::Service, "demo_api", DeployAction::Unchanged, ""),
                object(Kind::Service, "demo_old", DeployAction::Removed, "x"),
                object(Kind::Secret, "demo_db", DeployAction::Unchanged, "x"),
                object(Kind::Network, "demo_front", DeployAction::Created, "x"),
            ],
            warnings: Vec::new(),
        };
        expect![[r#"
            Creating network demo_front
            Updating service demo_web (id: yg4nblu8oss4bn9fscycvjj3f)
            Unchanged service demo_api
            Removing service demo_old
        "#]]
        .assert_eq(&lines(&deployed, false));
        deployed.objects.truncate(1);
        assert_eq!(lines(&deployed, true), "Would update service demo_web (id: yg4nblu8oss4bn9fscycvjj3f)\n");
        deployed.objects.clear();
        assert_eq!(lines(&deployed, false), "Nothing to change\n");
    }
}
