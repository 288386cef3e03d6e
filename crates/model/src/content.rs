//! Secrets and configs: named bytes whose every content is a revision, addressed by its digest.
//!
//! A service's spec pins the digest, so that changing the bytes changes the spec, and a rollback finds
//! the bytes that it ran with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ConfigId, Labels, Meta, SecretId, Timestamp};

/// SHA-256 of a secret's or config's bytes, in lower-case hexadecimal; of a template, the language before it.
///
/// Computed by whoever makes a revision; `apply` trusts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentDigest(pub String);

/// What the digest of a template begins with.
const GOLANG: &str = "golang:";

impl ContentDigest {
    /// From the sum of the bytes, in hexadecimal.
    ///
    /// A template has another digest than the same bytes as they are: making a template of a content is a new revision of
    /// it, which services are updated to and can be rolled back from.
    pub fn new(sum: String, kind: ContentKind) -> Self {
        match kind {
            ContentKind::Plain => Self(sum),
            ContentKind::Template => Self(format!("{GOLANG}{sum}")),
        }
    }

    pub fn kind(&self) -> ContentKind {
        if self.0.starts_with(GOLANG) { ContentKind::Template } else { ContentKind::Plain }
    }
}

/// What becomes of a content on its way into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ContentKind {
    /// It arrives as it is.
    #[default]
    Plain,
    /// A template in Go's language (`template_driver: golang`), rendered for each task.
    Template,
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRevision {
    /// 1 for the first content of a name, and so on.
    pub number: u64,
    pub created_at: Timestamp,
    pub data: Arc<[u8]>,
}

impl fmt::Debug for ContentRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A secret's bytes must not reach a log by way of a debug format.
        write!(f, "ContentRevision {{ number: {}, {} bytes }}", self.number, self.data.len())
    }
}

/// All kept contents of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub current: ContentDigest,
    pub revisions: BTreeMap<ContentDigest, ContentRevision>,
}

impl Contents {
    pub fn new(digest: ContentDigest, data: Arc<[u8]>, at: Timestamp) -> Self {
        let first = ContentRevision { number: 1, created_at: at, data };
        Self { current: digest.clone(), revisions: BTreeMap::from([(digest, first)]) }
    }

    /// Makes `digest` current; content that is already kept stays the revision that it was.
    pub fn set_current(&mut self, digest: ContentDigest, data: Arc<[u8]>, at: Timestamp) {
        let next = self.revisions.values().map(|revision| revision.number).max().unwrap_or(0) + 1;
        self.revisions.entry(digest.clone()).or_insert(ContentRevision { number: next, created_at: at, data });
        self.current = digest;
    }

    /// Forgets what is neither current nor among `used`.
    pub fn keep(&mut self, used: &BTreeSet<ContentDigest>) {
        let current = self.current.clone();
        self.revisions.retain(|digest, _| *digest == current || used.contains(digest));
    }

    pub fn get(&self, digest: &ContentDigest) -> Option<&ContentRevision> {
        self.revisions.get(digest)
    }

    pub fn current(&self) -> Option<&ContentRevision> {
        self.revisions.get(&self.current)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub id: SecretId,
    pub meta: Meta,
    pub name: String,
    pub labels: Labels,
    pub contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    pub name: String,
    pub labels: Labels,
    pub contents: Contents,
}
