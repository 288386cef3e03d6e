//! What is written in rows that write: changes of a size, each of an object of its own.

use std::sync::Arc;

use skep_model::{Change, Config, ContentDigest, Contents, Id, Labels, Meta, Timestamp};

/// Creates the config `number` with `bytes` bytes of contents.
pub fn put(number: u64, bytes: usize) -> Change {
    let data: Arc<[u8]> = vec![b'x'; bytes].into();
    let at = Timestamp(number);
    let config = Config {
        id: Id::from_u128(u128::from(number)),
        meta: Meta::new(at),
        name: format!("n{number}"),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest(format!("{number:x}")), data, at),
    };
    Change::CreateConfig { config: Box::new(config) }
}

/// Bytes of contents that make an entry of about `entry_bytes`.
pub fn contents_for(entry_bytes: usize) -> usize {
    let frame = skep_api::encode_changes(&[put(1_000_000, 0)]).len();
    entry_bytes.saturating_sub(frame)
}
