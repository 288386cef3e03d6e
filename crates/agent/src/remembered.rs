//! The node's last assignments on its own disk: `<data>/agent/assignments`.
//!
//! ```text
//! format (u16) | sealed: what `skep_api::encode_assignments` writes
//! ```
//! A worker that finds no manager after a power cut starts from it. Sealed as a whole with a key that follows from the
//! node's own (docs/adr/0007): the set holds secrets and registry credentials, which otherwise reach a tmpfs only.
//! Written when the set or the end of a task changed, gathered, and replaced as a whole: an idle node writes nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_api::{AssignedContent, Assignment, Assignments, DecodeError, decode_assignments, encode_assignments};
use skep_identity::{FileError, SealError, SealingKey, write_private};
use skep_model::{Task, TaskId, TaskStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::network_view::ClusterView;
use crate::node::chain;
use crate::reporter::Reporter;

const FORMAT: u16 = 1;
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// Between two writes: a card wears out, and a deploy is many changes.
const PAUSE: Duration = Duration::from_secs(1);
/// Before a write that failed (a full disk) is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the node has, as the worker holds it. Cheap to make.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub tasks: Vec<Arc<Task>>,
    pub secrets: Vec<AssignedContent>,
    pub configs: Vec<AssignedContent>,
    pub cluster: ClusterView,
}

#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    #[error("failed to read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to create `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` has format {found}, this version of skep reads {FORMAT}", path.display())]
    Format { path: PathBuf, found: u16 },
    #[error("`{}` cannot be opened", path.display())]
    Sealed {
        path: PathBuf,
        #[source]
        source: SealError,
    },
    #[error("`{}` cannot be understood", path.display())]
    Decode {
        path: PathBuf,
        #[source]
        source: DecodeError,
    },
    #[error(transparent)]
    Write(#[from] FileError),
}

/// The file.
#[derive(Debug, Clone)]
pub struct Remembered {
    path: PathBuf,
    key: SealingKey,
}

impl Remembered {
    pub fn new(data_dir: &Path, key: SealingKey) -> Self {
        Self { path: data_dir.join("agent/assignments"), key }
    }

    /// The last assignments; `None` where there were none.
    pub fn load(&self) -> Result<Option<Assignments>, RememberError> {
        let path = || self.path.clone();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RememberError::Read { path: path(), source }),
        };
        let found = bytes.first_chunk().map_or(0, |format| u16::from_be_bytes(*format));
        if found != FORMAT {
            return Err(RememberError::Format { path: path(), found });
        }
        let opened = self.key.open(&FORMAT.to_be_bytes(), &bytes[2..]);
        let encoded = opened.map_err(|source| RememberError::Sealed { path: path(), source })?;
        decode_assignments(&encoded).map(Some).map_err(|source| RememberError::Decode { path: path(), source })
    }

    fn store(&self, encoded: &[u8]) -> Result<(), RememberError> {
        let folder = self.path.parent().expect("the file is in a folder");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| RememberError::Folder { path: folder.to_owned(), source })?;
        let sealed = self.key.seal(&FORMAT.to_be_bytes(), encoded);
        let sealed = sealed.map_err(|source| RememberError::Sealed { path: self.path.clone(), source })?;
        Ok(write_private(&self.path, &[&FORMAT.to_be_bytes()[..], &sealed].concat())?)
    }

    /// Forgets the assignments: the node is no member any more.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.path.parent().expect("the file is in a folder")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes each new picture until `stop`, and then what is still unwritten. `last` is what the file holds.
    pub async fn keep(
        self,
        last: Option<Assignments>,
        mut pictures: watch::Receiver<Option<Arc<Picture>>>,
        reporter: Reporter,
        stop: CancellationToken,
    ) {
        let mut written = last.map(|last| digest(&encode_assignments(&last)));
        let mut failed = false;
        let mut more = true;
        while more {
            more = tokio::select! {
                changed = pictures.changed() => changed.is_ok(),
                () = reporter.ended() => true,
                () = tokio::time::sleep(RETRY), if failed => true,
                () = stop.cancelled() => false,
            };
            more = more && pause(GATHER, &stop).await;
            let Some(picture) = pictures.borrow_and_update().clone() else { continue };
            let encoded = encode_assignments(&assignments(&picture, &reporter.ends()));
            let new = digest(&encoded);
            if written == Some(new) {
                continue;
            }
            let file = self.clone();
            let stored = tokio::task::spawn_blocking(move || file.store(&encoded)).await;
            match stored.expect("writing a file does not panic") {
                Ok(()) => (written, failed) = (Some(new), false),
                Err(error) => {
                    if !failed {
                        tracing::warn!(error = chain(&error), "the node's assignments were not written to its disk");
                    }
                    failed = true;
                }
            }
            more = more && pause(PAUSE, &stop).await;
        }
    }
}

/// Sleeps; false when it was woken by `stop`.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(time, stop.cancelled()).await.is_err()
}

/// As a manager would send it.
fn assignments(picture: &Picture, ends: &BTreeMap<TaskId, TaskStatus>) -> Assignments {
    let Picture { tasks, secrets, configs, cluster } = picture;
    let ClusterView { networks, endpoints, place, peers, unconfirmed: _ } = cluster;
    let tasks = tasks.iter().map(|task| {
        let status = status_of(task.id, &task.status, ends);
        Assignment::Task(Box::new(Task { status, ..Task::clone(task) }))
    });
    let secrets = secrets.iter().cloned().map(Assignment::Secret);
    let configs = configs.iter().cloned().map(Assignment::Config);
    let networks = networks.values().cloned().map(Assignment::Network);
    let endpoints = endpoints.values().cloned().map(Assignment::Endpoint);
    let tunnel = place.iter().copied().map(Assignment::Place).chain(peers.values().cloned().map(Assignment::Peer));
    let set = tasks.chain(secrets).chain(configs).chain(networks).chain(endpoints).chain(tunnel).collect();
    // Revisions count within one session, and mean nothing on disk.
    Assignments { base: None, revision: 0, set, removed: Vec::new() }
}

/// A task that has ended keeps its end, whether or not a manager heard of it: it must not run again.
fn status_of(task: TaskId, told: &TaskStatus, ends: &BTreeMap<TaskId, TaskStatus>) -> TaskStatus {
    ends.get(&task).filter(|_| !told.state.is_terminal()).unwrap_or(told).clone()
}

fn digest(encoded: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    encoded.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;
    use skep_identity::NodeKey;
    use skep_model::{ContentDigest, IdSource, TaskState, Timestamp};

    use super::*;

    fn secret(text: &'static str) -> AssignedContent {
        let digest = ContentDigest(format!("of {text}"));
        AssignedContent { digest, name: "token".to_owned(), data: Bytes::from_static(text.as_bytes()) }
    }

    fn picture(text: &'static str) -> Option<Arc<Picture>> {
        Some(Arc::new(Picture { secrets: vec![secret(text)], ..Picture::default() }))
    }

    /// Keeps one picture, to the end of the keeper.
    async fn keep(file: &Remembered, last: Option<Assignments>, picture: Option<Arc<Picture>>) {
        let (sender, pictures) = watch::channel(None);
        sender.send_replace(picture);
        drop(sender);
        file.clone().keep(last, pictures, Reporter::default(), CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_no_secret_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeKey::generate().unwrap();
        let file = Remembered::new(dir.path(), node.sealing_key("assignments"));
        assert_eq!(file.load().unwrap(), None);
        keep(&file, None, picture("hush")).await;
        let kept = file.load().unwrap();
        let expected = vec![Assignment::Secret(secret("hush"))];
        assert_eq!(kept, Some(Assignments { base: None, revision: 0, set: expected, removed: Vec::new() }));
        let path = dir.path().join("agent/assignments");
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"hush" || window == b"toke"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

        let stranger = NodeKey::generate().unwrap();
        let stranger = Remembered::new(dir.path(), stranger.sealing_key("assignments"));
        assert!(matches!(stranger.load(), Err(RememberError::Sealed { .. })));
        fs::write(&path, [0, 9, 1]).unwrap();
        assert!(matches!(file.load(), Err(RememberError::Format { found: 9, .. })));
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[tokio::test]
    async fn what_has_not_changed_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = Remembered::new(dir.path(), NodeKey::generate().unwrap().sealing_key("assignments"));
        keep(&file, None, picture("a")).await;
        let written = fs::read(dir.path().join("agent/assignments")).unwrap();
        keep(&file, file.load().unwrap(), picture("a")).await;
        keep(&file, file.load().unwrap(), None).await;
        // Every write has a salt of its own.
        assert_eq!(fs::read(dir.path().join("agent/assignments")).unwrap(), written);
        keep(&file, file.load().unwrap(), picture("b")).await;
        assert_ne!(fs::read(dir.path().join("agent/assignments")).unwrap(), written);
    }

    #[test]
    fn an_end_that_no_manager_has_heard_of_is_kept_with_the_task() {
        let task = IdSource::from_seed(1).next_id();
        let assigned = TaskStatus::new(TaskState::Assigned, Timestamp(1), "");
        let (complete, failed) = (TaskState::Complete, TaskState::Failed);
        let ended = |state| TaskStatus::new(state, Timestamp(5), "");
        let ends = BTreeMap::from([(task, ended(complete))]);
        assert_eq!(status_of(task, &assigned, &BTreeMap::new()), assigned);
        assert_eq!(status_of(task, &assigned, &ends), ended(complete));
        assert_eq!(status_of(task, &ended(failed), &ends), ended(failed), "a manager's word is the last");
    }
}
