//! `events`: what happens to the objects of the cluster, one line each, in Docker's words or as its JSON.
//!
//! The manager that is asked tells what it saw; what is filtered is filtered here.

use clap::Args;
use futures::TryStreamExt;
use serde_json::{Value, json};
use skep_api::{Event, EventAction, EventMessage, EventsRequest};
use skep_model::Kind;

use super::Result;
use super::host::Host;
use super::output::filter::{Facet, Filters};
use super::output::format::{Format, Template};
use super::output::{self, time};

const FILTERS: &[&str] =
    &["type", "event", "scope", "service", "node", "network", "secret", "config", "stack", "task", "name", "id"];
/// Docker's word for what concerns the whole cluster.
const SCOPE: &str = "swarm";

#[derive(Debug, Args)]
pub struct Options {
    /// Also what was since then: a time, or how long ago: 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at this time: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what matches: type=service, event=update, service=web …; may be given several times
    #[arg(short, long = "filter", value_name = "FILTER")]
    filter: Vec<String>,
    /// json (an object a line), or a template such as '{{.Type}} {{.Action}} {{.Actor.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let format = Format::parse(options.format.as_deref())?;
    let now = time::now();
    let point = |text: &Option<String>| text.as_deref().map(|text| time::parse_since(text, now)).transpose();
    let request = EventsRequest { since: point(&options.since)?, until: point(&options.until)? };
    let mut messages = host.control().await?.events(request).await?;
    while let Some(message) = messages.try_next().await? {
        match message {
            EventMessage::BeginsAt(at) => {
                let at = time::rfc3339(at);
                output::complain(format_args!("this manager remembers what happened since {at}, and not before"));
            }
            EventMessage::Event(event) if filters.keep(&facets(&event)) => output::line(shown(&event, &format)?)?,
            EventMessage::Event(_) => {}
        }
    }
    Ok(())
}

fn facets(event: &Event) -> Vec<Facet> {
    let kind = event.kind.to_string();
    let attribute = |name: &str| event.attributes.get(name).cloned();
    let mut facets = vec![
        Facet::exact("type", kind.clone()),
        Facet::exact("event", action(event.action)),
        Facet::exact("scope", SCOPE),
        Facet::prefix("id", event.id.clone()),
    ];
    facets.extend(attribute("name").map(|name| Facet::prefix("name", name)));
    // `service=web` are the events of that service, by name or by the beginning of its id; its tasks' as well.
    if let Some(own) = FILTERS.iter().find(|key| **key == kind) {
        facets.push(Facet::prefix(own, event.id.clone()));
        facets.extend(attribute("name").map(|name| Facet::exact(own, name)));
    }
    if event.kind == Kind::Task {
        facets.extend(attribute("service").map(|name| Facet::exact("service", name)));
        facets.extend(attribute("node").map(|node| Facet::prefix("node", node)));
    }
    facets
}

fn action(action: EventAction) -> &'static str {
    match action {
        EventAction::Create => "create",
        EventAction::Update => "update",
        EventAction::Remove => "remove",
    }
}

fn shown(event: &Event, format: &Format) -> Result<String> {
    match format {
        Format::Table => Ok(line(event)),
        Format::Json => Ok(object(event).to_string()),
        Format::Lines(template) | Format::Columns(template) => render(template, event),
    }
}

fn render(template: &Template, event: &Event) -> Result<String> {
    template.render(&object(event))
}

/// `2026-11-21T02:45:39.000000000Z service update ID (image.new=…, name=web)`
fn line(event: &Event) -> String {
    let attributes: Vec<String> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (at, kind, action) = (time::rfc3339_aligned(event.at), event.kind, action(event.action));
    format!("{at} {kind} {action} {} ({})", event.id, attributes.join(", "))
}

/// The Engine API's EventMessage.
fn object(event: &Event) -> Value {
    json!({
        "Type": event.kind.to_string(),
        "Action": action(event.action),
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": SCOPE,
        "time": event.at.0 / 1_000_000_000,
        "timeNano": event.at.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::{Labels, Timestamp};

    fn event(kind: Kind, attributes: &[(&str, &str)]) -> Event {
        let attributes: Labels = attributes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Event {
            at: Timestamp(1_795_229_139_649_937_000),
            kind,
            action: EventAction::Update,
            id: "x1".to_owned(),
            attributes,
        }
    }

    #[test]
    fn an_event_reads_as_in_docker() {
        let event = event(Kind::Service, &[("name", "web"), ("replicas.new", "3"), ("replicas.old", "2")]);
        assert_eq!(
            line(&event),
            "2026-11-21T02:45:39.649937000Z service update x1 (name=web, replicas.new=3, replicas.old=2)"
        );
        assert_eq!(
            shown(&event, &Format::Json).unwrap(),
            r#"{"Action":"update","Actor":{"Attributes":{"name":"web","replicas.new":"3","replicas.old":"2"},"ID":"x1"},"Type":"service","scope":"swarm","time":1795229139,"timeNano":1795229139649937000}"#
        );
        let template = Format::parse(Some("{{.Type}} {{.Actor.ID}}")).unwrap();
        assert_eq!(shown(&event, &template).unwrap(), "service x1");
    }

    #[test]
    fn filters_know_types_objects_and_their_tasks() {
        let service = event(Kind::Service, &[("name", "web")]);
        let task = event(Kind::Task, &[("name", "web.1"), ("service", "web"), ("node", "n7")]);
        let keep = |event: &Event, filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            Filters::parse(&filters, FILTERS).unwrap().keep(&facets(event))
        };
        for (filters, of_service, of_task) in [
            (&["type=service"][..], true, false),
            (&["service=web"], true, true),
            (&["service=we"], false, false),
            (&["service=x"], true, false),
            (&["type=task", "service=web"], false, true),
            (&["event=update"], true, true),
            (&["event=create"], false, false),
            (&["scope=swarm"], true, true),
            (&["scope=local"], false, false),
            (&["node=n7"], false, true),
            (&["type=task", "type=service"], true, true),
        ] {
            assert_eq!((keep(&service, filters), keep(&task, filters)), (of_service, of_task), "{filters:?}");
        }
    }
}
