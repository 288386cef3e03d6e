//! The control service: what the command line asks of a manager.
//!
//! Each handler decodes, asks and encodes; what a request means is decided by `admission` and `deploy`.

mod autolock;
mod read;
mod streams;
mod write;

use std::sync::Arc;

use skep_api::{
    AutolockRequest, AutolockState, Caller, ClusterInfo, Control, CreateRequest, DeployRequest, Deployed, ExecOutput,
    ExecRequest, GetRequest, JoinTokenText, ListRequest, LogEntry, LogsRequest, Messages, ObjectList, Readable,
    Refusal, RefusalKind, RemoveRequest, Removed, RotateJoinTokenRequest, ScaleRequest, UpdateRequest, WatchEvent,
    WatchRequest, Written,
};
use skep_model::{Change, Cluster, IdSource, LookupError};
use skep_store::{Committed, Store};
use tokio::sync::Mutex;

use crate::refusal::not_written;
use crate::resolve::ImageResolver;
use crate::sessions::Sessions;

pub struct ControlService<R> {
    pub store: Store,
    pub sessions: Arc<Sessions>,
    pub resolver: R,
    pub ids: Mutex<IdSource>,
}

impl<R: ImageResolver> Control for ControlService<R> {
    async fn info(&self, _: Caller, (): ()) -> Result<ClusterInfo, Refusal> {
        self.cluster_info()
    }

    async fn list(&self, _: Caller, request: ListRequest) -> Result<ObjectList, Refusal> {
        self.list_objects(request)
    }

    async fn get(&self, _: Caller, request: GetRequest) -> Result<Readable, Refusal> {
        self.get_object(request)
    }

    async fn create(&self, _: Caller, request: CreateRequest) -> Result<Written, Refusal> {
        self.create_object(request).await
    }

    async fn update(&self, _: Caller, request: UpdateRequest) -> Result<Written, Refusal> {
        self.update_object(request).await
    }

    async fn remove(&self, _: Caller, request: RemoveRequest) -> Result<Removed, Refusal> {
        self.remove_object(request).await
    }

    async fn scale(&self, _: Caller, request: ScaleRequest) -> Result<Written, Refusal> {
        self.scale_service(request).await
    }

    async fn deploy_stack(&self, caller: Caller, request: DeployRequest) -> Result<Deployed, Refusal> {
        self.deploy(caller, request).await
    }

    async fn rotate_join_token(&self, _: Caller, request: RotateJoinTokenRequest) -> Result<JoinTokenText, Refusal> {
        self.rotate_token(request).await
    }

    async fn autolock(&self, _: Caller, request: AutolockRequest) -> Result<AutolockState, Refusal> {
        self.change_autolock(request).await
    }

    async fn watch(&self, _: Caller, request: WatchRequest) -> Result<Messages<WatchEvent>, Refusal> {
        Ok(self.watch_cluster(request))
    }

    async fn logs(&self, _: Caller, request: LogsRequest) -> Result<Messages<LogEntry>, Refusal> {
        self.read_logs(request).await
    }

    async fn exec(&self, _: Caller, input: Messages<ExecRequest>) -> Result<Messages<ExecOutput>, Refusal> {
        self.run_exec(input).await
    }
}

impl<R> ControlService<R> {
    fn cluster(&self) -> Arc<Cluster> {
        self.store.cluster()
    }

    async fn propose(&self, changes: Vec<Change>) -> Result<Committed, Refusal> {
        self.store.propose(changes).await.map_err(not_written)
    }
}

fn not_found(error: LookupError) -> Refusal {
    error.into()
}

fn unsupported(what: &str) -> Refusal {
    Refusal::new(RefusalKind::Unsupported, format!("{what} is not supported by this version of skep"))
}
