//! The control service: what the command line asks of a manager.
//!
//! Each handler decodes, asks and encodes; what a request means is decided by `admission` and `deploy`.

mod autolock;
mod ca;
mod diagnose;
mod placing;
mod read;
mod rollback;
mod streams;
mod write;

use std::sync::Arc;

use skep_api::{
    AutolockRequest, AutolockState, Caller, ClusterInfo, Confirmed, Control, CreateRequest, DeployRequest, Deployed,
    Diagnosis, EventMessage, EventsRequest, ExecOutput, ExecRequest, ExplainRequest, Explanation, GetRequest,
    JoinTokenText, ListRequest, LogEntry, LogsRequest, Messages, ObjectList, Readable, RebalanceRequest, Refusal,
    RefusalKind, RemoveRequest, Removed, RollbackServiceRequest, RollbackStackRequest, RotateCaRequest,
    RotateJoinTokenRequest, RotatedCa, ScaleRequest, UpdateRequest, WatchEvent, WatchRequest, Written,
};
use skep_identity::NodeClock;
use skep_model::{Change, Cluster, IdSource, LookupError};
use skep_store::{Committed, Store};
use tokio::sync::Mutex;

use crate::events::EventLog;
use crate::reach::Reach;
use crate::refusal::not_written;
use crate::resolve::ImageResolver;
use crate::standing::operator;

pub struct ControlService<R> {
    pub store: Store,
    pub reach: Arc<Reach>,
    pub resolver: R,
    pub ids: Mutex<IdSource>,
    pub clock: Arc<NodeClock>,
    pub events: Arc<EventLog>,
}

impl<R: ImageResolver> Control for ControlService<R> {
    async fn info(&self, caller: Caller, (): ()) -> Result<ClusterInfo, Refusal> {
        self.admit(&caller)?;
        self.cluster_info()
    }

    async fn confirm(&self, caller: Caller, (): ()) -> Result<Confirmed, Refusal> {
        self.admit(&caller)?;
        Ok(self.confirm_state().await)
    }

    async fn list(&self, caller: Caller, request: ListRequest) -> Result<ObjectList, Refusal> {
        self.admit(&caller)?;
        self.list_objects(request)
    }

    async fn get(&self, caller: Caller, request: GetRequest) -> Result<Readable, Refusal> {
        self.admit(&caller)?;
        self.get_object(request)
    }

    async fn create(&self, caller: Caller, request: CreateRequest) -> Result<Written, Refusal> {
        self.admit(&caller)?;
        self.create_object(request).await
    }

    async fn update(&self, caller: Caller, request: UpdateRequest) -> Result<Written, Refusal> {
        self.admit(&caller)?;
        self.update_object(request).await
    }

    async fn remove(&self, caller: Caller, request: RemoveRequest) -> Result<Removed, Refusal> {
        self.admit(&caller)?;
        self.remove_object(request).await
    }

    async fn scale(&self, caller: Caller, request: ScaleRequest) -> Result<Written, Refusal> {
        self.admit(&caller)?;
        self.scale_service(request).await
    }

    async fn rebalance(&self, caller: Caller, request: RebalanceRequest) -> Result<Written, Refusal> {
        self.admit(&caller)?;
        self.rebalance_service(request).await
    }

    async fn explain(&self, caller: Caller, request: ExplainRequest) -> Result<Explanation, Refusal> {
        self.admit(&caller)?;
        self.explain_places(request)
    }

    async fn diagnose(&self, caller: Caller, (): ()) -> Result<Diagnosis, Refusal> {
        self.admit(&caller)?;
        self.examine_nodes().await
    }

    async fn deploy_stack(&self, caller: Caller, request: DeployRequest) -> Result<Deployed, Refusal> {
        self.admit(&caller)?;
        self.deploy(caller, request).await
    }

    async fn rollback_service(&self, caller: Caller, request: RollbackServiceRequest) -> Result<Written, Refusal> {
        self.admit(&caller)?;
        self.roll_service_back(request).await
    }

    async fn rollback_stack(&self, caller: Caller, request: RollbackStackRequest) -> Result<Deployed, Refusal> {
        self.admit(&caller)?;
        self.roll_stack_back(caller, request).await
    }

    async fn rotate_join_token(
        &self,
        caller: Caller,
        request: RotateJoinTokenRequest,
    ) -> Result<JoinTokenText, Refusal> {
        self.admit(&caller)?;
        self.rotate_token(request).await
    }

    async fn autolock(&self, caller: Caller, request: AutolockRequest) -> Result<AutolockState, Refusal> {
        self.admit(&caller)?;
        self.change_autolock(request).await
    }

    async fn rotate_ca(&self, caller: Caller, request: RotateCaRequest) -> Result<RotatedCa, Refusal> {
        self.admit(&caller)?;
        self.rotate_authority(request).await
    }

    async fn watch(&self, caller: Caller, request: WatchRequest) -> Result<Messages<WatchEvent>, Refusal> {
        self.admit(&caller)?;
        Ok(self.watch_cluster(request))
    }

    async fn events(&self, caller: Caller, request: EventsRequest) -> Result<Messages<EventMessage>, Refusal> {
        self.admit(&caller)?;
        Ok(self.events.read(request))
    }

    async fn logs(&self, caller: Caller, request: LogsRequest) -> Result<Messages<LogEntry>, Refusal> {
        self.admit(&caller)?;
        self.read_logs(request).await
    }

    async fn exec(&self, caller: Caller, input: Messages<ExecRequest>) -> Result<Messages<ExecOutput>, Refusal> {
        self.admit(&caller)?;
        self.run_exec(input).await
    }
}

impl<R> ControlService<R> {
    /// A manager that was demoted or removed operates nothing any more.
    fn admit(&self, caller: &Caller) -> Result<(), Refusal> {
        operator(&self.cluster(), caller)
    }

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
