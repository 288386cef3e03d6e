//! Numbered changes to write: each a small config, so that what is there can be counted.

use std::sync::Arc;

use skep_model::{Change, Cluster, Config, ContentDigest, Contents, Id, Labels, Meta, Timestamp};

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

/// The text of note `number`.
pub fn text_of(cluster: &Cluster, number: u64) -> Option<String> {
    let config = cluster.config_named(&format!("note-{number}"))?;
    let data = &config.contents.current()?.data;
    Some(String::from_utf8(data.to_vec()).expect("notes are text"))
}
