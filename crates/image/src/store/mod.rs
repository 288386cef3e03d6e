//! The node's images: pulled once, shared by digest, kept while anything needs them.
//!
//! `layout` is the folder, `records` what names mean, `flights` lets concurrent pulls join, `leases` and `gc`
//! decide what stays; `pull` and `load` bring content in through `unpack`; `local` reads it back.

mod flights;
mod gc;
mod layers;
mod layout;
mod leases;
mod load;
mod local;
mod pull;
mod records;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::flights::Flights;
use self::layout::{LayerKey, Layout};
pub(crate) use self::leases::Lease;
use self::leases::Leases;
pub use self::load::Loaded;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::{Collected, Image, ImageSummary, Roots};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Credentials, Registry, RegistryConfig};
use crate::unpack::Limits;

/// Layers fetched and unpacked at once, over all pulls of the node: as many as Docker. Each takes about 1 MB.
const LAYERS_AT_ONCE: usize = 3;

/// The images of one node. Cheap to clone; one process at a time has a folder open.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

/// A pull: of what, and by whom.
type Asked = (Reference, Option<Credentials>);
/// When a name was last looked up, and what it meant.
type LookedUp = Option<(Instant, Digest)>;

struct Inner {
    layout: Layout,
    registry: Registry,
    limits: Limits,
    leases: Arc<Leases>,
    pulls: Flights<Asked, LookedUp>,
    layers: Flights<Digest, ()>,
    downloads: Semaphore,
    unsynced: Mutex<Vec<LayerKey>>,
    syncs: Mutex<Vec<JoinHandle<()>>>,
}

impl ImageStore {
    /// Opens or creates the store in `dir` (`<data>/images`), drops what a crash left unfinished, and locks it.
    pub async fn open(dir: impl Into<PathBuf>, registry: RegistryConfig) -> Result<ImageStore, ImageError> {
        ImageStore::open_with(dir, registry, Limits::default()).await
    }

    /// `open` with other bounds on what one layer may take.
    pub async fn open_with(
        dir: impl Into<PathBuf>,
        registry: RegistryConfig,
        limits: Limits,
    ) -> Result<ImageStore, ImageError> {
        let dir: PathBuf = dir.into();
        let layout = blocking(move || Layout::open(&dir)).await?;
        let inner = Inner {
            layout,
            registry: Registry::new(registry)?,
            limits,
            leases: Arc::default(),
            pulls: Flights::default(),
            layers: Flights::default(),
            downloads: Semaphore::new(LAYERS_AT_ONCE),
            unsynced: Mutex::default(),
            syncs: Mutex::default(),
        };
        let store = ImageStore { inner: Arc::new(inner) };
        store.sync_earlier_layers()?;
        Ok(store)
    }

    /// Gives the image of `reference` another name on this node.
    pub fn tag(&self, reference: &Reference, name: &Reference) -> Result<(), ImageError> {
        let record = self.inner.layout.record(reference)?;
        let record = record.ok_or_else(|| ImageError::NotHere { image: reference.familiar() })?;
        let renamed = records::Record::new(name.clone(), record.digest, record.manifest, record.image);
        self.inner.layout.write_record(&renamed)
    }

    /// Takes the name from its image; what no name keeps any more goes at the next collection.
    pub fn remove(&self, reference: &Reference) -> Result<Vec<Reference>, ImageError> {
        let removed = self.inner.layout.remove_records(reference)?;
        if removed.is_empty() {
            return Err(ImageError::NotHere { image: reference.familiar() });
        }
        Ok(removed)
    }

    /// Waits until everything pulled so far is on the disk. For an orderly shutdown; a crash costs only a new pull.
    pub async fn flush(&self) {
        loop {
            let sync = self.inner.syncs.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(sync) = sync else { return };
            if sync.await.is_err() {
                tracing::warn!("a sync of pulled layers was interrupted");
            }
        }
    }

    /// The folder the store is in.
    pub fn dir(&self) -> &Path {
        self.inner.layout.root()
    }

    /// Layers of this boot that an earlier process did not see onto the disk.
    fn sync_earlier_layers(&self) -> Result<(), ImageError> {
        let layers = self.inner.layout.layers()?;
        let earlier: Vec<LayerKey> = layers.into_iter().filter(|key| !self.inner.layout.is_durable(*key)).collect();
        if !earlier.is_empty() {
            self.sync_later(earlier);
        }
        Ok(())
    }

    /// Syncs the file system in the background and then marks `layers` durable.
    fn sync_later(&self, layers: Vec<LayerKey>) {
        let lock = |inner: &Inner| std::mem::take(&mut *inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner).extend(layers);
        let inner = self.inner.clone();
        let sync = tokio::task::spawn_blocking(move || {
            let layers = lock(&inner);
            if let Err(error) = sync_layers(&inner.layout, &layers) {
                tracing::warn!(%error, "pulled layers are not known to be on the disk: after a power cut they are pulled again");
            }
        });
        let mut syncs = self.inner.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.retain(|sync| !sync.is_finished());
        syncs.push(sync);
    }
}

fn sync_layers(layout: &Layout, layers: &[LayerKey]) -> Result<(), ImageError> {
    if layers.is_empty() {
        return Ok(());
    }
    let root = std::fs::File::open(layout.root()).map_err(ImageError::io("open", layout.root()))?;
    rustix::fs::syncfs(&root).map_err(|errno| ImageError::io("sync", layout.root())(errno.into()))?;
    layers.iter().try_for_each(|key| layout.mark_durable(*key))
}

/// Runs blocking work on tokio's pool for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImageError::Interrupted),
        },
    }
}

/// `linux/arm64, linux/arm/v7`
fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    if names.is_empty() { "no known platform".to_owned() } else { names.join(", ") }
}
