//! What can go wrong between this node and a registry, in words that `service ps` can show.

use std::error::Error as StdError;

use crate::digest::Digest;
use crate::manifest::ManifestError;

pub(crate) type Source = Box<dyn StdError + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("image `{reference}` does not exist in {registry} (manifest unknown): check its name and tag")]
    NotFound { reference: String, registry: String },
    #[error(
        "{registry} does not have blob {digest} of `{repository}`, though the image's manifest names it: push the image again"
    )]
    BlobNotFound { repository: String, registry: String, digest: Digest },
    #[error("{registry} refused access to `{repository}`: {hint}")]
    Unauthorized { repository: String, registry: String, hint: String },
    #[error("registry {registry} cannot be reached")]
    Unreachable {
        registry: String,
        #[source]
        source: Source,
    },
    #[error("registry {registry} answered too slowly: nothing for {seconds} s")]
    TimedOut { registry: String, seconds: u64 },
    #[error("registry {registry} limits requests (429): wait, log in, or use a mirror")]
    TooManyRequests { registry: String },
    #[error("registry {registry} answered {status} to {what}{detail}")]
    Status { registry: String, what: String, status: u16, detail: String },
    #[error("registry {registry} answered {what} in a way that the protocol does not allow: {problem}")]
    Protocol { registry: String, what: String, problem: String },
    #[error("the bytes that {registry} serves as {what} {expected} are not those: their digest is {actual}")]
    DigestMismatch { registry: String, what: &'static str, expected: Digest, actual: Digest },
    #[error("{registry} serves {actual} bytes as {digest}, the manifest says {expected}")]
    SizeMismatch { registry: String, digest: Digest, expected: u64, actual: u64 },
    #[error("{registry} serves a {what} of more than {bytes_max} bytes, which no image needs")]
    TooLarge { registry: String, what: &'static str, bytes_max: u64 },
    #[error("failed to read the manifest of `{reference}`")]
    Manifest {
        reference: String,
        #[source]
        source: ManifestError,
    },
    #[error("failed to read the authorities in `{path}`")]
    Authorities {
        path: std::path::PathBuf,
        #[source]
        source: Source,
    },
    #[error("mirror `{url}` of {registry} is not a base URL: write http(s)://host[:port]")]
    Mirror { registry: String, url: String },
    #[error("failed to prepare TLS")]
    Tls(#[source] rustls::Error),
    /// The receiving side gave up; its own error says why.
    #[error("the download was stopped")]
    Stopped,
}
