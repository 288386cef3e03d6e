//! Networks. Their blocks are a map in the model and a list on the wire.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use skep_model::{Network, NodeId};

use super::{DecodeError, Element, Field, message};
use crate::pb;

message!(Network = Network { id, meta, spec, subnet, gateway, blocks, subnet_v6 });

impl Field for BTreeMap<Ipv4Net, NodeId> {
    type Proto = Vec<pb::Block>;

    fn to_field(&self) -> Vec<pb::Block> {
        self.iter().map(|(subnet, node)| pb::Block { subnet: subnet.to_element(), node: node.to_element() }).collect()
    }

    fn from_field(proto: Vec<pb::Block>, _: &'static str) -> Result<Self, DecodeError> {
        let block = |pb::Block { subnet, node }| {
            Ok((Element::from_element(subnet, "Block.subnet")?, Element::from_element(node, "Block.node")?))
        };
        proto.into_iter().map(block).collect()
    }
}
