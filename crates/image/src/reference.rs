//! Image references as users write them (`nginx`, `ghcr.io/acme/web:1.2@sha256:…`), normalised as Docker does.
//!
//! Grammar: distribution's reference package. Registry defaults to docker.io, official images get `library/`,
//! the tag defaults to `latest` unless a digest is given; with both, the digest decides what is pulled and
//! the tag is kept for display.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// A normalised reference; `Display` writes the full form (`docker.io/library/nginx:latest`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("the image reference is empty: write one like nginx:1.27 or ghcr.io/acme/web@sha256:…")]
    Empty,
    #[error("image reference `{0}` is only a digest: write the repository before it, as in nginx@sha256:…")]
    OnlyDigest(String),
    #[error("image reference `{reference}` has upper-case letters in its name: did you mean `{suggestion}`?")]
    UpperCase { reference: String, suggestion: String },
    #[error("image reference `{reference}` looks like a URL: write it without `{scheme}`, as `{suggestion}`")]
    Scheme { reference: String, scheme: String, suggestion: String },
    #[error(
        "image reference `{reference}`: `{part}` is not a valid name: use lower-case letters and digits, separated by single `.`, `_`, `/` or by `-`"
    )]
    Name { reference: String, part: String },
    #[error("image reference `{reference}`: the name is longer than {NAME_LENGTH_MAX} characters")]
    NameLength { reference: String },
    #[error("image reference `{reference}`: `{registry}` is not a valid registry: write host or host:port")]
    Registry { reference: String, registry: String },
    #[error(
        "image reference `{reference}`: `{tag}` is not a valid tag: use at most {TAG_LENGTH_MAX} letters, digits, `_`, `.` and `-`, not starting with `.` or `-`"
    )]
    Tag { reference: String, tag: String },
    #[error("image reference `{reference}` has an invalid digest")]
    Digest {
        reference: String,
        #[source]
        source: DigestError,
    },
}

impl Reference {
    /// The registry as the user named it: `docker.io`, `ghcr.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `nginx`, `ghcr.io/acme/web`: the name without tag and digest, in the short form that users write.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        let short = self.repository.strip_prefix("library/").filter(|rest| !rest.contains('/'));
        short.unwrap_or(&self.repository).to_owned()
    }

    /// `nginx:1.27`: what Docker's commands print.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// The same repository and tag, pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// The same repository under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag { reference: self.familiar(), tag: tag.to_owned() });
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// What a registry is asked for: the digest, or else the tag.
    pub fn manifest_name(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_else(|| "latest".to_owned()),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        refuse_common_slips(text)?;
        let reference = || text.to_owned();
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ReferenceError::Digest { reference: reference(), source })?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash starts a tag; one before it belongs to the registry's port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            None => (rest, None),
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { reference: reference(), tag: tag.to_owned() });
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(ReferenceError::Registry { reference: reference(), registry });
        }
        if repository.len() + registry.len() > NAME_LENGTH_MAX {
            return Err(ReferenceError::NameLength { reference: reference() });
        }
        if let Some(part) = repository.split('/').find(|part| !is_name_component(part)) {
            return Err(match repository.to_lowercase() {
                lower if lower != repository => ReferenceError::UpperCase {
                    reference: reference(),
                    suggestion: text.replacen(name, &name.to_lowercase(), 1),
                },
                _ => ReferenceError::Name { reference: reference(), part: part.to_owned() },
            });
        }
        let default_tag = || digest.is_none().then(|| "latest".to_owned());
        let tag = tag.map(str::to_owned).or_else(default_tag);
        Ok(Reference { registry, repository, tag, digest })
    }
}

fn refuse_common_slips(text: &str) -> Result<(), ReferenceError> {
    if text.trim().is_empty() {
        return Err(ReferenceError::Empty);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(ReferenceError::Scheme {
            reference: text.to_owned(),
            scheme: format!("{scheme}://"),
            suggestion: rest.trim_end_matches('/').to_owned(),
        });
    }
    // Docker refuses 64 hexadecimal digits as a name, because they could be an image id.
    let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if text.starts_with("sha256:") || text.starts_with('@') || is_id {
        return Err(ReferenceError::OnlyDigest(text.to_owned()));
    }
    Ok(())
}

/// The first component is a registry if it could not be one of a Docker Hub name: it has a dot, a port,
/// upper-case letters or is `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let first = name.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':']) || *first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
    });
    let (registry, repository) = first.unwrap_or((DEFAULT_REGISTRY, name));
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    let repository = match registry == DEFAULT_REGISTRY && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository.to_owned(),
    };
    (registry.to_owned(), repository)
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, rest)) => {
                let v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
                return v6 && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_tag(tag: &str) -> bool {
    let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().all(body)
        && tag.bytes().next().is_some_and(|b| !matches!(b, b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    let mut separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, full: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full, "full form of {text}");
        assert_eq!(reference.familiar(), familiar, "familiar form of {text}");
        assert_eq!(full.parse::<Reference>().unwrap(), reference, "{full} parses to the same");
        assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "{familiar} parses to the same");
    }

    #[test]
    fn references_are_normalised_as_docker_does() {
        check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27");
        check("acme/web", "docker.io/acme/web:latest", "acme/web:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("localhost/web", "localhost/web:latest", "localhost/web:latest");
        check("localhost:5000/a/b__c:t", "localhost:5000/a/b__c:t", "localhost:5000/a/b__c:t");
        check("[::1]:5000/web:1", "[::1]:5000/web:1", "[::1]:5000/web:1");
        check("ghcr.io/acme/web-ui.x:V1_2", "ghcr.io/acme/web-ui.x:V1_2", "ghcr.io/acme/web-ui.x:V1_2");
        check(&format!("nginx@{DIGEST}"), &format!("docker.io/library/nginx@{DIGEST}"), &format!("nginx@{DIGEST}"));
        check(
            &format!("nginx:1.27@{DIGEST}"),
            &format!("docker.io/library/nginx:1.27@{DIGEST}"),
            &format!("nginx:1.27@{DIGEST}"),
        );
    }

    #[test]
    fn digest_wins_over_tag() {
        let reference: Reference = format!("nginx:1.27@{DIGEST}").parse().unwrap();
        assert_eq!(reference.manifest_name(), DIGEST);
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        let message = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        assert!(message("").contains("empty"));
        assert!(message("https://ghcr.io/acme/web").contains("`ghcr.io/acme/web`"));
        assert!(message("acme/Nginx:V1").contains("did you mean `acme/nginx:V1`"));
        assert!(message("nginx:").contains("not a valid tag"));
        assert!(message("nginx:-x").contains("not a valid tag"));
        assert!(message("a//b").contains("not a valid name"));
        assert!(message("a/../b").contains("not a valid name"));
        assert!(message("a...b/c:1").contains("not a valid registry"));
        assert!(message("host:99999/a").contains("not a valid registry"));
        assert!(message("nginx@sha256:12").contains("invalid digest"));
        assert!(message(DIGEST).contains("only a digest"));
    }
}
