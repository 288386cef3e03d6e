//! What names meant when they were pulled, loaded or tagged: one small file per reference.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;

const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) reference: Reference,
    /// What the registry has under the name: an index, or a manifest.
    pub(crate) digest: Digest,
    /// The manifest chosen for this node.
    pub(crate) manifest: Digest,
    /// The configuration's digest: the image id.
    pub(crate) image: Digest,
    /// Seconds since 1970.
    written_at_s: u64,
}

impl Record {
    pub(crate) fn new(reference: Reference, digest: Digest, manifest: Digest, image: Digest) -> Record {
        let written_at_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Record { format: FORMAT, reference, digest, manifest, image, written_at_s }
    }

    pub(crate) fn written_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.written_at_s)
    }

    pub(crate) fn says_the_same(&self, other: &Record) -> bool {
        let key = |record: &Record| (record.digest, record.manifest, record.image);
        self.reference == other.reference && key(self) == key(other)
    }

    /// Also true if the clock was set back since.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.written_at().elapsed().map_or(true, |elapsed| elapsed > age)
    }

    /// Whether `digest` names this image in any of the three ways.
    pub(crate) fn is(&self, digest: Digest) -> bool {
        [self.digest, self.manifest, self.image].contains(&digest)
    }
}

impl Layout {
    /// Replaces what the reference meant before.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), ImageError> {
        let text = serde_json::to_vec(record).expect("names and digests are valid JSON");
        self.write(&self.ref_path(&record.reference.to_string()), &text)
    }

    /// All records that can be read; one that a power cut damaged is passed over, and replaced by the next pull.
    pub(crate) fn records(&self) -> Result<Vec<Record>, ImageError> {
        let read = |path| serde_json::from_slice::<Record>(&fs::read(path).ok()?).ok();
        let mut records: Vec<Record> =
            self.refs()?.into_iter().filter_map(read).filter(|r| r.format == FORMAT).collect();
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    /// What `reference` means here: the record of exactly that name, or of that repository with that digest, or for
    /// a tag the newest pull that named both this tag and a digest.
    pub(crate) fn record(&self, reference: &Reference) -> Result<Option<Record>, ImageError> {
        let exact = fs::read(self.ref_path(&reference.to_string())).ok();
        if let Some(record) = exact.and_then(|text| serde_json::from_slice::<Record>(&text).ok()) {
            return Ok(Some(record));
        }
        let mut candidates = self.records()?;
        candidates.retain(|record| is_same(reference, record));
        Ok(candidates.into_iter().max_by_key(Record::written_at))
    }

    /// Removes the records that `reference` names; returns what they named.
    pub(crate) fn remove_records(&self, reference: &Reference) -> Result<Vec<Reference>, ImageError> {
        let records = self.records()?;
        let exact: Vec<&Record> = records.iter().filter(|record| record.reference == *reference).collect();
        let named = match exact.is_empty() {
            false => exact,
            true => records.iter().filter(|record| is_same(reference, record)).collect(),
        };
        for record in &named {
            self.remove_record(record)?;
        }
        Ok(named.into_iter().map(|record| record.reference.clone()).collect())
    }

    pub(crate) fn remove_record(&self, record: &Record) -> Result<(), ImageError> {
        let path = self.ref_path(&record.reference.to_string());
        fs::remove_file(&path).map_err(ImageError::io("remove", &path))
    }
}

fn is_same(wanted: &Reference, record: &Record) -> bool {
    let has = &record.reference;
    let repository = has.registry() == wanted.registry() && has.repository() == wanted.repository();
    repository
        && match wanted.digest() {
            Some(digest) => record.is(digest),
            None => has.tag() == wanted.tag(),
        }
}
