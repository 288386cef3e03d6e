//! What a service's containers are made from, in the Engine's shape. Credentials are never shown.

use serde_json::{Value, json};
use skep_model::{
    ConfigRef, ContainerSpec, FileTarget, HealthCheck, HealthTest, Hook, Mount, MountKind, Propagation, SecretRef,
};

use super::{labels, nanos, present, unless_empty};

pub fn spec(spec: &ContainerSpec) -> Value {
    let flag = |flag: bool| flag.then_some(json!(true));
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let hosts: Vec<String> = spec.extra_hosts.iter().map(|(name, address)| format!("{address} {name}")).collect();
    let ulimits = spec.ulimits.iter();
    let ulimits: Vec<Value> = ulimits
        .map(|limit| json!({ "Name": limit.name, "Soft": limit.soft as i64, "Hard": limit.hard as i64 }))
        .collect();
    let dns = present([
        ("Nameservers", unless_empty(&spec.dns_servers)),
        ("Search", unless_empty(&spec.dns_search)),
        ("Options", unless_empty(&spec.dns_options)),
    ]);
    present([
        ("Image", Some(json!(spec.image))),
        ("Labels", labels(&spec.labels)),
        ("Command", spec.command.as_ref().map(|command| json!(command))),
        ("Args", spec.args.as_ref().map(|args| json!(args))),
        ("Env", unless_empty(&spec.env)),
        ("Dir", text(&spec.working_dir)),
        ("User", text(&spec.user)),
        ("Groups", unless_empty(&spec.groups)),
        ("Hostname", text(&spec.hostname)),
        ("Domainname", text(&spec.domainname)),
        ("Init", flag(spec.init)),
        ("TTY", flag(spec.tty)),
        ("OpenStdin", flag(spec.open_stdin)),
        ("ReadOnly", flag(spec.read_only)),
        ("Privileged", flag(spec.privileged)),
        ("Privileges", Some(json!({ "NoNewPrivileges": spec.no_new_privileges }))),
        ("CapabilityAdd", unless_empty(&spec.cap_add)),
        ("CapabilityDrop", unless_empty(&spec.cap_drop)),
        ("Sysctls", labels(&spec.sysctls)),
        ("Ulimits", unless_empty(&ulimits)),
        ("ShmSize", spec.shm_size.map(|size| json!(size.0))),
        ("OomScoreAdj", spec.oom_score_adj.map(|score| json!(score))),
        ("Devices", unless_empty(&spec.devices)),
        ("StopSignal", text(&spec.stop_signal)),
        ("StopGracePeriod", spec.stop_grace_period.map(nanos)),
        ("Healthcheck", spec.health_check.as_ref().map(health_check)),
        ("PostStart", unless_empty(&spec.post_start.iter().map(hook).collect::<Vec<_>>())),
        ("PreStop", unless_empty(&spec.pre_stop.iter().map(hook).collect::<Vec<_>>())),
        ("Mounts", unless_empty(&spec.mounts.iter().map(mount).collect::<Vec<_>>())),
        ("Secrets", unless_empty(&spec.secrets.iter().map(secret).collect::<Vec<_>>())),
        ("Configs", unless_empty(&spec.configs.iter().map(config).collect::<Vec<_>>())),
        ("Hosts", unless_empty(&hosts)),
        ("DNSConfig", Some(dns)),
    ])
}

fn health_check(check: &HealthCheck) -> Value {
    let test = check.test.as_ref().map(|test| match test {
        HealthTest::Disabled => json!(["NONE"]),
        HealthTest::Exec(argv) => json!(["CMD"].into_iter().chain(argv.iter().map(String::as_str)).collect::<Vec<_>>()),
        HealthTest::Shell(line) => json!(["CMD-SHELL", line]),
    });
    present([
        ("Test", test),
        ("Interval", check.interval.map(nanos)),
        ("Timeout", check.timeout.map(nanos)),
        ("Retries", check.retries.map(|retries| json!(retries))),
        ("StartPeriod", check.start_period.map(nanos)),
        ("StartInterval", check.start_interval.map(nanos)),
    ])
}

/// Not one of Docker's services: in compose's words.
fn hook(hook: &Hook) -> Value {
    let Hook { command, user, working_dir, env, privileged } = hook;
    present([
        ("Command", Some(json!(command))),
        ("User", user.as_ref().map(|user| json!(user))),
        ("WorkingDir", working_dir.as_ref().map(|dir| json!(dir))),
        ("Env", unless_empty(env)),
        ("Privileged", privileged.then_some(json!(true))),
    ])
}

fn mount(mount: &Mount) -> Value {
    let flag = |flag: bool| flag.then_some(json!(true));
    let (kind, source, options) = match &mount.kind {
        MountKind::Bind { source, propagation, create_source, non_recursive } => {
            let options = present([
                ("Propagation", Some(json!(propagation_name(*propagation)))),
                ("CreateMountpoint", flag(*create_source)),
                ("NonRecursive", flag(*non_recursive)),
            ]);
            ("bind", Some(source.clone()), ("BindOptions", options))
        }
        MountKind::Volume { name, no_copy, subpath, driver, options, labels: volume_labels } => {
            let driver = driver.as_ref();
            let options = present([
                ("NoCopy", flag(*no_copy)),
                ("Subpath", subpath.as_ref().map(|path| json!(path))),
                ("Labels", labels(volume_labels)),
                (
                    "DriverConfig",
                    driver.map(|driver| present([("Name", Some(json!(driver))), ("Options", labels(options))])),
                ),
            ]);
            ("volume", name.clone(), ("VolumeOptions", options))
        }
        MountKind::Tmpfs { size, mode } => {
            let options =
                present([("SizeBytes", size.map(|size| json!(size.0))), ("Mode", mode.map(|mode| json!(mode)))]);
            ("tmpfs", None, ("TmpfsOptions", options))
        }
    };
    present([
        ("Type", Some(json!(kind))),
        ("Source", source.map(|source| json!(source))),
        ("Target", Some(json!(mount.target))),
        ("ReadOnly", flag(mount.read_only)),
        (options.0, Some(options.1)),
    ])
}

fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::RPrivate => "rprivate",
        Propagation::Private => "private",
        Propagation::RShared => "rshared",
        Propagation::Shared => "shared",
        Propagation::RSlave => "rslave",
        Propagation::Slave => "slave",
    }
}

fn secret(reference: &SecretRef) -> Value {
    present([
        ("SecretName", Some(json!(reference.secret))),
        ("Digest", reference.digest.as_ref().map(|digest| json!(digest.to_string()))),
        ("File", Some(file(&reference.file))),
    ])
}

fn config(reference: &ConfigRef) -> Value {
    present([
        ("ConfigName", Some(json!(reference.config))),
        ("Digest", reference.digest.as_ref().map(|digest| json!(digest.to_string()))),
        ("File", Some(file(&reference.file))),
    ])
}

fn file(target: &FileTarget) -> Value {
    let FileTarget { path, uid, gid, mode } = target;
    json!({ "Name": path, "UID": uid.to_string(), "GID": gid.to_string(), "Mode": mode })
}
