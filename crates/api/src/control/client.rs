//! Listings and single objects by their types.

use skep_model::{Config, Kind, Network, Node, Secret, Service, Stack, Task};

use super::{ControlClient, Filter, GetRequest, ListRequest};
use crate::rpc::{Refusal, RefusalKind};
use crate::wire::Object;

macro_rules! typed {
    ($($variant:ident: $list:ident, $get:ident;)*) => {
        impl ControlClient {$(
            pub async fn $list(&self, filter: Filter) -> Result<Vec<$variant>, Refusal> {
                let reply = self.list(ListRequest { kind: Kind::$variant, filter }).await?;
                let object = |readable: super::Readable| match readable.into_object() {
                    Object::$variant(object) => Ok(std::sync::Arc::unwrap_or_clone(object)),
                    other => Err(unexpected(Kind::$variant, other.kind())),
                };
                reply.objects.into_iter().map(object).collect()
            }

            /// By whole id, name, or unambiguous prefix of the id.
            pub async fn $get(&self, wanted: &str) -> Result<$variant, Refusal> {
                let reply = self.get(GetRequest { kind: Kind::$variant, wanted: wanted.to_owned() }).await?;
                match reply.into_object() {
                    Object::$variant(object) => Ok(std::sync::Arc::unwrap_or_clone(object)),
                    other => Err(unexpected(Kind::$variant, other.kind())),
                }
            }
        )*}
    };
}

typed! {
    Node: nodes, node;
    Service: services, service;
    Task: tasks, task;
    Network: networks, network;
    Secret: secrets, secret;
    Config: configs, config;
    Stack: stacks, stack;
}

fn unexpected(asked: Kind, got: Kind) -> Refusal {
    Refusal::new(RefusalKind::Internal, format!("asked for a {asked} and got a {got}"))
}
