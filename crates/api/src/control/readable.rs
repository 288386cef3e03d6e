//! An object as readers get it: without secrets' contents, registry credentials and the CA's key.
//!
//! The parts are taken out when the object is put into a reply, so that no handler can forget it.

use std::sync::Arc;

use skep_model::{
    ClusterConfig, ContentRevision, JoinTokenHashes, Secret, Service, ServiceRevision, ServiceSpec, Stack, Task,
    TaskSpec,
};

use crate::pb;
use crate::wire::{DecodeError, Element, Object};

/// An object in a reply of the control service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable(Object);

impl From<Object> for Readable {
    fn from(object: Object) -> Self {
        Self(match object {
            Object::Cluster(config) => Object::Cluster(Arc::new(cluster(&config))),
            Object::Service(service) if mentions_credentials(&service) => {
                Object::Service(Arc::new(bare_service(&service)))
            }
            Object::Task(task) if task.spec.container.registry_auth.is_some() => {
                Object::Task(Arc::new(bare_task(&task)))
            }
            Object::Secret(secret) => Object::Secret(Arc::new(bare_secret(&secret))),
            Object::Stack(stack) => Object::Stack(Arc::new(bare_stack(&stack))),
            other @ (Object::Node(_)
            | Object::Service(_)
            | Object::Task(_)
            | Object::Network(_)
            | Object::Config(_)) => other,
        })
    }
}

impl Readable {
    pub fn into_object(self) -> Object {
        self.0
    }
}

impl Element for Readable {
    type Proto = pb::Object;

    fn to_element(&self) -> pb::Object {
        self.0.to_element()
    }

    fn from_element(proto: pb::Object, field: &'static str) -> Result<Self, DecodeError> {
        Object::from_element(proto, field).map(Self)
    }
}

fn cluster(config: &ClusterConfig) -> ClusterConfig {
    ClusterConfig { ca_key: String::new(), join_tokens: JoinTokenHashes::default(), unlock_key: None, ..config.clone() }
}

fn bare_secret(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    for revision in secret.contents.revisions.values_mut() {
        *revision = ContentRevision { data: Arc::from([]), ..*revision };
    }
    secret
}

fn mentions_credentials(service: &Service) -> bool {
    let revisions = service.revisions.iter().map(|revision| &revision.spec);
    revisions.chain([&service.spec]).any(|spec| spec.task.container.registry_auth.is_some())
}

fn bare_service(service: &Service) -> Service {
    let bare_revision =
        |revision: &ServiceRevision| ServiceRevision { spec: Arc::new(bare_spec(&revision.spec)), ..revision.clone() };
    Service {
        spec: Arc::new(bare_spec(&service.spec)),
        revisions: service.revisions.iter().map(bare_revision).collect(),
        ..service.clone()
    }
}

fn bare_task(task: &Task) -> Task {
    Task { spec: Arc::new(bare_task_spec(&task.spec)), ..task.clone() }
}

fn bare_stack(stack: &Stack) -> Stack {
    let mut stack = stack.clone();
    let services = stack.revisions.iter_mut().flat_map(|revision| &mut revision.services);
    services.for_each(|spec| spec.task.container.registry_auth = None);
    stack
}

fn bare_spec(spec: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { task: bare_task_spec(&spec.task), ..spec.clone() }
}

fn bare_task_spec(spec: &TaskSpec) -> TaskSpec {
    let mut spec = spec.clone();
    spec.container.registry_auth = None;
    spec
}
