//! From a task and its image to the runtime's plan: Docker's rules for what a process gets.
//!
//! Pure: every path, address and byte that the plan needs is handed in; reading, pulling and mounting is
//! the driver's work.
//! Source of the rules: image-spec config.md and the behaviour of `docker service create`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use skep_image::ImageConfig;
use skep_model::{ContainerSpec, GenericResource, LogDriver, MountKind, Propagation, Task, Ulimit};
use skep_runtime::cgroup::Limits;
use skep_runtime::logs::RotationConfig;
use skep_runtime::plan::{
    self as runtime, Bind, CgroupPlan, CreateSource, Device, LeasePlan, LogPlan, Mount, Network, Resource, Rlimit,
    Rootfs, Seccomp, Tmpfs,
};
use skep_runtime::{Plan, Signal, caps};

use super::template::{NodeFacts, expand};

/// What the driver has prepared for the container.
#[derive(Debug)]
pub struct Prepared<'a> {
    pub image: &'a ImageConfig,
    /// The image's layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Folder of the container's own: upper, work, merged and the log lie in it.
    pub folder: PathBuf,
    pub cgroup_parent: String,
    pub network: Network,
    /// Host folder of each volume mount, by target: the spec's named and anonymous ones and the image's.
    pub volumes: BTreeMap<String, PathBuf>,
    /// `(file or folder on the host, path in the container)`: hosts, resolv.conf, secrets and configs.
    pub files: Vec<(PathBuf, String)>,
}

/// The plan of a task's container, or why there can be none, in words for its status.
pub fn container_plan(task: &Task, node: &NodeFacts, prepared: Prepared<'_>) -> Result<Plan, String> {
    let spec = &task.spec.container;
    let Prepared { image, layers, folder, cgroup_parent, network, volumes, files } = prepared;
    let rootfs = Rootfs {
        lower: layers,
        upper: folder.join("upper"),
        work: folder.join("work"),
        merged: folder.join("merged"),
        read_only: spec.read_only,
    };
    let cgroup = CgroupPlan { parent: cgroup_parent, limits: limits(task) };
    let log = log_plan(task.spec.log_driver.as_ref(), folder.join("log.json"))?;
    let mut plan = Plan::new(task.id.to_string(), argv(spec, image)?, rootfs, cgroup, log);
    plan.env = environment(task, image, node)?;
    plan.cwd = working_dir(spec, image);
    plan.user = spec.user.clone().unwrap_or_else(|| image.user.clone());
    plan.groups.clone_from(&spec.groups);
    plan.hostname = Some(hostname(task, node)?);
    plan.domainname.clone_from(&spec.domainname);
    plan.mounts = mounts(task, node, &volumes, files)?;
    plan.sysctls = spec.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    plan.rlimits = spec.ulimits.iter().map(rlimit).collect::<Result<_, _>>()?;
    plan.capabilities =
        caps::effective(&spec.cap_add, &spec.cap_drop, spec.privileged).map_err(|error| error.to_string())?;
    plan.seccomp = seccomp_filter(spec, plan.capabilities)?;
    plan.no_new_privileges = spec.no_new_privileges;
    plan.devices = spec.devices.iter().map(|device| host_device(device)).collect::<Result<_, _>>()?;
    plan.privileged = spec.privileged;
    if spec.privileged {
        (plan.masked_paths, plan.read_only_paths) = (Vec::new(), Vec::new());
    }
    if let Some(size) = spec.shm_size {
        plan.shm_size_bytes = size.0;
    }
    plan.oom_score_adj = spec.oom_score_adj.unwrap_or(0);
    (plan.init, plan.tty, plan.open_stdin) = (spec.init, spec.tty, spec.open_stdin);
    plan.stop_signal = stop_signal(spec, image)?;
    plan.network = network;
    plan.lease = task.spec.at_most_one.then(|| LeasePlan { stop_grace: spec.stop_grace() });
    Ok(plan)
}

/// Targets that want a volume: the spec's volume mounts, and the image's volumes that nothing else covers.
///
/// The name is absent for volumes that live and end with the task.
pub fn volume_targets(spec: &ContainerSpec, image: &ImageConfig) -> Vec<(String, Option<String>)> {
    let mut targets: Vec<(String, Option<String>)> = Vec::new();
    for mount in &spec.mounts {
        if let MountKind::Volume { name, .. } = &mount.kind {
            targets.push((mount.target.clone(), name.clone()));
        }
    }
    let covered = |path: &str| spec.mounts.iter().any(|m| m.target.trim_end_matches('/') == path.trim_end_matches('/'));
    targets.extend(image.volumes.iter().filter(|path| !covered(path)).map(|path| (path.clone(), None)));
    targets
}

/// The service's command clears the image's arguments; its arguments alone keep the image's entry point.
fn argv(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, String> {
    let (entrypoint, image_args) = match &spec.command {
        Some(command) => (command.clone(), Vec::new()),
        None => (image.entrypoint.clone(), image.cmd.clone()),
    };
    let args = spec.args.clone().unwrap_or(image_args);
    let argv: Vec<String> = entrypoint.into_iter().chain(args).collect();
    if argv.is_empty() {
        return Err("no command specified: neither the image nor the service says what to run".to_owned());
    }
    Ok(argv)
}

fn environment(task: &Task, image: &ImageConfig, node: &NodeFacts) -> Result<Vec<String>, String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = image.env.clone();
    for entry in &task.spec.container.env {
        env.retain(|existing| key(existing) != key(entry));
        if entry.contains('=') {
            env.push(expand(entry, task, node)?);
        }
    }
    for given in &task.generic {
        let entry = generic_entry(given);
        env.retain(|existing| key(existing) != key(&entry));
        env.push(entry);
    }
    Ok(env)
}

/// `DOCKER_RESOURCE_GPU=UUID1,UUID2`, or how many where they have no names: as Docker tells a container what it was given.
fn generic_entry(given: &GenericResource) -> String {
    let GenericResource { kind, amount, ids } = given;
    let value = if ids.is_empty() { amount.to_string() } else { ids.join(",") };
    format!("DOCKER_RESOURCE_{}={value}", kind.to_uppercase())
}

fn working_dir(spec: &ContainerSpec, image: &ImageConfig) -> String {
    let base = if image.working_dir.is_empty() { "/" } else { &image.working_dir };
    match &spec.working_dir {
        None => base.to_owned(),
        Some(dir) if dir.starts_with('/') => dir.clone(),
        Some(dir) => format!("{}/{dir}", base.trim_end_matches('/')),
    }
}

/// As Docker: the first 12 characters of the container's id where the service names no host name, and the node's own in
/// the node's network.
pub fn hostname(task: &Task, node: &NodeFacts) -> Result<String, String> {
    match &task.spec.container.hostname {
        Some(hostname) => expand(hostname, task, node),
        None if task.spec.host_network => Ok(node.hostname.clone()),
        None => Ok(task.id.short()),
    }
}

fn limits(task: &Task) -> Limits {
    let wanted = task.spec.resources.limits;
    let mut limits = Limits {
        memory: wanted.memory.map(|memory| memory.0),
        memory_reservation: task.spec.resources.reservations.memory.map(|memory| memory.0),
        pids: wanted.pids,
        ..Limits::default()
    };
    if let Some(cpus) = wanted.nano_cpus {
        limits = limits.with_nano_cpus(cpus.0);
    }
    limits
}

fn log_plan(driver: Option<&LogDriver>, path: PathBuf) -> Result<LogPlan, String> {
    let option = |name: &str| driver.and_then(|driver| driver.options.get(name));
    let mut rotation = RotationConfig::default();
    if let Some(text) = option("max-size") {
        rotation.max_size =
            size_bytes(text).ok_or_else(|| format!("log option max-size `{text}` is not a size such as 10m"))?;
    }
    if let Some(text) = option("max-file") {
        let files = text.parse().ok().filter(|files| *files > 0);
        rotation.max_files = files.ok_or_else(|| format!("log option max-file `{text}` is not a number above 0"))?;
    }
    Ok(LogPlan { path, rotation })
}

/// `10m`, `500k`, `1g`: Docker's log sizes count in thousands.
fn size_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b');
    let (digits, factor) = match number.chars().last()? {
        'k' => (&number[..number.len() - 1], 1_000),
        'm' => (&number[..number.len() - 1], 1_000_000),
        'g' => (&number[..number.len() - 1], 1_000_000_000),
        _ => (number, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

/// The service's mounts, shallow targets first so that none hides another, then the prepared files.
fn mounts(
    task: &Task,
    node: &NodeFacts,
    volumes: &BTreeMap<String, PathBuf>,
    files: Vec<(PathBuf, String)>,
) -> Result<Vec<Mount>, String> {
    let depth = |target: &str| target.split('/').filter(|part| !part.is_empty()).count();
    let mut placed: Vec<(usize, Mount)> = Vec::new();
    for mount in &task.spec.container.mounts {
        let made = match &mount.kind {
            MountKind::Bind { source, propagation, create_source, non_recursive: _ } => Mount::Bind(Bind {
                read_only: mount.read_only,
                propagation: propagation_of(*propagation),
                create: if *create_source { CreateSource::Dir } else { CreateSource::No },
                ..Bind::new(expand(source, task, node)?, &mount.target)
            }),
            MountKind::Volume { .. } => continue,
            MountKind::Tmpfs { size, mode } => Mount::Tmpfs(Tmpfs {
                target: mount.target.clone(),
                size_bytes: size.map(|size| size.0),
                mode: *mode,
                options: if mount.read_only { vec!["ro".to_owned()] } else { Vec::new() },
            }),
        };
        placed.push((depth(&mount.target), made));
    }
    for (target, source) in volumes {
        let written = task.spec.container.mounts.iter().find(|mount| mount.target == *target);
        let no_copy = written.is_some_and(|mount| matches!(mount.kind, MountKind::Volume { no_copy: true, .. }));
        let read_only = written.is_some_and(|mount| mount.read_only);
        let bind = Bind { read_only, copy_up: !no_copy, create: CreateSource::Dir, ..Bind::new(source, target) };
        placed.push((depth(target), Mount::Bind(bind)));
    }
    placed.sort_by_key(|(depth, _)| *depth);
    let mut mounts: Vec<Mount> = placed.into_iter().map(|(_, mount)| mount).collect();
    // Secrets and configs are read-only; hosts, resolv.conf and the like are the container's to change, as all of its root.
    mounts.extend(files.into_iter().map(|(source, target)| {
        let of_root = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&target.as_str());
        let read_only = !of_root || task.spec.container.read_only;
        Mount::Bind(Bind { read_only, ..Bind::new(source, target) })
    }));
    Ok(mounts)
}

fn propagation_of(propagation: Propagation) -> runtime::Propagation {
    match propagation {
        Propagation::RPrivate | Propagation::Private => runtime::Propagation::Private,
        Propagation::RShared | Propagation::Shared => runtime::Propagation::Shared,
        Propagation::RSlave | Propagation::Slave => runtime::Propagation::Slave,
    }
}

fn rlimit(ulimit: &Ulimit) -> Result<Rlimit, String> {
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    let resource = Resource::parse(&ulimit.name).ok_or_else(|| {
        format!("ulimit `{}` is not known; use names such as nofile, nproc, memlock or core", ulimit.name)
    })?;
    Ok(Rlimit { resource, soft: finite(ulimit.soft), hard: finite(ulimit.hard) })
}

fn seccomp_filter(spec: &ContainerSpec, capabilities: u64) -> Result<Seccomp, String> {
    if spec.privileged || spec.seccomp_unconfined {
        return Ok(Seccomp::Unconfined);
    }
    Seccomp::docker_default(capabilities).map_err(|error| format!("the system call filter cannot be built: {error}"))
}

/// `/dev/source[:/dev/target[:permissions]]`: the node of that name on this machine.
fn host_device(text: &str) -> Result<Device, String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let target = parts.next().filter(|target| !target.is_empty()).unwrap_or(source);
    let found = std::fs::metadata(source).map_err(|error| format!("device {source}: {error}"))?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => runtime::DeviceKind::Char,
        kind if kind.is_block_device() => runtime::DeviceKind::Block,
        _ => return Err(format!("{source} is not a device")),
    };
    let number = found.rdev();
    Ok(Device {
        path: target.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: found.mode() & 0o777,
        uid: found.uid(),
        gid: found.gid(),
    })
}

fn stop_signal(spec: &ContainerSpec, image: &ImageConfig) -> Result<Signal, String> {
    match spec.stop_signal.as_ref().or(image.stop_signal.as_ref()) {
        None => Ok(Signal::TERM),
        Some(name) => {
            Signal::parse(name).ok_or_else(|| format!("stop signal `{name}` is not known; use a name such as SIGTERM"))
        }
    }
}
