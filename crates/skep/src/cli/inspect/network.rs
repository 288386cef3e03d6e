//! A network in the Engine's shape; with `--verbose`, who is on it and where.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use skep_api::{ControlClient, Filter};
use skep_model::{Network, Node, NodeId, PortSpec, Service, Task, TaskState};

use super::Result;
use crate::cli::output::time;

/// Whether all that is on a network is shown with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbose {
    Yes,
    No,
}

/// All that may be on a network.
#[derive(Default)]
struct Picture {
    services: Vec<Service>,
    tasks: Vec<Task>,
    nodes: BTreeMap<NodeId, Node>,
}

pub async fn inspected(names: &[String], verbose: Verbose, control: &ControlClient) -> Result<Vec<Value>> {
    let picture = match verbose {
        Verbose::No => None,
        Verbose::Yes => Some(Picture {
            services: control.services(Filter::default()).await?,
            tasks: control.tasks(Filter::default()).await?,
            nodes: control.nodes(Filter::default()).await?.into_iter().map(|node| (node.id, node)).collect(),
        }),
    };
    let mut objects = Vec::new();
    for name in names {
        let network = control.network(name).await?;
        let mut object = plain(&network);
        if let Some(picture) = &picture {
            object.insert("Peers".to_owned(), peers(&network, picture));
            object.insert("Services".to_owned(), services(&network, picture));
        }
        objects.push(Value::Object(object));
    }
    Ok(objects)
}

fn plain(network: &Network) -> Map<String, Value> {
    let object = json!({
        "Id": network.id.to_string(),
        "Name": network.spec.name,
        "Created": time::rfc3339(network.meta.created_at),
        "Scope": "swarm",
        "Driver": network.spec.driver,
        "EnableIPv4": true,
        "EnableIPv6": network.subnet_v6.is_some(),
        "IPAM": {
            "Driver": "default",
            "Config": ranges(network),
        },
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": false,
        "Options": network.spec.driver_options,
        "Labels": network.spec.labels,
        "Blocks": network.blocks.iter()
            .map(|(block, node)| (block.to_string(), json!(node.to_string())))
            .collect::<Map<String, Value>>(),
    });
    match object {
        Value::Object(object) => object,
        _ => unreachable!("a JSON object literal is an object"),
    }
}

fn ranges(network: &Network) -> Vec<Value> {
    let range =
        |subnet: IpNet, gateway: IpAddr| json!({ "Subnet": subnet.to_string(), "Gateway": gateway.to_string() });
    let mut v4 = range(network.subnet.into(), network.gateway.into());
    if let Some(part) = network.spec.ip_range {
        v4["IPRange"] = json!(part.to_string());
    }
    if !network.spec.aux_addresses.is_empty() {
        let others =
            network.spec.aux_addresses.iter().map(|(name, address)| (name.clone(), json!(address.to_string())));
        v4["AuxiliaryAddresses"] = Value::Object(others.collect());
    }
    let v6 = network.twins().and_then(|twins| Some(range(twins.v6.into(), twins.of(network.gateway)?.into())));
    [Some(v4), v6].into_iter().flatten().collect()
}

/// The nodes that hand out addresses of the network.
fn peers(network: &Network, picture: &Picture) -> Value {
    let holders: std::collections::BTreeSet<NodeId> = network.blocks.values().copied().collect();
    let holders = holders.iter().filter_map(|node| picture.nodes.get(node));
    holders
        .map(|node| {
            let blocks: Vec<String> = network.blocks_of(node.id).map(|block| block.to_string()).collect();
            json!({ "Name": node.hostname(), "IP": node.status.address, "Blocks": blocks })
        })
        .collect()
}

fn services(network: &Network, picture: &Picture) -> Value {
    let on = |service: &&Service| {
        service.spec.task.networks.iter().any(|used| used.network.eq_ignore_ascii_case(&network.spec.name))
    };
    let each = picture.services.iter().filter(on).map(|service| {
        let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network == network.id);
        let object = json!({
            "VIP": vip.map(|vip| vip.address.to_string()).unwrap_or_default(),
            "VIPv6": vip.and_then(|vip| network.twins()?.of(vip.address)).map(|twin| twin.to_string()),
            "Ports": service.endpoint.ports.iter().map(port).collect::<Vec<_>>(),
            "Tasks": tasks(network, service, picture),
        });
        (service.name().to_owned(), object)
    });
    Value::Object(each.collect())
}

fn port(port: &PortSpec) -> String {
    let protocol = port.protocol.word();
    format!("Target: {}/{protocol}, Publish: {}", port.target, port.published)
}

fn tasks(network: &Network, service: &Service, picture: &Picture) -> Vec<Value> {
    let running =
        picture.tasks.iter().filter(|task| task.service == service.id && task.status.state == TaskState::Running);
    let on = running.filter_map(|task| {
        let place = task.status.addresses.iter().find(|place| place.network == network.id)?;
        let node = picture.nodes.get(&task.node?);
        Some(json!({
            "Name": task.container_name(),
            "EndpointID": task.id.to_string(),
            "EndpointIP": place.address.to_string(),
            "EndpointIPv6": place.address_v6.map(|twin| twin.to_string()),
            "Info": {
                "Host IP": node.map(|node| node.status.address.clone()).unwrap_or_default(),
                "Node": node.map(|node| node.hostname().to_owned()).unwrap_or_default(),
            },
        }))
    });
    on.collect()
}
