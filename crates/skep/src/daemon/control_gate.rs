//! The control service of the socket: the manager's, where this node is one; else a word on where to ask.

use std::sync::{Arc, RwLock};

use skep_api::{
    AutolockRequest, AutolockState, Caller, ClusterInfo, Confirmed, Control, CreateRequest, DeployRequest, Deployed,
    Diagnosis, EventMessage, EventsRequest, ExecOutput, ExecRequest, ExplainRequest, Explanation, GetRequest,
    JoinTokenText, ListRequest, LogEntry, LogsRequest, Messages, ObjectList, Readable, RebalanceRequest, Refusal,
    RefusalKind, RemoveRequest, Removed, RollbackServiceRequest, RollbackStackRequest, RotateCaRequest,
    RotateJoinTokenRequest, RotatedCa, ScaleRequest, UpdateRequest, WatchEvent, WatchRequest, Written,
};
use skep_manager::ControlService;

use super::autolock::LOCKED;
use super::resolver::RegistryResolver;

type Target = Arc<ControlService<RegistryResolver>>;

/// Who answers now.
#[derive(Default)]
enum Behind {
    #[default]
    Nobody,
    /// A worker: `host:port` of the managers.
    Managers(Vec<String>),
    /// A manager whose keys are locked.
    Locked,
    Manager(Target),
}

#[derive(Default)]
pub struct ControlGate(RwLock<Behind>);

impl ControlGate {
    pub fn open(&self, manager: Target) {
        self.set(Behind::Manager(manager));
    }

    /// Names the managers to ask, unless this node is one.
    pub fn point_to(&self, managers: Vec<String>) {
        let mut behind = self.0.write().expect("no holder of this lock panics");
        if !matches!(*behind, Behind::Manager(_)) {
            *behind = Behind::Managers(managers);
        }
    }

    pub fn lock(&self) {
        self.set(Behind::Locked);
    }

    pub fn close(&self) {
        self.set(Behind::Nobody);
    }

    fn set(&self, behind: Behind) {
        *self.0.write().expect("no holder of this lock panics") = behind;
    }

    fn manager(&self) -> Result<Target, Refusal> {
        let message = match &*self.0.read().expect("no holder of this lock panics") {
            Behind::Manager(manager) => return Ok(Arc::clone(manager)),
            Behind::Managers(managers) => format!(
                "this node is not a manager: it cannot show or change the cluster; ask on a manager ({})",
                managers.join(", ")
            ),
            Behind::Locked => LOCKED.to_owned(),
            Behind::Nobody => {
                "this node is not part of a cluster; start one with `skep init`, or join one with `skep join`"
                    .to_owned()
            }
        };
        Err(Refusal::new(RefusalKind::Conflict, message))
    }
}

macro_rules! pass_on {
    ($($name:ident($input:ty) -> $output:ty;)*) => {
        impl Control for ControlGate {$(
            async fn $name(&self, caller: Caller, input: $input) -> Result<$output, Refusal> {
                self.manager()?.$name(caller, input).await
            }
        )*}
    };
}

pass_on! {
    info(()) -> ClusterInfo;
    confirm(()) -> Confirmed;
    list(ListRequest) -> ObjectList;
    get(GetRequest) -> Readable;
    create(CreateRequest) -> Written;
    update(UpdateRequest) -> Written;
    remove(RemoveRequest) -> Removed;
    scale(ScaleRequest) -> Written;
    rebalance(RebalanceRequest) -> Written;
    explain(ExplainRequest) -> Explanation;
    diagnose(()) -> Diagnosis;
    deploy_stack(DeployRequest) -> Deployed;
    rollback_service(RollbackServiceRequest) -> Written;
    rollback_stack(RollbackStackRequest) -> Deployed;
    rotate_ca(RotateCaRequest) -> RotatedCa;
    rotate_join_token(RotateJoinTokenRequest) -> JoinTokenText;
    autolock(AutolockRequest) -> AutolockState;
    watch(WatchRequest) -> Messages<WatchEvent>;
    events(EventsRequest) -> Messages<EventMessage>;
    logs(LogsRequest) -> Messages<LogEntry>;
    exec(Messages<ExecRequest>) -> Messages<ExecOutput>;
}
