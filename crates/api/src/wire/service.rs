//! Services, around their specs.

use skep_model::{Endpoint, JobStatus, Service, ServiceRevision, UpdateProgress, UpdateState, UpdateStatus, VirtualIp};

use super::{enumeration, message};

message!(
    Service = Service { id, meta, spec, spec_version, revisions, endpoint, update_status, job, rebalancing_since }
);
message!(JobStatus = JobStatus { iteration, last_execution, followed_to, message });
message!(ServiceRevision = ServiceRevision { spec_version, spec, replaced_at, unfinished });
message!(Endpoint = Endpoint { ports, virtual_ips });
message!(VirtualIp = VirtualIp { network, address });
message!(UpdateStatus = UpdateStatus { state, started_at, completed_at, message, progress });
message!(UpdateProgress = UpdateProgress { slots, done, at });
enumeration!(
    UpdateState = UpdateState { Updating, Paused, Completed, RollbackStarted, RollbackPaused, RollbackCompleted }
);
