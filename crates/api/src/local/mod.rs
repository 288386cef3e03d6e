//! What the command line asks of the daemon on its own machine.

mod disaster;
mod listing;
mod membership;

pub use disaster::{
    BackupPart, BackupRequest, RecoverRequest, Recovered, RestoreOptions, RestorePart, Restored, UnlockRequest,
};
pub use listing::{
    ArchiveChunk, ContainerList, ContainerSummary, ImageList, ImageLoaded, ImageRemoved, ImageSummary, LayerProgress,
    ListContainersRequest, PullImageRequest, PullProgress, RemoveImageRequest, RemoveVolumeRequest, VolumeList,
    VolumeSummary,
};
pub use membership::{InitRequest, Initialized, JoinRequest, Joined, LeaveRequest, Left, LocalInfo, TunnelPeer};

use crate::doctor::Examined;
use crate::rpc::service;

service! {
    /// A node's own daemon.
    Local in local_server::LocalServer, local_client::LocalClient, via LocalAdapter;
    unary {
        [Local] info(()) -> LocalInfo;
        /// Makes this node the first of a new cluster.
        [Local] init(InitRequest) -> Initialized;
        [Local] join(JoinRequest) -> Joined;
        /// Leaves the cluster and removes what skep put on this machine; named volumes stay unless asked for.
        [Local] leave(LeaveRequest) -> Left;
        /// Opens the keys of a manager that autolock locked, and goes on as that manager.
        [Local] unlock(UnlockRequest) -> ();
        /// Makes a cluster of one out of what this manager has, when most managers are lost for good.
        [Local] recover(RecoverRequest) -> Recovered;
        [Local] list_images(()) -> ImageList;
        [Local] remove_image(RemoveImageRequest) -> ImageRemoved;
        [Local] list_volumes(()) -> VolumeList;
        [Local] remove_volume(RemoveVolumeRequest) -> ();
        [Local] list_containers(ListContainersRequest) -> ContainerList;
        /// This node examines itself and its way to the others.
        [Local] examine(()) -> Examined;
    }
    down {
        /// The whole cluster.
        [Local] backup(BackupRequest) -> stream BackupPart as BackupStream;
        /// Progress, and `Done` as the last.
        [Local] pull_image(PullImageRequest) -> stream PullProgress as PullImageStream;
    }
    up {
        /// An image archive (`docker save` or OCI layout, as a tar), in pieces of any size.
        [Local] load_image(stream ArchiveChunk) -> ImageLoaded;
        /// Makes this node the one manager of the cluster that a backup holds.
        [Local] restore(stream RestorePart) -> Restored;
    }
    both {}
}
