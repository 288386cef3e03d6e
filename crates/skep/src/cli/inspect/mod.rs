//! `inspect`: an object with all that is known of it, as JSON in the Docker Engine's shape.
//!
//! The shape is that of the Engine API's objects of the same names, as far as there is the thing.

mod container;
mod network;
mod pretty;
mod service;

use clap::Args;
use serde_json::{Map, Value, json};
use skep_api::ControlClient;
use skep_model::{ContentDigest, ContentKind, GenericResource, Labels, Meta, Node, NodeId, Platform};

use super::Result;
use super::content::Noun;
use super::node;
use super::output::{json, time};
use network::Verbose;

#[derive(Debug, Args)]
pub struct InspectOptions {
    /// json (all in one line), or a template such as '{{.Spec.Name}}'
    #[arg(short, long)]
    pub format: Option<String>,
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct NetworkOptions {
    /// Also the services, virtual addresses and tasks on the network, and the nodes that they are on
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    inspect: InspectOptions,
}

#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// In words, for people
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    inspect: InspectOptions,
}

pub async fn services(options: &ServiceOptions, control: &ControlClient) -> Result {
    let ServiceOptions { pretty, inspect: options } = options;
    if *pretty {
        let mut sheets = Vec::new();
        for name in &options.names {
            sheets.push(pretty::service(&control.service(name).await?, time::now()));
        }
        return Ok(super::output::text(&sheets.join("\n"))?);
    }
    let mut objects = Vec::new();
    for name in &options.names {
        objects.push(service::inspected(&control.service(name).await?));
    }
    json::print(objects, options.format.as_deref())
}

pub async fn networks(options: &NetworkOptions, control: &ControlClient) -> Result {
    let NetworkOptions { verbose, inspect } = options;
    let verbose = if *verbose { Verbose::Yes } else { Verbose::No };
    let objects = network::inspected(&inspect.names, verbose, control).await?;
    json::print(objects, inspect.format.as_deref())
}

pub async fn contents(noun: Noun, options: &InspectOptions, control: &ControlClient) -> Result {
    let mut objects = Vec::new();
    for name in &options.names {
        objects.push(match noun {
            Noun::Secret => {
                let secret = control.secret(name).await?;
                let spec = json!({ "Name": secret.name, "Labels": secret.labels });
                let spec = templated(spec, &secret.contents.current);
                content(secret.id.to_string(), secret.meta, spec, secret.contents.revisions.len())
            }
            Noun::Config => {
                use base64::Engine as _;
                let config = control.config(name).await?;
                let data = config.contents.current().map(|revision| &revision.data[..]).unwrap_or_default();
                let data = base64::engine::general_purpose::STANDARD.encode(data);
                let spec = json!({ "Name": config.name, "Labels": config.labels, "Data": data });
                let spec = templated(spec, &config.contents.current);
                content(config.id.to_string(), config.meta, spec, config.contents.revisions.len())
            }
        });
    }
    json::print(objects, options.format.as_deref())
}

fn templated(mut spec: Value, current: &ContentDigest) -> Value {
    if current.kind() == ContentKind::Template {
        spec["Templating"] = json!({ "Name": "golang" });
    }
    spec
}

fn content(id: String, meta: Meta, spec: Value, revisions: usize) -> Value {
    let mut object = head(id, meta);
    object.insert("Spec".to_owned(), spec);
    object.insert("Revisions".to_owned(), json!(revisions));
    Value::Object(object)
}

pub fn nodes(nodes: &[Node], leader: Option<NodeId>, options: &InspectOptions) -> Result {
    json::print(nodes.iter().map(|node| node_object(node, leader)).collect(), options.format.as_deref())
}

/// What all objects begin with.
fn head(id: String, meta: Meta) -> Map<String, Value> {
    let head = json!({
        "ID": id,
        "Version": { "Index": meta.version.0 },
        "CreatedAt": time::rfc3339(meta.created_at),
        "UpdatedAt": time::rfc3339(meta.updated_at),
    });
    match head {
        Value::Object(head) => head,
        _ => unreachable!("a JSON object literal is an object"),
    }
}

/// An object without what is not there: Docker leaves those keys out.
fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    Value::Object(fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

fn unless_empty<T: serde::Serialize>(items: &[T]) -> Option<Value> {
    (!items.is_empty()).then(|| json!(items))
}

fn labels(labels: &Labels) -> Option<Value> {
    (!labels.is_empty()).then(|| json!(labels))
}

/// Durations are nanoseconds in the Engine's JSON.
fn nanos(duration: std::time::Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// As in the Engine's JSON: named ones each by itself, others by their number.
fn generic_resource(resource: &GenericResource) -> Vec<Value> {
    let GenericResource { kind, amount, ids } = resource;
    if ids.is_empty() {
        return vec![json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": amount } })];
    }
    ids.iter().map(|id| json!({ "NamedResourceSpec": { "Kind": kind, "Value": id } })).collect()
}

fn node_object(node: &Node, leader: Option<NodeId>) -> Value {
    let mut object = head(node.id.to_string(), node.meta);
    let spec = present([
        ("Name", node.spec.name.as_ref().map(|name| json!(name))),
        ("Labels", Some(json!(node.spec.labels))),
        ("Role", Some(json!(node::role(node)))),
        ("Membership", Some(json!(node::membership(node)))),
        ("Availability", Some(json!(node::availability(node)))),
    ]);
    object.insert("Spec".to_owned(), spec);
    if let Some(description) = &node.description {
        let platform = description.platforms.first().cloned().unwrap_or_default();
        let platforms = |platforms: &[Platform]| -> Vec<Value> {
            let platforms = platforms.iter();
            let object = |it: &Platform| json!({ "Architecture": it.architecture, "OS": it.os, "Variant": it.variant });
            platforms.map(object).collect()
        };
        let generic: Vec<Value> = description.generic.iter().flat_map(generic_resource).collect();
        let mut described = json!({
            "Hostname": description.hostname,
            "Platform": { "Architecture": platform.architecture, "OS": platform.os },
            "Platforms": platforms(&description.platforms),
            "Resources": {
                "NanoCPUs": description.resources.nano_cpus.0,
                "MemoryBytes": description.resources.memory.0,
            },
            "Engine": { "EngineVersion": description.engine_version, "Labels": description.engine_labels },
            "KernelVersion": description.kernel,
            "MissingFeatures": description.missing_features,
        });
        if !description.emulated.is_empty() {
            described["EmulatedPlatforms"] = json!(platforms(&description.emulated));
        }
        if !generic.is_empty() {
            described["Resources"]["GenericResources"] = json!(generic);
        }
        object.insert("Description".to_owned(), described);
    }
    let status = present([
        ("State", Some(json!(node::state(node)))),
        ("Message", Some(json!(node.status.message)).filter(|_| !node.status.message.is_empty())),
        ("Addr", Some(json!(node.status.address))),
    ]);
    object.insert("Status".to_owned(), status);
    if let Some(manager) = &node.manager {
        let reachability = if node::state(node) == "ready" { "reachable" } else { "unreachable" };
        let status =
            json!({ "Leader": leader == Some(node.id), "Reachability": reachability, "Addr": manager.address });
        object.insert("ManagerStatus".to_owned(), status);
    }
    if let Some(tunnel) = &node.tunnel {
        let tunnel = present([
            ("Key", Some(json!(tunnel.key.to_string()))),
            ("Address", Some(json!(tunnel.address.to_string()))),
            ("Endpoint", tunnel.endpoint.map(|endpoint| json!(endpoint.to_string()))),
        ]);
        object.insert("Tunnel".to_owned(), tunnel);
    }
    Value::Object(object)
}
