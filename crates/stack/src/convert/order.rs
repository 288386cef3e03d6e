//! When a service's tasks start: `depends_on`, and `x-skep.schedule`.

use skep_compose_spec::project::{self, At, Service};
use skep_model::{Concurrency, Cron, Dependency, DependencyCondition, Mode, Schedule, TimeZone};

use super::Context;

pub(super) fn dependencies(cx: &mut Context<'_>, service: &Service) -> Vec<Dependency> {
    let mut dependencies = Vec::new();
    for (name, written) in &service.depends_on {
        let project::DependsOn { span, condition, restart, required } = *written;
        let condition = match condition {
            project::DependencyCondition::Started => DependencyCondition::Started,
            project::DependencyCondition::Healthy => DependencyCondition::Healthy,
            project::DependencyCondition::CompletedSuccessfully => DependencyCondition::Completed,
        };
        let other = cx.project.services.get(name);
        if condition == DependencyCondition::Completed
            && let Some(never) = other.and_then(never_completes)
        {
            let path = format!("services.{}.depends_on.{name}", service.name);
            cx.report
                .error(span, format!("{path} waits for {name} to complete, which {never}"))
                .with_help("write condition: service_healthy, or make it a job: deploy: {mode: replicated-job}");
        }
        let service = cx.full_name(name, None, false);
        dependencies.push(Dependency { service, condition, required, restart });
    }
    dependencies
}

/// Why a service has no end to wait for.
fn never_completes(service: &Service) -> Option<&'static str> {
    let job = matches!(
        service.deploy.mode.as_ref().map(|at| at.value),
        Some(project::Mode::ReplicatedJob | project::Mode::GlobalJob)
    );
    if service.skep.schedule.is_some() {
        return Some("runs by its schedule");
    }
    let restarts = super::deploy::restart(service).condition == skep_model::Condition::Any;
    (!job && restarts).then_some("is restarted whenever it ends")
}

/// `x-skep.schedule`, with the attributes that only it gives a meaning.
pub(super) fn schedule(cx: &mut Context<'_>, service: &Service, mode: Mode) -> Option<Schedule> {
    let extension = &service.skep;
    let path = format!("services.{}.x-skep", service.name);
    let Some(At { span, value: cron }) = &extension.schedule else {
        let spans = [
            ("timezone", extension.timezone.as_ref().map(|at| at.span)),
            ("concurrency", extension.concurrency.as_ref().map(|at| at.span)),
        ];
        for (name, span) in spans {
            if let Some(span) = span {
                cx.report.error(span, format!("{path}.{name} has no meaning without x-skep.schedule"));
            }
        }
        return None;
    };
    if let Err(problem) = cron.parse::<Cron>() {
        cx.report.error(*span, format!("{path}.schedule: {problem}"));
    }
    let timezone = extension.timezone.as_ref();
    if let Some(At { span, value }) = timezone
        && let Err(problem) = TimeZone::named(value)
    {
        cx.report.error(*span, format!("{path}.timezone: {problem}"));
    }
    let concurrency = match extension.concurrency.as_ref().map(|at| at.value) {
        None | Some(project::Concurrency::Forbid) => Concurrency::Forbid,
        Some(project::Concurrency::Replace) => Concurrency::Replace,
        Some(project::Concurrency::Allow) => Concurrency::Allow,
    };
    if let (Some(At { span, .. }), Concurrency::Allow, Mode::GlobalJob) = (&extension.concurrency, concurrency, mode) {
        cx.report
            .error(*span, format!("{path}.concurrency: a node has one task of a global job at a time"))
            .with_help("use concurrency: forbid or replace, or deploy: {mode: replicated-job}");
    }
    Some(Schedule {
        cron: cron.clone(),
        timezone: timezone.map(|at| at.value.clone()).unwrap_or_default(),
        concurrency,
    })
}
