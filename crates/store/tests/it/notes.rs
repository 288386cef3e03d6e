//! Numbered changes to write: each a small config, so that what is there can be counted.

use std::sync::Arc;

use skep_model::{Change, Cluster, Config, ConfigId, ContentDigest, Contents, Id, Labels, Meta, Timestamp, Version};

/// A change that adds note `number`, with this text.
pub fn note(number: u64, text: &str) -> Change {
    let at = Timestamp(number);
    let data: Arc<[u8]> = text.as_bytes().into();
    let config = Config {
        id: Id::from_u128(u128::from(number)),
        meta: Meta::new(at),
        name: format!("note-{number}"),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest(format!("{number:064x}")), data, at),
    };
    Change::CreateConfig { config: Box::new(config) }
}

/// A change that makes a number the text of a note, if the note is still at this version.
pub fn rewrite(config: ConfigId, expected: Version, number: u64) -> Change {
    let data: Arc<[u8]> = number.to_string().into_bytes().into();
    let digest = ContentDigest(format!("{number:064x}"));
    Change::UpdateConfig { config, expected, labels: Labels::new(), digest, data, at: Timestamp(number) }
}

/// The text of note `number`.
pub fn text_of(cluster: &Cluster, number: u64) -> Option<String> {
    let config = cluster.config_named(&format!("note-{number}"))?;
    let data = &config.contents.current()?.data;
    Some(String::from_utf8(data.to_vec()).expect("notes are text"))
}
