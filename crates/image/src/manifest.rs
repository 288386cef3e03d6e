//! Manifests and indexes: the four media types that registries serve, OCI's and Docker's of schema 2.
//!
//! Unknown fields and unknown entries are passed over (image-spec: implementations must not fail on them);
//! what decides which bytes are fetched (digest, size) is required.

use serde::Deserialize;

use crate::config::nullable;
use crate::digest::Digest;
use crate::platform::Platform;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The `Accept` header of every manifest request.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RawPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl RawPlatform {
    pub(crate) fn normalized(self) -> Platform {
        Platform { os: self.os, architecture: self.architecture, variant: self.variant }.normalized()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone)]
pub(crate) enum AnyManifest {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not valid JSON of its kind")]
    Json(#[from] serde_json::Error),
    #[error("the manifest says it is `{body}` but was served as `{header}`")]
    ContentType { body: String, header: String },
    #[error(
        "the manifest has Docker's schema 1, which registries stopped to serve: push the image again with a current tool"
    )]
    Schema1,
    #[error("this is no container image: its manifest is of kind `{0}`")]
    Kind(String),
    #[error("this is no container image: its configuration is of kind `{0}`")]
    NotAnImage(String),
    #[error("the image has {layers} layers but its configuration names {diff_ids}")]
    LayerCount { layers: usize, diff_ids: usize },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default, deserialize_with = "nullable")]
    media_type: String,
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    manifests: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

impl Index {
    /// Parses an index whose kind is known from where it was found.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Index, ManifestError> {
        match AnyManifest::parse(bytes, OCI_INDEX)? {
            AnyManifest::Index(index) => Ok(index),
            AnyManifest::Manifest(_) => Err(ManifestError::Kind(OCI_MANIFEST.into())),
        }
    }

    /// Entries that can be images: attestations are marked `unknown/unknown`.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Descriptor> {
        let unknown = |p: &RawPlatform| p.os == "unknown" || p.architecture == "unknown";
        self.manifests.iter().filter(move |entry| !entry.platform.as_ref().is_some_and(unknown))
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Descriptor) -> bool) {
        self.manifests.retain(keep);
    }

    pub(crate) fn platforms(&self) -> Vec<Platform> {
        self.images().filter_map(|entry| entry.platform.clone()).map(RawPlatform::normalized).collect()
    }
}

impl AnyManifest {
    /// Parses what a registry served as `content_type` (empty if it did not say).
    pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<AnyManifest, ManifestError> {
        let header = content_type.split(';').next().unwrap_or_default().trim();
        let raw: RawManifest = serde_json::from_slice(bytes)?;
        let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
        if header.starts_with(SCHEMA1) || (raw.schema_version == Some(1) && raw.layers.is_none()) {
            return Err(ManifestError::Schema1);
        }
        // A body that is one kind and a header that is another is how one digest could mean two images.
        if !raw.media_type.is_empty() && known.contains(&header) && raw.media_type != header {
            return Err(ManifestError::ContentType { body: raw.media_type, header: header.to_owned() });
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(entries), None, None) => {
                // Entries of kinds unknown to us may lack what ours need; they are passed over.
                let manifests = entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok());
                let image =
                    |entry: &Descriptor| entry.media_type.is_empty() || known.contains(&entry.media_type.as_str());
                Ok(AnyManifest::Index(Index { manifests: manifests.filter(image).collect() }))
            }
            (None, Some(config), Some(layers)) => {
                if !matches!(config.media_type.as_str(), "" | OCI_CONFIG | DOCKER_CONFIG) {
                    return Err(ManifestError::NotAnImage(config.media_type));
                }
                Ok(AnyManifest::Manifest(Manifest { config, layers }))
            }
            _ if !raw.media_type.is_empty() => Err(ManifestError::Kind(raw.media_type)),
            _ => Err(ManifestError::Kind(header.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_contradicts_its_content_type_is_refused() {
        let body = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(AnyManifest::parse(body.as_bytes(), OCI_INDEX).is_ok());
        let confused = AnyManifest::parse(body.as_bytes(), OCI_MANIFEST);
        assert!(matches!(confused, Err(ManifestError::ContentType { .. })));
        let both = br#"{"manifests":[],"layers":[],"config":null}"#;
        assert!(matches!(AnyManifest::parse(both, ""), Err(ManifestError::Kind(_))));
    }

    #[test]
    fn what_is_no_image_is_named() {
        let chart = format!(
            r#"{{"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","size":1,"digest":"{}"}},"layers":[]}}"#,
            Digest::of(b"")
        );
        let error = AnyManifest::parse(chart.as_bytes(), OCI_MANIFEST).unwrap_err();
        assert!(error.to_string().contains("helm"), "{error}");
        let old = AnyManifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, "").unwrap_err();
        assert!(matches!(old, ManifestError::Schema1));
    }

    #[test]
    fn unknown_entries_of_an_index_are_passed_over() {
        let body = br#"{"manifests":[{"mediaType":"application/x-new","digest":"blake9:xyz","size":1}]}"#;
        let AnyManifest::Index(index) = AnyManifest::parse(body, OCI_INDEX).unwrap() else { panic!("an index") };
        assert_eq!(index.images().count(), 0);
    }
}
