//! The local service: what the command line asks of the daemon on its own machine.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use skep_agent::{Known, VolumeError, chain, credentials, describe, firewall, host_complaints};
use skep_api::{
    ArchiveChunk, BackupPart, BackupRequest, Caller, ContainerList, ContainerSummary, Examined, ImageList, ImageLoaded,
    ImageRemoved, ImageSummary, InitRequest, Initialized, JoinRequest, Joined, LayerProgress, LeaveRequest, Left,
    ListContainersRequest, Local, LocalInfo, ManagerTarget, Messages, PullImageRequest, PullProgress, RecoverRequest,
    Recovered, Refusal, RefusalKind, RemoveImageRequest, RemoveVolumeRequest, RestorePart, Restored, UnlockRequest,
    VolumeList, VolumeSummary,
};
use skep_image::{ErrorKind, ImageError, Platform, Progress, Reference, Roots};
use skep_model::{MountKind, TaskState, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::member::Member;
use super::membership::Membership;

const QUEUE: usize = 64;

pub struct LocalService(pub Arc<Membership>);

impl Local for LocalService {
    async fn info(&self, _: Caller, (): ()) -> Result<LocalInfo, Refusal> {
        let Membership { config, warnings, .. } = &*self.0;
        let description = describe(&[], &[]);
        let running = self.0.tasks().await.iter().filter(|known| known.status.state == TaskState::Running).count();
        let look = |member: &Member| (member.tls.identity(), member.file.advertise_address.clone());
        let (identity, advertise_address) = self.0.look(look).await.unzip();
        let agent = self.0.look(|member| (member.agent.managers().borrow().clone(), member.agent.is_connected())).await;
        let (managers, connected) = agent.unwrap_or_default();
        let network = self.0.look(|member| member.agent.network()).await;
        let (carrier, peers) = match network {
            Some(network) => (Some(network.carrier().to_owned()), network.peers().await),
            None => (None, Vec::new()),
        };
        let found = self.0.look(|member| member.warnings()).await.unwrap_or_default();
        Ok(LocalInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: description.hostname,
            kernel: description.kernel,
            data_dir: config.data_dir.display().to_string(),
            run_dir: config.run_dir.display().to_string(),
            node: identity.map(|identity| identity.node_id),
            cluster: identity.map(|identity| identity.cluster_id),
            role: identity.map(|identity| identity.role),
            managers,
            manager_reachable: connected,
            listen_address: config.listen_address().to_string(),
            advertise_address: advertise_address.unwrap_or_default(),
            containers_running: running as u64,
            warnings: warnings.iter().cloned().chain(found).collect(),
            locked: self.0.refuse_locked().is_err(),
            tunnel_port: config.tunnel_port,
            carrier,
            peers,
        })
    }

    async fn init(&self, _: Caller, request: InitRequest) -> Result<Initialized, Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.init(request).await }).await
    }

    async fn join(&self, _: Caller, request: JoinRequest) -> Result<Joined, Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.join(request).await }).await
    }

    async fn leave(&self, _: Caller, request: LeaveRequest) -> Result<Left, Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.leave(request).await }).await
    }

    async fn unlock(&self, _: Caller, request: UnlockRequest) -> Result<(), Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.unlock(request).await }).await
    }

    async fn recover(&self, _: Caller, request: RecoverRequest) -> Result<Recovered, Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.recover(request).await }).await
    }

    async fn backup(&self, _: Caller, BackupRequest {}: BackupRequest) -> Result<Messages<BackupPart>, Refusal> {
        self.0.backup().await
    }

    async fn restore(&self, _: Caller, input: Messages<RestorePart>) -> Result<Restored, Refusal> {
        let membership = Arc::clone(&self.0);
        to_its_end(async move { membership.restore(input).await }).await
    }

    async fn list_images(&self, _: Caller, (): ()) -> Result<ImageList, Refusal> {
        self.0.refuse_locked()?;
        let mut images: Vec<ImageSummary> = Vec::new();
        let tasks = self.0.tasks().await;
        for image in self.0.images.list().map_err(refused)? {
            let name = format!("{}:{}", image.repository, image.tag.as_deref().unwrap_or("<none>"));
            let id = image.id.to_string();
            if let Some(known) = images
                .iter_mut()
                .find(|known| known.id == id && known.digest.as_deref() == Some(&image.digest.to_string()))
            {
                known.names.push(name);
                continue;
            }
            let runs = |known: &&Known| {
                known.task.spec.container.image.contains(&image.digest.to_string()) && !known.status.state.is_terminal()
            };
            images.push(ImageSummary {
                id,
                names: vec![name],
                digest: Some(image.digest.to_string()),
                created_at: image.created.as_deref().and_then(created_at).unwrap_or_default(),
                size: image.size,
                containers: tasks.iter().filter(runs).count() as u64,
            });
        }
        Ok(ImageList { images })
    }

    async fn remove_image(&self, _: Caller, request: RemoveImageRequest) -> Result<ImageRemoved, Refusal> {
        self.0.refuse_locked()?;
        let RemoveImageRequest { wanted, force } = request;
        let reference = self.find_image(&wanted)?;
        let image = self.0.images.find(&reference).map_err(refused)?;
        let image = image.ok_or_else(|| not_here(&wanted))?;
        let uses = |known: &&Known| {
            !known.status.state.is_terminal() && known.task.spec.container.image.contains(&image.digest.to_string())
        };
        let tasks = self.0.tasks().await;
        if let Some(user) = tasks.iter().find(uses).filter(|_| !force) {
            let message = format!("image {wanted} is in use by task {}; remove its service first", user.task.name());
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let untagged = self.0.images.remove(&reference).map_err(refused)?;
        let id = image.id.to_string();
        drop(image);
        self.0.images.gc(&self.roots(&tasks)).await.map_err(refused)?;
        let still_here = self.0.images.list().map_err(refused)?.iter().any(|image| image.id.to_string() == id);
        let deleted = if still_here { Vec::new() } else { vec![id] };
        Ok(ImageRemoved { untagged: untagged.iter().map(Reference::familiar).collect(), deleted })
    }

    async fn list_volumes(&self, _: Caller, (): ()) -> Result<VolumeList, Refusal> {
        self.0.refuse_locked()?;
        let tasks = self.0.tasks().await;
        let volumes = self.0.volumes.list().map_err(|error| Refusal::internal(&error))?;
        let summary = |volume: skep_agent::Volume| VolumeSummary {
            driver: "local".to_owned(),
            mountpoint: volume.mountpoint.display().to_string(),
            labels: volume.labels,
            options: volume.options,
            created_at: Timestamp(
                volume.created_at.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64),
            ),
            containers: tasks.iter().filter(|known| mounts(known, &volume.name)).count() as u64,
            name: volume.name,
        };
        Ok(VolumeList { volumes: volumes.into_iter().map(summary).collect() })
    }

    async fn remove_volume(&self, _: Caller, request: RemoveVolumeRequest) -> Result<(), Refusal> {
        self.0.refuse_locked()?;
        let RemoveVolumeRequest { name, force } = request;
        if let Some(user) = self.0.tasks().await.iter().find(|known| mounts(known, &name)) {
            let message = format!("volume {name} is in use by task {}; remove its service first", user.task.name());
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        match self.0.volumes.remove(&name) {
            Ok(()) => Ok(()),
            Err(VolumeError::NotFound(_)) if force => Ok(()),
            Err(error @ VolumeError::NotFound(_)) => Err(Refusal::new(RefusalKind::NotFound, error.to_string())),
            Err(error @ VolumeError::InUse { .. }) => Err(Refusal::new(RefusalKind::Conflict, error.to_string())),
            Err(error @ VolumeError::Name(_)) => Err(Refusal::new(RefusalKind::Invalid, error.to_string())),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }

    async fn list_containers(&self, _: Caller, request: ListContainersRequest) -> Result<ContainerList, Refusal> {
        self.0.refuse_locked()?;
        let tasks = self.0.tasks().await;
        let shown = tasks.into_iter().filter(|known| request.all || !known.status.state.is_terminal());
        Ok(ContainerList { containers: shown.filter_map(container).collect() })
    }

    async fn examine(&self, _: Caller, (): ()) -> Result<Examined, Refusal> {
        let looked = self.0.look(|member| (member.agent.examiner(), member.agent.managers().borrow().clone())).await;
        let Some((examiner, managers)) = looked else {
            let complaints = host_complaints(&self.0.config.data_dir);
            return Ok(Examined { complaints, firewall: firewall("/".as_ref()), ..Examined::default() });
        };
        let targets = managers.into_iter().map(|address| ManagerTarget { node: None, address });
        Ok(examiner.examine(targets.collect()).await)
    }

    async fn pull_image(&self, _: Caller, request: PullImageRequest) -> Result<Messages<PullProgress>, Refusal> {
        let PullImageRequest { reference, registry_auth } = request;
        let reference: Reference =
            reference.parse().map_err(|error| Refusal::new(RefusalKind::Invalid, chain(&error)))?;
        let login = registry_auth
            .as_deref()
            .map(credentials)
            .transpose()
            .map_err(|error| Refusal::new(RefusalKind::Invalid, error))?;
        let (sender, progress) = mpsc::channel(QUEUE);
        let images = self.0.images.clone();
        // On a thread of its own, as in the agent: rust#102211.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                let told = sender.clone();
                // Progress is for the eye: what does not fit into the queue is left out.
                let tell = move |step: Progress| drop(told.try_send(Ok(pull_progress(step))));
                let pulled = images.pull(&reference, login.as_ref(), &Platform::host(), tell).await;
                let last = pulled.map(|image| PullProgress::Done(image.digest.to_string())).map_err(refused);
                // A user who went away does not hear the end.
                let _ = sender.send(last).await;
            })
        });
        Ok(ReceiverStream::new(progress).boxed())
    }

    async fn load_image(&self, _: Caller, input: Messages<ArchiveChunk>) -> Result<ImageLoaded, Refusal> {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let feeding = feed(input, sender);
        let reader = ChunkReader { chunks, current: bytes::Bytes::new() };
        let platforms = Platform::host();
        let loading = self.0.images.load(reader, &platforms);
        let (fed, loaded) = futures::join!(feeding.boxed(), loading);
        fed?;
        let loaded = loaded.map_err(refused)?;
        Ok(ImageLoaded { names: loaded.iter().map(|loaded| loaded.reference.familiar()).collect() })
    }
}

impl LocalService {
    /// By name, or by id or a prefix of it.
    fn find_image(&self, wanted: &str) -> Result<Reference, Refusal> {
        let images = self.0.images.list().map_err(refused)?;
        let bare = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let by_id = |image: &&skep_image::ImageSummary| {
            let id = image.id.to_string();
            bare.len() >= 4 && id.strip_prefix("sha256:").unwrap_or(&id).starts_with(bare)
        };
        if let Some(image) = images.iter().find(by_id) {
            return Ok(image.reference.clone());
        }
        wanted.parse().map_err(|error| Refusal::new(RefusalKind::Invalid, chain(&error)))
    }

    /// What tasks of this node still need.
    fn roots(&self, tasks: &[Known]) -> Roots {
        let digests = tasks.iter().filter_map(|known| known.task.spec.container.image.split_once('@'));
        let in_use: BTreeSet<_> = digests.filter_map(|(_, digest)| digest.parse().ok()).collect();
        Roots { in_use, ..Roots::default() }
    }
}

fn mounts(known: &Known, volume: &str) -> bool {
    let named =
        |mount: &skep_model::Mount| matches!(&mount.kind, MountKind::Volume { name: Some(name), .. } if name == volume);
    !known.status.state.is_terminal() && known.task.spec.container.mounts.iter().any(named)
}

fn container(known: Known) -> Option<ContainerSummary> {
    let Known { task, status, healthy, .. } = known;
    let spec = &task.spec.container;
    let words = spec.command.iter().flatten().chain(spec.args.iter().flatten()).map(String::as_str);
    Some(ContainerSummary {
        id: task.id.to_string(),
        name: task.container_name(),
        image: spec.image.split_once('@').map_or(spec.image.as_str(), |(name, _)| name).to_owned(),
        command: words.collect::<Vec<_>>().join(" "),
        created_at: task.meta.created_at,
        state: status.state,
        status: status.container?,
        ports: status.ports,
        task: task.id,
        service: task.service,
        healthy,
    })
}

fn pull_progress(step: Progress) -> PullProgress {
    let layer = |layer: skep_image::Digest, action: &str, current, total| {
        PullProgress::Layer(LayerProgress { layer: layer.to_string(), action: action.to_owned(), current, total })
    };
    match step {
        Progress::Resolved { digest, layers, compressed_bytes } => {
            PullProgress::Status(format!("{digest}: {layers} layers, {compressed_bytes} bytes compressed"))
        }
        Progress::Present { layer: id } => layer(id, "done", 0, None),
        Progress::Downloading { layer: id, bytes, of_bytes } => layer(id, "downloading", bytes, Some(of_bytes)),
        Progress::Unpacked { layer: id } => layer(id, "done", 0, None),
    }
}

/// A task of its own: becoming a member or leaving is not to stop half-way because its user went away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(|error| Refusal::internal(&error))?
}

async fn feed(mut input: Messages<ArchiveChunk>, to: mpsc::Sender<bytes::Bytes>) -> Result<(), Refusal> {
    while let Some(chunk) = input.next().await {
        if to.send(chunk?.data).await.is_err() {
            // The loader has ended, and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// The pieces of an upload as one stream, for the thread that unpacks.
struct ChunkReader {
    chunks: mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

fn created_at(text: &str) -> Option<Timestamp> {
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
}

fn not_here(wanted: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("image {wanted} is not on this node; `skep image ls` lists what is"))
}

fn refused(error: ImageError) -> Refusal {
    let kind = match error.kind() {
        ErrorKind::NotFound => RefusalKind::NotFound,
        ErrorKind::Unauthorized => RefusalKind::Denied,
        ErrorKind::Unreachable => RefusalKind::Unavailable,
        ErrorKind::Invalid | ErrorKind::NoPlatform => RefusalKind::Invalid,
        ErrorKind::DiskFull | ErrorKind::Local => RefusalKind::Internal,
    };
    Refusal::new(kind, chain(&error))
}
