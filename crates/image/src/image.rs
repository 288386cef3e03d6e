//! Images as the rest of the system sees them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Lease;

/// An image that is complete on this node. Garbage collection leaves it alone while any clone of this lives.
#[derive(Clone)]
pub struct Image {
    /// The configuration's digest: Docker's image id.
    pub id: Digest,
    /// What the registry has under the reference: an index, or the manifest itself. The digest to pin.
    pub digest: Digest,
    /// The manifest chosen for this node.
    pub manifest: Digest,
    pub reference: Reference,
    pub platform: Platform,
    pub config: ImageConfig,
    /// RFC 3339, as the image says.
    pub created: Option<String>,
    /// Lower folders for overlayfs, base first: no folder twice, none without effect.
    pub layers: Vec<PathBuf>,
    /// Bytes of file content in all layers.
    pub size: u64,
    pub(crate) _lease: Arc<Lease>,
}

/// One line of `image ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    pub reference: Reference,
    /// The short form that users write: `nginx`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Digest,
    pub id: Digest,
    pub created: Option<String>,
    /// Bytes; layers that images share count in each.
    pub size: u64,
}

/// What a name means in its registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The digest to pin: of the index if there is one, so that every node finds its own platform under it.
    pub digest: Digest,
    /// What it is published for; empty if the image does not say.
    pub platforms: Vec<Platform>,
}

/// What is happening during a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Resolved {
        digest: Digest,
        layers: usize,
        compressed_bytes: u64,
    },
    /// The layer with this diff id was here already.
    Present {
        layer: Digest,
    },
    Downloading {
        layer: Digest,
        bytes: u64,
        of_bytes: u64,
    },
    Unpacked {
        layer: Digest,
    },
}

/// What garbage collection must keep beside what is leased.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Digests (pinned, of a manifest, or image ids) that containers, tasks or rollbacks need.
    pub in_use: BTreeSet<Digest>,
    pub names: Names,
}

/// What happens to names whose image nothing uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// They stay, and keep their images: only content without a name goes.
    #[default]
    Keep,
    /// Those last pulled before this time go, by a clock that is up to an hour behind: pulls of what is here already
    /// note their time at most hourly. A time in the future drops all.
    DropUnusedBefore(SystemTime),
}

/// What a garbage collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub names: Vec<Reference>,
    pub layers: usize,
    /// Of file content and metadata.
    pub freed_bytes: u64,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} {} {}, {} layers)", self.reference, self.platform, self.id, self.layers.len())
    }
}
