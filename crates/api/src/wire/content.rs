//! Secrets and configs. Their revisions are a map by digest in the model and a list on the wire.

use std::collections::BTreeMap;

use skep_model::{Config, ContentDigest, ContentKind, ContentRevision, Contents, Secret};

use super::{DecodeError, Field, message};
use crate::pb;

message!(Secret = Secret { id, meta, name, labels, contents });
message!(Config = Config { id, meta, name, labels, contents });
message!(Contents = Contents { current, revisions });

/// On the wire only templates say something.
impl Field for ContentKind {
    type Proto = bool;

    fn to_field(&self) -> bool {
        *self == ContentKind::Template
    }

    fn from_field(template: bool, _: &'static str) -> Result<Self, DecodeError> {
        Ok(if template { ContentKind::Template } else { ContentKind::Plain })
    }
}

impl Field for BTreeMap<ContentDigest, ContentRevision> {
    type Proto = Vec<pb::ContentRevision>;

    fn to_field(&self) -> Vec<pb::ContentRevision> {
        let revision = |(digest, revision): (&ContentDigest, &ContentRevision)| {
            let ContentRevision { number, created_at, data } = revision;
            pb::ContentRevision {
                digest: digest.to_field(),
                number: *number,
                created_at: created_at.to_field(),
                data: data.to_field(),
            }
        };
        self.iter().map(revision).collect()
    }

    fn from_field(proto: Vec<pb::ContentRevision>, _: &'static str) -> Result<Self, DecodeError> {
        let revision = |pb::ContentRevision { digest, number, created_at, data }| {
            let revision = ContentRevision {
                number,
                created_at: Field::from_field(created_at, "ContentRevision.created_at")?,
                data: Field::from_field(data, "ContentRevision.data")?,
            };
            Ok((Field::from_field(digest, "ContentRevision.digest")?, revision))
        };
        proto.into_iter().map(revision).collect()
    }
}
