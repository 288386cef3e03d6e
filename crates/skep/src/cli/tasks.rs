//! Listings of tasks: what `stack ps`, `service ps` and `node ps` have in common.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use skep_api::{ControlClient, Filter};
use skep_model::{DesiredState, NodeId, PortSpec, Task, TaskState};

use super::Result;
use super::output::filter::{Facet, Filters};
use super::output::format::Format;
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{reference, time};

const FILTERS: &[&str] = &["id", "name", "service", "node", "desired-state", "label", "runtime"];
/// What `desired-state` may be; `accepted` is Docker's word for what is not to run yet.
const DESIRED: &[&str] = &["running", "shutdown", "accepted", "ready", "remove"];
/// As Docker cuts them, the quotation marks aside.
const ERROR_WIDTH: usize = 30;

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
    more: &[],
    quiet: "ID",
};

/// Host names of the cluster's nodes.
pub type NodeNames = BTreeMap<NodeId, String>;

pub async fn node_names(control: &ControlClient) -> Result<NodeNames> {
    let nodes = control.nodes(Filter::default()).await?;
    Ok(nodes.into_iter().map(|node| (node.id, name_of(&node))).collect())
}

fn name_of(node: &skep_model::Node) -> String {
    match node.hostname() {
        "" => node.id.to_string(),
        name => name.to_owned(),
    }
}

pub async fn print(control: &ControlClient, tasks: Vec<Task>, options: &ListOptions) -> Result {
    let nodes = node_names(control).await?;
    LISTING.print(rows(tasks, &nodes, options)?, options)
}

/// Slots in their order, in each the newest task first; older ones are indented in a table.
fn rows(mut tasks: Vec<Task>, nodes: &NodeNames, options: &ListOptions) -> Result<Vec<Row>> {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    if let Some(wrong) = filters.values("desired-state").iter().find(|value| !DESIRED.contains(&value.as_str())) {
        anyhow::bail!("invalid desired-state filter: `{wrong}`; use {}", DESIRED.join(", "));
    }
    tasks.retain(|task| filters.keep(&facets(task, nodes)));
    tasks.sort_by(|a, b| {
        natural(&a.name(), &b.name()).then_with(|| (b.meta.created_at, b.id).cmp(&(a.meta.created_at, a.id)))
    });
    let indent = matches!(Format::parse(options.format.as_deref())?, Format::Table | Format::Columns(_));
    let mut previous = String::new();
    let mut rows = Vec::with_capacity(tasks.len());
    for task in &tasks {
        let name = task.name();
        let shown = if indent && name == previous { format!(" \\_ {name}") } else { name.clone() };
        rows.push(task_row(task, shown, nodes, options));
        previous = name;
    }
    Ok(rows)
}

fn facets(task: &Task, nodes: &NodeNames) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", task.id.to_string()),
        Facet::prefix("name", task.name()),
        Facet::exact("service", task.service_name.clone()),
        Facet::exact("service", task.service.to_string()),
        Facet::exact("desired-state", desired(task)),
        Facet::exact("runtime", "container"),
    ];
    if let Some(node) = task.node {
        facets.push(Facet::prefix("node", node.to_string()));
        facets.extend(nodes.get(&node).map(|name| Facet::exact("node", name.clone())));
    }
    facets.extend(Facet::labels("label", &task.spec.container.labels));
    facets
}

fn task_row(task: &Task, name: String, nodes: &NodeNames, options: &ListOptions) -> Row {
    let image = &task.spec.container.image;
    let node = task.node.map(|node| nodes.get(&node).cloned().unwrap_or_else(|| node.to_string()));
    let state = format!("{} {}", capital(state(task)), lower_first(&time::ago(task.status.at, time::now())));
    row([
        ("ID", listing::id(&task.id.to_string(), options)),
        ("Name", name),
        ("Image", if options.no_trunc { image.clone() } else { reference::familiar(image) }),
        ("Node", node.unwrap_or_default()),
        ("DesiredState", capital(desired(task))),
        ("CurrentState", state),
        ("Error", shown_error(task.status.error.as_deref().or(task.stop_reason.as_deref()), options)),
        ("Ports", ports(&task.status.ports)),
    ])
}

/// What is wanted of a job's task is that it ends well.
fn desired(task: &Task) -> &'static str {
    match task.desired {
        DesiredState::Running if task.iteration.is_some() => "complete",
        desired => desired.word(),
    }
}

/// One that waits for another service is pending like one that waits for a node; its error says which it is.
fn state(task: &Task) -> &'static str {
    match task.status.state {
        TaskState::New => TaskState::Pending.word(),
        state => state.word(),
    }
}

fn shown_error(error: Option<&str>, options: &ListOptions) -> String {
    match error.filter(|error| !error.is_empty()) {
        None => String::new(),
        Some(error) if options.no_trunc => format!("\"{error}\""),
        Some(error) => format!("\"{}\"", listing::ellipsis(error, ERROR_WIDTH)),
    }
}

/// `*:8081->8080/tcp`, and `*:80-82->80-82/tcp` for ports in a row, as Docker shows published ports.
pub fn ports(ports: &[PortSpec]) -> String {
    let mut rows: Vec<(&PortSpec, u16)> = Vec::new();
    let mut sorted: Vec<&PortSpec> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.protocol, port.host_ip, port.published, port.target));
    for port in sorted {
        // The ports that follow the first of a row.
        let follows = |(first, more): &&mut (&PortSpec, u16)| {
            let next = |number: u16| number.checked_add(*more + 1);
            (first.protocol, first.host_ip) == (port.protocol, port.host_ip)
                && first.published != 0
                && (next(first.published), next(first.target)) == (Some(port.published), Some(port.target))
        };
        match rows.last_mut().filter(follows) {
            Some((_, more)) => *more += 1,
            None => rows.push((port, 0)),
        }
    }
    let range = |first: u16, more: u16| match more {
        0 => first.to_string(),
        more => format!("{first}-{}", first + more),
    };
    let shown = |(port, more): (&PortSpec, u16)| {
        let address = match port.host_ip {
            Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            Some(std::net::IpAddr::V4(address)) => address.to_string(),
            None => "*".to_owned(),
        };
        format!("{address}:{}->{}/{}", range(port.published, more), range(port.target, more), port.protocol.word())
    };
    rows.into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn lower_first(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Numbers within names by their value: `web.2` before `web.10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        match (digits(a), digits(b)) {
            (0, _) | (_, 0) => match (a.chars().next(), b.chars().next()) {
                (Some(x), Some(y)) if x == y => (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]),
                (x, y) => return x.cmp(&y),
            },
            (n, m) => {
                let (x, y) = (a[..n].trim_start_matches('0'), b[..m].trim_start_matches('0'));
                match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
                    Ordering::Equal => (a, b) = (&a[n..], &b[m..]),
                    other => return other,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use skep_model::{DesiredState, PortProtocol, PublishMode, TaskState, Timestamp};

    use crate::cli::wait::fixture;

    #[test]
    fn tasks_are_listed_by_slot_with_their_history_indented() {
        let nodes = NodeNames::from([(NodeId::from_u128(7), "n1".to_owned())]);
        let mut failed = fixture::task("counter_web", 1, TaskState::Failed);
        failed.id = skep_model::TaskId::from_u128(1);
        failed.desired = DesiredState::Shutdown;
        failed.status.error = Some("task: non-zero exit (1): it could not find its file".to_owned());
        failed.status.at = Timestamp(time::now().0 - 120_000_000_000);
        let mut running = fixture::task("counter_web", 1, TaskState::Running);
        running.meta.created_at = Timestamp(9);
        running.status.at = Timestamp(time::now().0 - 5_000_000_000);
        let mut tenth = fixture::task("counter_web", 10, TaskState::Running);
        tenth.status.at = running.status.at;
        let shown: Vec<String> = rows(vec![tenth, failed, running], &nodes, &ListOptions::default())
            .unwrap()
            .iter()
            .map(|row| format!("{}|{}|{}", row["Name"], row["CurrentState"], row["Error"]))
            .collect();
        expect![[r#"
            "counter_web.1"|"Running 5 seconds ago"|""
            " \\_ counter_web.1"|"Failed 2 minutes ago"|"\"task: non-zero exit (1): it c…\""
            "counter_web.10"|"Running 5 seconds ago"|"""#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn ports_read_as_docker_writes_them() {
        let port = PortSpec {
            name: None,
            protocol: PortProtocol::Tcp,
            target: 80,
            published: 8080,
            mode: PublishMode::Ingress,
            host_ip: None,
        };
        let local = PortSpec { host_ip: Some(std::net::Ipv4Addr::LOCALHOST.into()), ..port.clone() };
        assert_eq!(ports(&[port.clone(), local]), "*:8080->80/tcp, 127.0.0.1:8080->80/tcp");
        let numbered = |published, target| PortSpec { published, target, ..port.clone() };
        let many = [numbered(82, 82), numbered(80, 80), numbered(81, 81), numbered(90, 91), numbered(91, 91)];
        assert_eq!(ports(&many), "*:80-82->80-82/tcp, *:90->91/tcp, *:91->91/tcp");
    }

    #[test]
    fn numbers_in_names_are_ordered_by_value() {
        let mut names = ["web.10", "web.2", "api.1", "web", "web.02a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["api.1", "web", "web.2", "web.02a", "web.10"]);
    }
}
