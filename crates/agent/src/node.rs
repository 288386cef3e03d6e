//! What all tasks of a node share: folders, images, volumes, the keeper, and what the node knows of itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_image::ImageStore;
use skep_model::Timestamp;
use skep_runtime::{Created, Failure, Keeper, KeeperConfig, KeeperError, Plan};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::task::files::SecretStore;
use crate::task::template::NodeFacts;
use crate::volumes::VolumeStore;

/// Containers that are made at the same time; more wait, since each takes a thread and the machine is small.
const CREATES_AT_ONCE: usize = 8;
/// Before a keeper that cannot be started is tried again.
const KEEPER_RETRY: Duration = Duration::from_secs(1);

/// Where a node keeps its things, and how it is called.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// The cgroup below which the keeper and all containers are.
    pub cgroup_parent: String,
    /// The keeper's executable.
    pub keeper_elf: &'static [u8],
    pub facts: NodeFacts,
}

/// The node's shared means; one for each agent.
pub struct Node {
    pub settings: NodeSettings,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub secrets: SecretStore,
    keeper: Mutex<Option<Arc<Keeper>>>,
    creates: Semaphore,
}

impl Node {
    pub fn new(settings: NodeSettings, images: ImageStore, volumes: VolumeStore, secrets: SecretStore) -> Self {
        Self { settings, images, volumes, secrets, keeper: Mutex::new(None), creates: Semaphore::new(CREATES_AT_ONCE) }
    }

    /// The folder of a task's container: its writable layer, log and plain files.
    pub fn container_dir(&self, task: &str) -> PathBuf {
        self.containers_dir().join(task)
    }

    pub fn containers_dir(&self) -> PathBuf {
        self.settings.data_dir.join("containers")
    }

    pub fn run_dir(&self) -> &Path {
        &self.settings.run_dir
    }

    pub fn containers_cgroup(&self) -> String {
        format!("{}/c", self.settings.cgroup_parent.trim_end_matches('/'))
    }

    /// Makes a container; starts a keeper first if none lives.
    pub async fn create(self: &Arc<Self>, plan: Plan) -> Result<Created, Failure> {
        let _turn = self.creates.acquire().await.expect("the semaphore is never closed");
        let node = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || match node.create_blocking(&plan) {
            // The keeper went away: one more try with a new one.
            Err(failure) if failure.step == "keeper" => {
                node.forget_keeper();
                node.create_blocking(&plan)
            }
            made => made,
        });
        made.await.expect("making a container does not panic")
    }

    fn create_blocking(&self, plan: &Plan) -> Result<Created, Failure> {
        let keeper = self.keeper().map_err(|error| Failure {
            step: "keeper".to_owned(),
            message: chain(&error),
            exit_code: 125,
        })?;
        keeper.create(plan)
    }

    /// The live keeper, started where none is.
    pub fn keeper(&self) -> Result<Arc<Keeper>, KeeperError> {
        let mut known = self.keeper.lock().expect("no holder of this lock panics");
        if let Some(keeper) = &*known {
            return Ok(Arc::clone(keeper));
        }
        let NodeSettings { run_dir, cgroup_parent, keeper_elf, .. } = &self.settings;
        let config = KeeperConfig { run_dir: run_dir.clone(), cgroup_parent: cgroup_parent.clone() };
        let keeper = Arc::new(Keeper::ensure(&config, keeper_elf)?);
        *known = Some(Arc::clone(&keeper));
        Ok(keeper)
    }

    fn forget_keeper(&self) {
        *self.keeper.lock().expect("no holder of this lock panics") = None;
    }

    /// Keeps a keeper alive until `stop`: one that was killed is replaced, and finds its wardens again.
    pub async fn mind_keeper(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let node = Arc::clone(&self);
            let keeper =
                tokio::task::spawn_blocking(move || node.keeper()).await.expect("starting a keeper does not panic");
            let lost = async {
                match keeper
                    .map_err(|error| chain(&error))
                    .and_then(|keeper| watchable(&keeper).map_err(|error| error.to_string()))
                {
                    // Readable means that its end was closed.
                    Ok(watched) => watched.readable().await.map(drop).unwrap_or_default(),
                    Err(error) => {
                        tracing::error!(error, "no keeper could be started, it will be tried again");
                        tokio::time::sleep(KEEPER_RETRY).await;
                    }
                }
            };
            tokio::select! {
                () = lost => tracing::warn!("the keeper is gone, starting another"),
                () = stop.cancelled() => return,
            }
            self.forget_keeper();
        }
    }
}

#[expect(deprecated, reason = "the new constructor is unsafe; the descriptor is owned by what is registered")]
fn watchable(keeper: &Keeper) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    use std::os::fd::AsFd;
    AsyncFd::with_interest(keeper.as_fd().try_clone_to_owned()?, tokio::io::Interest::READABLE)
}

/// An error with its causes, for a status or a log field.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// The node's wall clock.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at.0)
}
