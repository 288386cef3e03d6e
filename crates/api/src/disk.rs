//! What is written to disk: proposals for the store's log, whole clusters for its snapshots, an agent's assignments.
//!
//! All begin with a format number (two bytes, most significant first). A snapshot is then a header and one record for
//! each object, each with its length before it, so that neither side ever holds the cluster twice as one message.
//! Encryption, checksums and files are the writer's.

use std::sync::Arc;

use bytes::Buf;
use prost::Message;
use skep_model::{Change, Cluster, Version};

use crate::dispatcher::Assignments;
use crate::pb;
use crate::wire::{DecodeError, Element, Object};

/// The format of [`encode_changes`].
pub const CHANGES_FORMAT: u16 = 1;
/// The format of [`encode_cluster`].
pub const CLUSTER_FORMAT: u16 = 1;
/// The format of [`encode_assignments`].
pub const ASSIGNMENTS_FORMAT: u16 = 1;

/// A proposal as bytes. The same changes are always the same bytes.
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let proposal = pb::Proposal { changes: changes.iter().map(Element::to_element).collect() };
    let mut bytes = Vec::with_capacity(2 + proposal.encoded_len());
    bytes.extend_from_slice(&CHANGES_FORMAT.to_be_bytes());
    proposal.encode(&mut bytes).expect("a Vec grows as needed");
    bytes
}

/// What [`encode_changes`] wrote. A kind of change that this version does not know is an error: skipping it would make
/// this node's state differ from the others'.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
    let bytes = format(bytes, CHANGES_FORMAT)?;
    let pb::Proposal { changes } = pb::Proposal::decode(bytes)?;
    changes.into_iter().map(|change| Element::from_element(change, "Proposal.changes")).collect()
}

/// A whole cluster as bytes. Equal clusters are equal bytes.
pub fn encode_cluster(cluster: &Cluster) -> Vec<u8> {
    let mut bytes = CLUSTER_FORMAT.to_be_bytes().to_vec();
    let header = pb::SnapshotHeader { version: cluster.version.0 };
    header.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
    let mut record = |object: Object| {
        object.to_element().encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
    };
    cluster.config.iter().cloned().map(Object::Cluster).for_each(&mut record);
    cluster.nodes.values().cloned().map(Object::Node).for_each(&mut record);
    cluster.services.values().cloned().map(Object::Service).for_each(&mut record);
    cluster.tasks.values().cloned().map(Object::Task).for_each(&mut record);
    cluster.networks.values().cloned().map(Object::Network).for_each(&mut record);
    cluster.secrets.values().cloned().map(Object::Secret).for_each(&mut record);
    cluster.configs.values().cloned().map(Object::Config).for_each(&mut record);
    cluster.stacks.values().cloned().map(Object::Stack).for_each(&mut record);
    bytes
}

/// What [`encode_cluster`] wrote, with its indexes rebuilt.
pub fn decode_cluster(bytes: &[u8]) -> Result<Cluster, DecodeError> {
    let mut bytes = format(bytes, CLUSTER_FORMAT)?;
    let header = pb::SnapshotHeader::decode_length_delimited(&mut bytes)?;
    let mut tables = Tables::default();
    while bytes.has_remaining() {
        let record = pb::Object::decode_length_delimited(&mut bytes)?;
        tables.add(Object::from_element(record, "Object")?);
    }
    Ok(tables.into_cluster(Version(header.version)))
}

/// A node's assignments as bytes, secrets in clear: whoever writes them to a disk encrypts them.
pub fn encode_assignments(assignments: &Assignments) -> Vec<u8> {
    let assignments = assignments.to_element();
    let mut bytes = Vec::with_capacity(2 + assignments.encoded_len());
    bytes.extend_from_slice(&ASSIGNMENTS_FORMAT.to_be_bytes());
    assignments.encode(&mut bytes).expect("a Vec grows as needed");
    bytes
}

/// What [`encode_assignments`] wrote.
pub fn decode_assignments(bytes: &[u8]) -> Result<Assignments, DecodeError> {
    let assignments = pb::Assignments::decode(format(bytes, ASSIGNMENTS_FORMAT)?)?;
    Element::from_element(assignments, "Assignments")
}

fn format(bytes: &[u8], known: u16) -> Result<&[u8], DecodeError> {
    match bytes {
        [high, low, rest @ ..] => match u16::from_be_bytes([*high, *low]) {
            found if found == known => Ok(rest),
            found => Err(DecodeError::Format { found, known }),
        },
        _ => Err(DecodeError::Missing { field: "format" }),
    }
}

#[derive(Default)]
struct Tables {
    config: Option<skep_model::ClusterConfig>,
    nodes: Vec<skep_model::Node>,
    services: Vec<skep_model::Service>,
    tasks: Vec<skep_model::Task>,
    networks: Vec<skep_model::Network>,
    secrets: Vec<skep_model::Secret>,
    configs: Vec<skep_model::Config>,
    stacks: Vec<skep_model::Stack>,
}

impl Tables {
    fn add(&mut self, object: Object) {
        match object {
            Object::Cluster(config) => self.config = Some(Arc::unwrap_or_clone(config)),
            Object::Node(node) => self.nodes.push(Arc::unwrap_or_clone(node)),
            Object::Service(service) => self.services.push(Arc::unwrap_or_clone(service)),
            Object::Task(task) => self.tasks.push(Arc::unwrap_or_clone(task)),
            Object::Network(network) => self.networks.push(Arc::unwrap_or_clone(network)),
            Object::Secret(secret) => self.secrets.push(Arc::unwrap_or_clone(secret)),
            Object::Config(config) => self.configs.push(Arc::unwrap_or_clone(config)),
            Object::Stack(stack) => self.stacks.push(Arc::unwrap_or_clone(stack)),
        }
    }

    fn into_cluster(self, version: Version) -> Cluster {
        let Self { config, nodes, services, tasks, networks, secrets, configs, stacks } = self;
        Cluster::from_tables(version, config, nodes, services, tasks, networks, secrets, configs, stacks)
    }
}
