//! OCI images on one node: registry client, content store, unpack, garbage collection.
//!
//! ```text
//! Reference ─ registry (HTTP, tokens, digests) ─ unpack (tar → overlayfs) ─ store (by digest) ─ Image
//! ```
//! Invariant: no byte is used before its digest was verified, and nothing unverified has its final name.
//! Invariant: unpacking touches nothing outside the layer's own folder, whatever the archive says.
//! Invariant: this crate mounts nothing and runs nothing; it hands out folders.

mod config;
mod digest;
mod error;
mod image;
mod manifest;
mod platform;
mod reference;
mod registry;
mod store;
mod unpack;

pub use self::config::{Healthcheck, ImageConfig};
pub use self::digest::{Digest, DigestError};
pub use self::error::{ErrorKind, ImageError};
pub use self::image::{Collected, Image, ImageSummary, Names, Progress, Resolved, Roots};
pub use self::manifest::ManifestError;
pub use self::platform::{Platform, PlatformError};
pub use self::reference::{Reference, ReferenceError};
pub use self::registry::{Credentials, CredentialsError, DockerConfig, RegistryConfig, RegistryError};
pub use self::store::{ImageStore, Loaded};
pub use self::unpack::{Limits, UnpackError};
