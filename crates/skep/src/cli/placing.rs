//! `service explain` and `service rebalance`: why tasks are where they are, and spreading them anew.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use skep_api::{ControlClient, ExplainRequest, Explanation, Filter, RebalanceRequest};
use skep_model::{Mode, NodeId, Service, Task};

use super::output::{self, table, time};
use super::tasks::node_names;
use super::wait::{Followed, Progress, Screen, follow};
use super::{Result, output::json as objects};

#[derive(Debug, Args)]
pub struct ExplainOptions {
    /// json, or a template such as '{{.Service}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// A service, or a task such as web.1
    #[arg(value_name = "SERVICE|TASK")]
    wanted: String,
}

#[derive(Debug, Args)]
pub struct RebalanceOptions {
    /// Do not wait until they are spread
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// All replicated services where none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub async fn explain(options: ExplainOptions, control: &ControlClient) -> Result {
    let explanation = control.explain(ExplainRequest { wanted: options.wanted }).await?;
    match options.format.as_deref() {
        None => output::text(&text(&explanation))?,
        Some("json") => output::line(value(&explanation))?,
        Some(template) => objects::print(vec![value(&explanation)], Some(template))?,
    }
    Ok(())
}

fn value(explanation: &Explanation) -> Value {
    let Explanation { service, tasks, nodes, hints } = explanation;
    let tasks = tasks.iter();
    let tasks: Vec<Value> = tasks
        .map(
            |task| json!({ "ID": task.id, "Name": task.name, "State": task.state, "Node": task.node, "Why": task.why }),
        )
        .collect();
    let nodes = nodes.iter();
    let nodes: Vec<Value> = nodes
        .map(|node| {
            json!({
                "ID": node.id,
                "Hostname": node.hostname,
                "Fits": node.refused_by.is_empty(),
                "RefusedBy": node.refused_by,
                "Why": node.why,
                "ServiceTasks": node.service_tasks,
                "Tasks": node.tasks,
            })
        })
        .collect();
    json!({ "Service": service, "Tasks": tasks, "Nodes": nodes, "Hints": hints })
}

fn text(explanation: &Explanation) -> String {
    let header = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
    let mut tasks = vec![header(&["TASK", "STATE", "NODE", "WHY"])];
    for task in &explanation.tasks {
        tasks.push(vec![task.name.clone(), task.state.clone(), task.node.clone(), task.why.clone()]);
    }
    let mut nodes = vec![header(&["NODE", "ONE MORE TASK", "OF SERVICE", "TASKS", "WHY"])];
    for node in &explanation.nodes {
        let verdict = if node.refused_by.is_empty() { "fits".to_owned() } else { format!("no: {}", node.refused_by) };
        let (own, all) = (node.service_tasks.to_string(), node.tasks.to_string());
        nodes.push(vec![node.hostname.clone(), verdict, own, all, node.why.clone()]);
    }
    let mut text = format!("{}\n{}", table::render(&tasks), table::render(&nodes));
    if !explanation.hints.is_empty() {
        text.push_str("\nTo mend it:\n");
        explanation.hints.iter().for_each(|hint| text.push_str(&format!("  - {hint}\n")));
    }
    text
}

/// All are asked for before the first is waited for.
pub async fn rebalance(options: RebalanceOptions, control: &ControlClient) -> Result {
    let mut services: Vec<Service> = Vec::new();
    for wanted in &options.services {
        services.push(control.service(wanted).await?);
    }
    if options.services.is_empty() {
        services = control.services(Filter::default()).await?;
        services.retain(|service| matches!(service.spec.mode, Mode::Replicated { .. }));
    }
    if services.is_empty() {
        bail!("there is no replicated service whose tasks could be spread");
    }
    for service in &services {
        let written = control.rebalance(RebalanceRequest { service: service.id.to_string() }).await?;
        written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    }
    if options.detach {
        return Ok(());
    }
    let nodes = node_names(control).await?;
    let mut screen = Screen::new(Progress::Shown);
    let watch_with = format!("skep service explain {}", services[0].name());
    let followed = Followed { what: "rebalancing".to_owned(), timeout: options.timeout, watch_with };
    follow(control, &followed, async || {
        let now = control.services(Filter::default()).await?;
        let tasks = control.tasks(Filter::default()).await?;
        let asked = now.iter().filter(|service| services.iter().any(|asked| asked.id == service.id));
        let mut lines = Vec::new();
        let mut ended = true;
        for service in asked {
            let own: Vec<&Task> = tasks.iter().filter(|task| task.service == service.id).collect();
            ended &= service.rebalancing_since.is_none();
            lines.push((service.name().to_owned(), spread(&own, &nodes)));
        }
        screen.show(&lines);
        Ok(ended.then_some(()))
    })
    .await
}

/// `n1: 2, n2: 1`
fn spread(tasks: &[&Task], names: &BTreeMap<NodeId, String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in tasks.iter().filter(|task| task.is_live()).filter_map(|task| task.node) {
        *counts.entry(names.get(&node).cloned().unwrap_or_else(|| node.to_string())).or_default() += 1;
    }
    counts.iter().map(|(node, count)| format!("{node}: {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use skep_api::{NodeVerdict, TaskPlace};

    #[test]
    fn an_explanation_is_two_tables_and_what_mends_it() {
        let verdict = |hostname: &str, refused_by: &str, why: &str| NodeVerdict {
            id: "id".to_owned(),
            hostname: hostname.to_owned(),
            refused_by: refused_by.to_owned(),
            why: why.to_owned(),
            service_tasks: 0,
            tasks: 3,
        };
        let explanation = Explanation {
            service: "db".to_owned(),
            tasks: vec![TaskPlace {
                id: "t".to_owned(),
                name: "db.1".to_owned(),
                state: "pending".to_owned(),
                node: String::new(),
                why: "no suitable node (insufficient resources on 1 node)".to_owned(),
            }],
            nodes: vec![
                verdict("n1", "resources", "1.2GiB of memory free, 2GiB reserved by each task"),
                verdict("n2", "", ""),
            ],
            hints: vec!["add a node".to_owned()],
        };
        expect![[r#"
            TASK      STATE     NODE      WHY
            db.1      pending             no suitable node (insufficient resources on 1 node)

            NODE      ONE MORE TASK   OF SERVICE   TASKS     WHY
            n1        no: resources   0            3         1.2GiB of memory free, 2GiB reserved by each task
            n2        fits            0            3

            To mend it:
              - add a node
        "#]]
        .assert_eq(&text(&explanation));
    }
}
