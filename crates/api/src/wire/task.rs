//! Tasks and what is observed of them.

use skep_model::{ContainerStatus, DesiredState, NetworkAddress, Slot, Task, TaskState, TaskStatus};

use super::{choice, enumeration, message};

message!(
    Task = Task {
        id,
        meta,
        service,
        service_name,
        slot,
        spec,
        spec_version,
        networks,
        host_ports,
        node,
        desired,
        status,
        not_before,
        failures_before,
        iteration,
        running_since,
        withdrawn,
        generic,
        stop_reason,
        home,
        service_labels,
    }
);
choice!(Slot = Slot in slot { Replica, Node });
enumeration!(DesiredState = DesiredState { Ready, Running, Shutdown, Remove });
message!(TaskStatus = TaskStatus { state, at, message, error, container, addresses, ports });
enumeration!(
    TaskState = TaskState {
        New,
        Pending,
        Assigned,
        Accepted,
        Preparing,
        Ready,
        Starting,
        Running,
        Complete,
        Shutdown,
        Failed,
        Rejected,
        Remove,
        Orphaned,
    }
);
message!(ContainerStatus = ContainerStatus { container_id, pid, started_at, exit_code, oom_killed });
message!(NetworkAddress = NetworkAddress { network, address, address_v6 });
