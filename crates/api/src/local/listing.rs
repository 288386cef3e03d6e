//! Images, volumes and containers of this machine.

use bytes::Bytes;
use skep_model::{ContainerStatus, Labels, PortSpec, ServiceId, TaskId, TaskState, Timestamp};

use crate::wire::{choice, message};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageList {
    pub images: Vec<ImageSummary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the image's configuration, `sha256:…`.
    pub id: String,
    /// `repository:tag`; empty for an image that lost its names.
    pub names: Vec<String>,
    /// Digest of the manifest that it was pulled by.
    pub digest: Option<String>,
    pub created_at: Timestamp,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// Containers that run from it.
    pub containers: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveImageRequest {
    pub wanted: String,
    /// Also when it has other names.
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRemoved {
    pub untagged: Vec<String>,
    pub deleted: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct PullImageRequest {
    pub reference: String,
    /// Base64 of the credentials for its registry.
    pub registry_auth: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    Layer(LayerProgress),
    /// A line for the user.
    Status(String),
    /// The image's digest; nothing follows.
    Done(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the layer.
    pub layer: String,
    /// `downloading`, `unpacking`, `done`.
    pub action: String,
    /// Bytes, of `total` where that is known.
    pub current: u64,
    pub total: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveChunk {
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLoaded {
    pub names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeList {
    pub volumes: Vec<VolumeSummary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSummary {
    pub name: String,
    pub driver: String,
    pub mountpoint: String,
    pub labels: Labels,
    pub created_at: Timestamp,
    /// Containers that have it mounted.
    pub containers: u64,
    /// What it was made with: `type`, `device` and `o`.
    pub options: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveVolumeRequest {
    pub name: String,
    /// No error if there is none of that name.
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListContainersRequest {
    /// Also those that have ended.
    pub all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerList {
    pub containers: Vec<ContainerSummary>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    pub id: String,
    /// `service.slot.task`.
    pub name: String,
    pub image: String,
    /// Entry point and arguments, in one line.
    pub command: String,
    pub created_at: Timestamp,
    pub state: TaskState,
    pub status: ContainerStatus,
    pub ports: Vec<PortSpec>,
    pub task: TaskId,
    pub service: ServiceId,
    /// Absent without a health check, and until its first result.
    pub healthy: Option<bool>,
}

message!(ImageList = ImageList { images });
message!(ImageSummary = ImageSummary { id, names, digest, created_at, size, containers });
message!(RemoveImageRequest = RemoveImageRequest { wanted, force });
message!(ImageRemoved = ImageRemoved { untagged, deleted });
message!(PullImageRequest = PullImageRequest { reference, registry_auth });
choice!(PullProgress = PullProgress in pull_progress { Layer, Status, Done });
message!(LayerProgress = LayerProgress { layer, action, current, total });
message!(ArchiveChunk = ArchiveChunk { data });
message!(ImageLoaded = ImageLoaded { names });
message!(VolumeList = VolumeList { volumes });
message!(VolumeSummary = VolumeSummary { name, driver, mountpoint, labels, created_at, containers, options });
message!(RemoveVolumeRequest = RemoveVolumeRequest { name, force });
message!(ListContainersRequest = ListContainersRequest { all });
message!(ContainerList = ContainerList { containers });
message!(
    ContainerSummary =
        ContainerSummary { id, name, image, command, created_at, state, status, ports, task, service, healthy }
);
