//! Row B12: what a lone Raft entry and an idle minute cost the disk, and what a plain file costs for as many bytes.
//!
//! One entry at a time, each synchronized before the next: the case in which a log can share nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use skep_store::{DataKey, Store, StoreConfig};

use crate::content::{contents_for, put};
use crate::device::Device;

const ENTRY_BYTES: usize = 512;
/// What a log adds to an entry, at least: its length and a checksum.
const FRAME_BYTES: usize = 20;

#[derive(Serialize)]
struct Entry {
    entries: u64,
    /// Of a proposal, encoded.
    entry_bytes: f64,
    /// Per entry.
    device_bytes: f64,
    log_bytes: f64,
    idle_seconds: u64,
    /// Of the whole idle time.
    idle_bytes: u64,
}

/// Writes lone entries to a store of its own in `folder`, and then nothing for `idle_seconds`.
pub async fn store(folder: &Path, entries: u64, idle_seconds: u64) -> Result<()> {
    let store = Store::open(StoreConfig::new(folder.join("store"), 1, "", DataKey::generate()?)).await?;
    store.initialize(vec![put(0, 8)]).await?;
    let device = Device::of(folder)?;
    device.settle()?;
    let (device_before, log_before) = (device.written()?, store.metrics().wal.bytes_written);
    let contents = contents_for(ENTRY_BYTES);
    let mut encoded = 0;
    for number in 1..=entries {
        let change = put(number, contents);
        encoded += skep_api::encode_changes(std::slice::from_ref(&change)).len();
        store.propose(vec![change]).await?;
    }
    let (written, log) = (device.written()? - device_before, store.metrics().wal.bytes_written - log_before);
    device.settle()?;
    let before = device.written()?;
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let per_entry = |bytes: u64| bytes as f64 / entries as f64;
    let entry = Entry {
        entries,
        entry_bytes: encoded as f64 / entries as f64,
        device_bytes: per_entry(written),
        log_bytes: per_entry(log),
        idle_seconds,
        idle_bytes: device.written()? - before,
    };
    store.shutdown().await;
    println!("{}", serde_json::to_string(&entry)?);
    Ok(())
}

#[derive(Serialize)]
struct Flushed {
    entries: u64,
    /// Per entry.
    device_bytes: f64,
}

/// Appends entries to a file in `folder` and synchronizes each: `growing`, or `zeroed` over zeros written before.
pub fn file(folder: &Path, layout: &str, entries: u64) -> Result<()> {
    let path = folder.join(layout);
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let framed = ENTRY_BYTES + FRAME_BYTES;
    match layout {
        "growing" => {}
        "zeroed" => file.write_all_at(&vec![0; framed * entries as usize + 4096], 0).context("cannot fill the file")?,
        _ => bail!("a file is `growing` or `zeroed`, not `{layout}`"),
    }
    file.sync_all().context("cannot synchronize the file")?;
    let device = Device::of(folder)?;
    device.settle()?;
    let before = device.written()?;
    let entry = vec![b'x'; framed];
    for number in 0..entries {
        file.write_all_at(&entry, number * framed as u64).context("cannot write the file")?;
        file.sync_data().context("cannot synchronize the file")?;
    }
    let flushed = Flushed { entries, device_bytes: (device.written()? - before) as f64 / entries as f64 };
    println!("{}", serde_json::to_string(&flushed)?);
    Ok(())
}
