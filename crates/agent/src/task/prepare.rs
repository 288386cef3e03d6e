//! Making everything that a task's container needs, up to the container itself waiting before its command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_image::{Credentials, Image, Platform, Reference};
use skep_model::{ContainerSpec, Labels, Mount, MountKind, NetworkAddress, PortSpec, PullPolicy, Task};
use skep_overlay::snapshot::RESOLVER;
use skep_runtime::Plan;
use skep_runtime::plan::Network;

use super::contents::Contents;
use super::plan::{self, Prepared, container_plan, volume_targets};
use super::template::expand;
use super::{files, hooks};
use crate::network::{Attach, Attached, NetworkHandle};
use crate::node::{Node, chain};
use crate::volumes::{VolumeError, Wanted};

/// Why a task cannot run here, in words for its status.
#[derive(Debug)]
pub struct Unprepared {
    pub reason: String,
    /// As Docker's: 127, 126 or 125, where the container itself could not be made.
    pub exit_code: Option<i32>,
}

impl From<String> for Unprepared {
    fn from(reason: String) -> Self {
        Self { reason, exit_code: None }
    }
}

/// What became of the preparation.
#[derive(Debug)]
pub struct Ready {
    pub image: Image,
    pub addresses: Vec<NetworkAddress>,
    pub host_ports: Vec<PortSpec>,
    /// Limits that this kernel cannot hold, in words.
    pub warnings: Vec<String>,
}

/// A container that only has to be made.
#[derive(Debug)]
pub struct Planned {
    plan: Plan,
    image: Image,
    addresses: Vec<NetworkAddress>,
    host_ports: Vec<PortSpec>,
}

impl Planned {
    /// Makes the container. Must be awaited to its end: the keeper makes it whether or not anybody waits.
    pub async fn create(self, node: &Arc<Node>) -> Result<Ready, Unprepared> {
        let Self { plan, image, addresses, host_ports } = self;
        let created = node.create(plan).await.map_err(|failure| Unprepared {
            reason: format!("starting container failed ({}): {}", failure.exit_code, failure.message),
            exit_code: Some(failure.exit_code),
        })?;
        Ok(Ready { image, addresses, host_ports, warnings: created.warnings })
    }
}

/// Prepares everything up to the container itself; may be dropped. The error is the task's, in words; what
/// was made until then is taken away by the task's clean-up.
pub async fn plan(
    node: &Arc<Node>,
    network: &NetworkHandle,
    task: &Task,
    contents: &Contents,
) -> Result<Planned, Unprepared> {
    let spec = &task.spec.container;
    let image = pull(node, spec).await?;
    let hostname = plan::hostname(task, &node.settings.facts)?;
    let attached = match task.spec.host_network {
        true => None,
        false => Some(network.attach(Attach::of(task, hostname.clone())).await?),
    };
    let folder = node.container_dir(&task.id.to_string());
    fresh_folder(&folder).map_err(|error| format!("failed to prepare the folder `{}`: {error}", folder.display()))?;
    let mut files = text_files(&folder, spec, &hostname, attached.as_ref())?;
    files.extend(contents.deliver(node, task)?.mounts);
    let prepared = Prepared {
        image: &image.config,
        layers: image.layers.iter().rev().cloned().collect(),
        cgroup_parent: node.containers_cgroup(),
        network: attached.as_ref().map_or(Network::Host, |attached| Network::Path(attached.netns.clone())),
        volumes: volumes(node, task, &image, &folder).await?,
        folder,
        files,
    };
    let plan = container_plan(task, &node.settings.facts, prepared)?;
    let (addresses, host_ports) = attached.map(|it| (it.addresses, it.host_ports)).unwrap_or_default();
    Ok(Planned { plan, image, addresses, host_ports })
}

/// The task's image on this node: found, or pulled.
pub async fn pull(node: &Node, spec: &ContainerSpec) -> Result<Image, String> {
    let reference: Reference = spec.image.parse().map_err(|error| chain(&error))?;
    if spec.pull_policy != PullPolicy::Always || reference.digest().is_some() {
        match node.images.find(&reference) {
            Ok(Some(image)) => return Ok(image),
            Ok(None) if spec.pull_policy == PullPolicy::Never => {
                return Err(format!("image `{}` is not on this node, and its pull policy is never", spec.image));
            }
            Ok(None) => {}
            Err(error) => return Err(chain(&error)),
        }
    }
    let credentials = spec.registry_auth.as_deref().map(credentials).transpose()?;
    let images = node.images.clone();
    // On a thread of its own: of the pull's future the compiler cannot see that it may move between threads
    // (rust#102211). It waits for the network and the disk all the while.
    let runtime = tokio::runtime::Handle::current();
    let pulling = tokio::task::spawn_blocking(move || {
        runtime.block_on(images.pull(&reference, credentials.as_ref(), &Platform::host(), |_| {}))
    });
    pulling.await.expect("pulling an image does not panic").map_err(|error| chain(&error))
}

/// Credentials as they came with the spec: base64 of their JSON.
pub fn credentials(text: &str) -> Result<Credentials, String> {
    use base64::Engine as _;
    let broken = "the registry credentials of the service cannot be read; deploy again with --with-registry-auth";
    let json = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| broken.to_owned())?;
    serde_json::from_slice(&json).map_err(|_| broken.to_owned())
}

/// The container's own folder without what an earlier run of the task left; its log stays.
fn fresh_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for part in ["upper", "work", "merged"] {
        match std::fs::remove_dir_all(folder.join(part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    hooks::forget(folder)
}

fn text_files(
    folder: &Path,
    spec: &ContainerSpec,
    hostname: &str,
    attached: Option<&Attached>,
) -> Result<Vec<(PathBuf, String)>, String> {
    let (hosts, resolv) = match attached {
        Some(Attached { addresses, gateway, .. }) => {
            let resolver = (!addresses.is_empty()).then_some(RESOLVER);
            (files::hosts(spec, hostname, addresses, *gateway)?, files::resolv_conf(spec, resolver))
        }
        None => (files::hosts_of_node(spec)?, files::resolv_conf_of_node(spec)),
    };
    let name = format!("{hostname}\n");
    let written = [
        ("hosts", "/etc/hosts", hosts.as_str()),
        ("resolv.conf", "/etc/resolv.conf", resolv.as_str()),
        ("hostname", "/etc/hostname", name.as_str()),
    ];
    files::write_plain(folder, &written)
        .map_err(|error| format!("failed to write the files of `{}`: {error}", folder.display()))
}

/// The host folder of each volume target. On a thread of its own: a volume may be a server's.
async fn volumes(
    node: &Arc<Node>,
    task: &Task,
    image: &Image,
    folder: &Path,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let (node, task, folder) = (Arc::clone(node), task.clone(), folder.to_owned());
    let targets = volume_targets(&task.spec.container, &image.config);
    let made = tokio::task::spawn_blocking(move || {
        let mut sources = BTreeMap::new();
        for (number, (target, name)) in targets.into_iter().enumerate() {
            let written = task.spec.container.mounts.iter().find(|mount| mount.target == target);
            let source = match &name {
                Some(name) => named_volume(&node, &task, name, written)?,
                None => folder.join("volumes").join(number.to_string()),
            };
            std::fs::create_dir_all(&source)
                .map_err(|error| format!("failed to create `{}`: {error}", source.display()))?;
            sources.insert(target, source);
        }
        Ok(sources)
    });
    made.await.expect("making volumes does not panic")
}

fn named_volume(node: &Node, task: &Task, name: &str, written: Option<&Mount>) -> Result<PathBuf, String> {
    let facts = &node.settings.facts;
    let (name, none) = (expand(name, task, facts)?, Labels::new());
    let id = task.id.to_string();
    let Some(MountKind::Volume { driver, options, labels, subpath, .. }) = written.map(|mount| &mount.kind) else {
        let wanted = Wanted { name: &name, labels: &none, options: &none, subpath: None };
        return node.volumes.take(&id, wanted).map_err(|error| chain(&error));
    };
    if let Some(driver) = driver.as_deref().filter(|driver| *driver != "local") {
        return Err(VolumeError::Driver { name, driver: driver.to_owned() }.to_string());
    }
    let expanded = options.iter().map(|(key, value)| Ok((key.clone(), expand(value, task, facts)?)));
    let options = expanded.collect::<Result<Labels, String>>()?;
    let wanted = Wanted { name: &name, labels, options: &options, subpath: subpath.as_deref() };
    node.volumes.take(&id, wanted).map_err(|error| chain(&error))
}
