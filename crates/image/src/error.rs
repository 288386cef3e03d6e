//! What using images can fail with, and which kind of failure it is: the agent decides by the kind whether to try
//! again, and shows the chain of messages as the task's error.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::reference::ReferenceError;
use crate::registry::RegistryError;
use crate::unpack::UnpackError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("failed to unpack layer {layer} of image `{image}`")]
    Unpack {
        image: String,
        layer: Digest,
        #[source]
        source: Box<UnpackError>,
    },
    #[error("failed to read the manifest of image `{image}`")]
    Manifest {
        image: String,
        #[source]
        source: ManifestError,
    },
    #[error("failed to read the configuration of image `{image}`")]
    Config {
        image: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("image `{image}` is not published for {wanted}: it offers {offered}")]
    NoPlatform { image: String, wanted: String, offered: String },
    #[error("image `{image}` is not on this node")]
    NotHere { image: String },
    #[error("the image archive is not usable: {0}")]
    Archive(String),
    #[error("failed to read the image archive")]
    ReadArchive(#[source] Box<UnpackError>),
    #[error("the image archive names an image badly")]
    ArchiveName(#[source] ReferenceError),
    #[error("failed to {step} `{path}`")]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image store `{path}` is in use by another process")]
    Locked { path: PathBuf },
    #[error(
        "the image store `{path}` has format {found}; this build reads format {known}: use the build that wrote it, or remove the folder (images are pulled again)"
    )]
    Format { path: PathBuf, found: String, known: u32 },
    #[error("the work on an image was interrupted by the shutdown")]
    Interrupted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The image, its tag or its platform does not exist. Trying again helps only after it was pushed.
    NotFound,
    Unauthorized,
    /// The registry is down, slow, or limits requests.
    Unreachable,
    /// Bytes are not what their digest says, or no valid image.
    Invalid,
    NoPlatform,
    DiskFull,
    /// This machine failed: file system, memory, privileges.
    Local,
}

impl ImageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImageError::Registry(error) => registry_kind(error),
            ImageError::Unpack { source, .. } | ImageError::ReadArchive(source) => match &**source {
                UnpackError::DiskFull(_) => ErrorKind::DiskFull,
                source if source.is_about_the_bytes() => ErrorKind::Invalid,
                _ => ErrorKind::Local,
            },
            ImageError::Manifest { .. } | ImageError::Config { .. } => ErrorKind::Invalid,
            ImageError::Archive(_) | ImageError::ArchiveName(_) => ErrorKind::Invalid,
            ImageError::NoPlatform { .. } => ErrorKind::NoPlatform,
            ImageError::NotHere { .. } => ErrorKind::NotFound,
            ImageError::Io { source, .. } if is_disk_full(source) => ErrorKind::DiskFull,
            ImageError::Io { .. } => ErrorKind::Local,
            ImageError::Locked { .. } | ImageError::Format { .. } | ImageError::Interrupted => ErrorKind::Local,
        }
    }

    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::Io { step, path, source }
    }
}

impl ErrorKind {
    /// Whether the same request may succeed later without anybody changing the image, the login or the spec.
    pub fn may_pass(self) -> bool {
        matches!(self, ErrorKind::Unreachable | ErrorKind::DiskFull | ErrorKind::Local)
    }
}

fn registry_kind(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::NotFound { .. } => ErrorKind::NotFound,
        RegistryError::Unauthorized { .. } => ErrorKind::Unauthorized,
        RegistryError::Unreachable { .. }
        | RegistryError::TimedOut { .. }
        | RegistryError::TooManyRequests { .. }
        | RegistryError::Status { .. }
        | RegistryError::Protocol { .. } => ErrorKind::Unreachable,
        RegistryError::BlobNotFound { .. }
        | RegistryError::DigestMismatch { .. }
        | RegistryError::SizeMismatch { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::Manifest { .. } => ErrorKind::Invalid,
        RegistryError::Authorities { .. }
        | RegistryError::Mirror { .. }
        | RegistryError::Tls(_)
        | RegistryError::Stopped => ErrorKind::Local,
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::NOSPC.raw_os_error()) || code == Some(Errno::DQUOT.raw_os_error())
}
