//! The parts in which two specs of a service differ, in the words of the file.

use skep_model::{ContainerSpec, EndpointSpec, Labels, Placement, ServiceSpec, TaskSpec};

use crate::convert::IMAGE_LABEL;

/// Collects the names of the parts that differ.
struct Changes(Vec<&'static str>);

impl Changes {
    fn part<T: PartialEq>(&mut self, name: &'static str, old: &T, new: &T) {
        if old != new && !self.0.contains(&name) {
            self.0.push(name);
        }
    }
}

/// Each part once, in the order of the file.
pub fn service_changes(old: &ServiceSpec, new: &ServiceSpec) -> Vec<&'static str> {
    let ServiceSpec {
        name: _,
        labels,
        mode,
        task,
        update,
        rollback,
        endpoint,
        progress_deadline,
        depends_on,
        schedule,
        scheduling,
    } = old;
    let TaskSpec {
        container,
        resources,
        restart,
        placement,
        networks,
        host_network,
        log_driver,
        force_update,
        at_most_one,
        drain,
    } = task;
    let EndpointSpec { mode: endpoint_mode, ports, session_affinity, prefer_local } = endpoint;
    let mut changes = Changes(Vec::new());
    container_changes(container, &new.task.container, &mut changes);
    // What follows from another image is not said a second time.
    let image_differs = container.image != new.task.container.image;
    let written = |labels: &Labels| {
        let mut labels = labels.clone();
        image_differs.then(|| labels.remove(IMAGE_LABEL));
        labels
    };
    let asked = |placement: &Placement| {
        let mut placement = placement.clone();
        image_differs.then(|| placement.platforms.clear());
        placement
    };
    changes.part("deploy.labels", &written(labels), &written(&new.labels));
    changes.part("deploy.replicas", mode, &new.mode);
    changes.part("deploy.resources", resources, &new.task.resources);
    changes.part("deploy.restart_policy", restart, &new.task.restart);
    changes.part("deploy.placement", &asked(placement), &asked(&new.task.placement));
    changes.part("networks", networks, &new.task.networks);
    changes.part("network_mode", host_network, &new.task.host_network);
    changes.part("logging", log_driver, &new.task.log_driver);
    changes.part("x-skep.at-most-one", at_most_one, &new.task.at_most_one);
    changes.part("x-skep.drain", drain, &new.task.drain);
    changes.part("x-skep.priority", &scheduling.priority, &new.scheduling.priority);
    changes.part("x-skep.min-available", &scheduling.min_available, &new.scheduling.min_available);
    changes.part("x-skep.rebalance", &scheduling.rebalance_on_join, &new.scheduling.rebalance_on_join);
    changes.part("x-skep.session-affinity", session_affinity, &new.endpoint.session_affinity);
    changes.part("x-skep.prefer-local", prefer_local, &new.endpoint.prefer_local);
    changes.part("force", force_update, &new.task.force_update);
    changes.part("deploy.update_config", update, &new.update);
    changes.part("deploy.rollback_config", rollback, &new.rollback);
    changes.part("deploy.endpoint_mode", endpoint_mode, &new.endpoint.mode);
    changes.part("x-skep.progress-deadline", progress_deadline, &new.progress_deadline);
    changes.part("depends_on", depends_on, &new.depends_on);
    changes.part("x-skep.schedule", schedule, &new.schedule);
    changes.part("ports", ports, &new.endpoint.ports);
    changes.0
}

fn container_changes(old: &ContainerSpec, new: &ContainerSpec, changes: &mut Changes) {
    let ContainerSpec {
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
    } = old;
    changes.part("image", image, &new.image);
    changes.part("pull_policy", pull_policy, &new.pull_policy);
    changes.part("registry credentials", registry_auth, &new.registry_auth);
    changes.part("labels", labels, &new.labels);
    changes.part("entrypoint", command, &new.command);
    changes.part("command", args, &new.args);
    changes.part("environment", env, &new.env);
    changes.part("working_dir", working_dir, &new.working_dir);
    changes.part("user", user, &new.user);
    changes.part("group_add", groups, &new.groups);
    changes.part("hostname", hostname, &new.hostname);
    changes.part("domainname", domainname, &new.domainname);
    changes.part("init", init, &new.init);
    changes.part("tty", tty, &new.tty);
    changes.part("stdin_open", open_stdin, &new.open_stdin);
    changes.part("read_only", read_only, &new.read_only);
    changes.part("privileged", privileged, &new.privileged);
    changes.part("security_opt", no_new_privileges, &new.no_new_privileges);
    changes.part("security_opt", seccomp_unconfined, &new.seccomp_unconfined);
    changes.part("cap_add", cap_add, &new.cap_add);
    changes.part("cap_drop", cap_drop, &new.cap_drop);
    changes.part("sysctls", sysctls, &new.sysctls);
    changes.part("ulimits", ulimits, &new.ulimits);
    changes.part("shm_size", shm_size, &new.shm_size);
    changes.part("oom_score_adj", oom_score_adj, &new.oom_score_adj);
    changes.part("devices", devices, &new.devices);
    changes.part("stop_signal", stop_signal, &new.stop_signal);
    changes.part("stop_grace_period", stop_grace_period, &new.stop_grace_period);
    changes.part("healthcheck", health_check, &new.health_check);
    changes.part("post_start", post_start, &new.post_start);
    changes.part("pre_stop", pre_stop, &new.pre_stop);
    changes.part("volumes", mounts, &new.mounts);
    changes.part("secrets", secrets, &new.secrets);
    changes.part("configs", configs, &new.configs);
    changes.part("extra_hosts", extra_hosts, &new.extra_hosts);
    changes.part("dns", dns_servers, &new.dns_servers);
    changes.part("dns_search", dns_search, &new.dns_search);
    changes.part("dns_opt", dns_options, &new.dns_options);
    changes.part("x-skep.on-change", on_change, &new.on_change);
}
