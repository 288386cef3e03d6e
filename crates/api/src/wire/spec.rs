//! A service's spec, its container and its policies.

use skep_model::{
    Concurrency, Condition, ConfigRef, Constraint, ConstraintOp, ContainerSpec, Dependency, DependencyCondition,
    EndpointMode, EndpointSpec, FailureAction, FileTarget, GenericRequest, HealthCheck, HealthTest, Hook, Limits,
    LogDriver, Mode, Mount, MountKind, NetworkAttachment, NetworkSpec, Placement, PlacementStrategy, PlatformSpec,
    PortProtocol, PortSpec, Preference, Propagation, PublishMode, PullPolicy, Reservations, Resources, RestartPolicy,
    Schedule, Scheduling, SecretRef, ServiceSpec, SessionAffinity, TaskSpec, Ulimit, UpdateConfig, UpdateOrder,
    VolumePlacement,
};

use super::{DecodeError, Element, Field, choice, enumeration, message, message_field};
use crate::pb;

message!(
    ServiceSpec = ServiceSpec {
        name,
        labels,
        mode,
        task,
        update,
        rollback,
        endpoint,
        progress_deadline,
        depends_on,
        schedule,
        scheduling
    }
);
choice!(Mode = Mode in mode {;
    Replicated(ReplicatedMode) { replicas },
    Global(GlobalMode) {},
    ReplicatedJob(ReplicatedJobMode) { max_concurrent, total_completions },
    GlobalJob(GlobalJobMode) {},
});
message!(Dependency = Dependency { service, condition, required, restart });
enumeration!(DependencyCondition = DependencyCondition { Started, Healthy, Completed });
message!(Schedule = Schedule { cron, timezone, concurrency });
enumeration!(Concurrency = Concurrency { Forbid, Allow, Replace });
message!(
    TaskSpec = TaskSpec {
        container,
        resources,
        restart,
        placement,
        networks,
        host_network,
        log_driver,
        force_update,
        at_most_one,
        drain
    }
);

/// A service that asks for nothing here is written as before there was such a thing.
impl Field for Scheduling {
    type Proto = Option<pb::Scheduling>;

    fn to_field(&self) -> Self::Proto {
        let Scheduling { priority, min_available, rebalance_on_join } = *self;
        (*self != Scheduling::default()).then_some(pb::Scheduling { priority, min_available, rebalance_on_join })
    }

    fn from_field(proto: Self::Proto, _: &'static str) -> Result<Self, DecodeError> {
        let pb::Scheduling { priority, min_available, rebalance_on_join } = proto.unwrap_or_default();
        Ok(Scheduling { priority, min_available, rebalance_on_join })
    }
}

message!(NetworkAttachment = NetworkAttachment { network, aliases, address, address_v6 });

message!(EndpointSpec = EndpointSpec { mode, ports, session_affinity, prefer_local });
enumeration!(SessionAffinity = SessionAffinity { ClientIp });
enumeration!(EndpointMode = EndpointMode { Vip, DnsRr });
message!(PortSpec = PortSpec { name, protocol, target, published, mode, host_ip });
enumeration!(PortProtocol = PortProtocol { Tcp, Udp });
enumeration!(PublishMode = PublishMode { Ingress, Host });

message!(
    ContainerSpec = ContainerSpec {
        image,
        pull_policy,
        registry_auth,
        labels,
        command,
        args,
        env,
        working_dir,
        user,
        groups,
        hostname,
        domainname,
        init,
        tty,
        open_stdin,
        read_only,
        privileged,
        no_new_privileges,
        seccomp_unconfined,
        cap_add,
        cap_drop,
        sysctls,
        ulimits,
        shm_size,
        oom_score_adj,
        devices,
        stop_signal,
        stop_grace_period,
        health_check,
        mounts,
        secrets,
        configs,
        extra_hosts,
        dns_servers,
        dns_search,
        dns_options,
        on_change,
        post_start,
        pre_stop,
    }
);
enumeration!(PullPolicy = PullPolicy { Missing, Always, Never });
message!(Ulimit = Ulimit { name, soft, hard });
message!(LogDriver = LogDriver { name, options });
message!(SecretRef = SecretRef { secret, digest, file });
message!(ConfigRef = ConfigRef { config, digest, file });
message!(FileTarget = FileTarget { path, uid, gid, mode });

message!(HealthCheck = HealthCheck { test, interval, timeout, retries, start_period, start_interval });
message_field!(HealthTest);

impl Element for HealthTest {
    type Proto = pb::HealthTest;

    fn to_element(&self) -> pb::HealthTest {
        use pb::health_test::Kind;
        let kind = match self {
            HealthTest::Disabled => Kind::Disabled(pb::DisabledTest {}),
            HealthTest::Exec(words) => Kind::Exec(words.to_element()),
            HealthTest::Shell(line) => Kind::Shell(line.clone()),
        };
        pb::HealthTest { kind: Some(kind) }
    }

    fn from_element(proto: pb::HealthTest, _: &'static str) -> Result<Self, DecodeError> {
        use pb::health_test::Kind;
        match proto.kind.ok_or(DecodeError::UnknownChoice { field: "HealthTest.kind" })? {
            Kind::Disabled(pb::DisabledTest {}) => Ok(HealthTest::Disabled),
            Kind::Exec(pb::Words { words }) => Ok(HealthTest::Exec(words)),
            Kind::Shell(line) => Ok(HealthTest::Shell(line)),
        }
    }
}

message!(Hook = Hook { command, user, working_dir, env, privileged });
message!(Mount = Mount { target, read_only, kind });
choice!(MountKind = MountKind in mount_kind {;
    Bind(BindMount) { source, propagation, create_source, non_recursive },
    Volume(VolumeMount) { name, no_copy, subpath, driver, options, labels },
    Tmpfs(TmpfsMount) { size, mode },
});
enumeration!(Propagation = Propagation { RPrivate, Private, RShared, Shared, RSlave, Slave });

message!(Resources = Resources { limits, reservations, generic });
message!(GenericRequest = GenericRequest { kind, amount });
message!(Limits = Limits { nano_cpus, memory, pids });
message!(Reservations = Reservations { nano_cpus, memory });
message!(RestartPolicy = RestartPolicy { condition, delay, max_attempts, window });
enumeration!(Condition = Condition { None, OnFailure, Any });
message!(
    Placement = Placement {
        constraints,
        preferences,
        max_replicas_per_node,
        platforms,
        strategy,
        affinity,
        anti_affinity,
        volumes,
    }
);
enumeration!(PlacementStrategy = Strategy { Spread, BinPack });
enumeration!(VolumePlacement = VolumePlacement { Free, Stay });
message!(Constraint = Constraint { key, op, value });
enumeration!(ConstraintOp = ConstraintOp { Equal, NotEqual });
message!(Preference = Preference { spread });
message!(PlatformSpec = Platform { os, architecture, variant });
message!(UpdateConfig = UpdatePolicy { parallelism, delay, failure_action, monitor, max_failure_ratio, order });
enumeration!(FailureAction = FailureAction { Pause, Continue, Rollback });
enumeration!(UpdateOrder = UpdateOrder { StopFirst, StartFirst });

message!(
    NetworkSpec = NetworkSpec {
        name,
        labels,
        driver,
        driver_options,
        internal,
        attachable,
        subnet,
        gateway,
        ipv6,
        subnet_v6,
        ip_range,
        aux_addresses
    }
);
