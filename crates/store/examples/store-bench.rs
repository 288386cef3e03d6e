//! Figures for rows B11 and B12 of the budgets, for a cluster of one: writes per second with 1, 16 and
//! 128 clients and 256-byte values, and what a lone 512-byte entry and an idle minute cost the disk.
//!
//! ```text
//! store-bench DIR [SECONDS]       DIR on the disk to measure; SECONDS per row, 5 unless given
//! ```
//! Bytes are what the block device under DIR was given, the file system's journal included
//! (`/sys/dev/block/*/stat`): DIR should be on a device of its own, such as a loop device with ext4.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use skep_model::{Change, Config, ContentDigest, Contents, Id, Labels, Meta, Timestamp};
use skep_store::{DataKey, Store, StoreConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().context("usage: store-bench DIR [SECONDS]")?;
    let seconds = args.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let store = Store::open(StoreConfig::new(Path::new(&dir), 1, "", DataKey::generate()?)).await?;
    let next = Arc::new(AtomicU64::new(1));
    store.initialize(vec![put(&next, 8)]).await?;
    let sync = store.metrics().wal.last_sync;
    println!("fdatasync of 4 KiB: {:.2} ms", sync.as_secs_f64() * 1e3);

    let device = Device::of(Path::new(&dir))?;
    lone_entry(&store, &next, &device).await?;
    for clients in [1, 16, 128] {
        throughput(&store, &next, clients, Duration::from_secs(seconds)).await?;
    }
    idle(&store, &device).await?;
    store.shutdown().await;
    Ok(())
}

/// A proposal that makes an entry of about `bytes` bytes.
fn put(next: &AtomicU64, bytes: usize) -> Change {
    let number = next.fetch_add(1, Relaxed);
    let data: Arc<[u8]> = vec![b'x'; bytes].into();
    let at = Timestamp(number);
    let config = Config {
        // A few thousand objects, replaced over and over.
        id: Id::from_u128(u128::from(number)),
        meta: Meta::new(at),
        name: format!("n{number}"),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest(format!("{number:x}")), data, at),
    };
    Change::CreateConfig { config: Box::new(config) }
}

async fn lone_entry(store: &Store, next: &AtomicU64, device: &Device) -> anyhow::Result<()> {
    let entries = 500;
    device.settle().await?;
    let (before, log_before) = (device.written()?, store.metrics().wal.bytes_written);
    let mut sizes = 0;
    for _ in 0..entries {
        let change = put(next, 430);
        sizes += skep_api::encode_changes(std::slice::from_ref(&change)).len();
        store.propose(vec![change]).await?;
    }
    let device_bytes = (device.written()? - before) / entries;
    let log = (store.metrics().wal.bytes_written - log_before) / entries;
    let size = sizes as u64 / entries;
    println!("B12 lone entry of {size} bytes: {device_bytes} bytes to the device, {log} of them log");
    Ok(())
}

async fn throughput(store: &Store, next: &Arc<AtomicU64>, clients: u64, time: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    let syncs = store.metrics().wal.syncs;
    let running: Vec<_> = (0..clients)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(next));
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while start.elapsed() < time {
                    let began = Instant::now();
                    store.propose(vec![put(&next, 256)]).await?;
                    waits.push(began.elapsed());
                }
                anyhow::Ok(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for client in running {
        waits.extend(client.await??);
    }
    let took = start.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "B11 (1 manager) {clients:>3} clients: {:>7.0} writes/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} writes per sync",
        waits.len() as f64 / took,
        at(0.5),
        at(0.99),
        waits.len() as f64 / (store.metrics().wal.syncs - syncs) as f64,
    );
    Ok(())
}

async fn idle(store: &Store, device: &Device) -> anyhow::Result<()> {
    device.settle().await?;
    let (before, log) = (device.written()?, store.metrics().wal.bytes_written);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (bytes, log) = (device.written()? - before, store.metrics().wal.bytes_written - log);
    println!("B12 idle for a minute: {bytes} bytes to the device, {log} bytes of log");
    Ok(())
}

/// The block device under a folder.
struct Device {
    stat: PathBuf,
}

impl Device {
    fn of(dir: &Path) -> anyhow::Result<Device> {
        let number = std::fs::metadata(dir)?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Ok(Device { stat: PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat")) })
    }

    /// Bytes written since it was made.
    fn written(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(&self.stat)
            .with_context(|| format!("cannot read {}: the folder must be on a block device", self.stat.display()))?;
        let sectors: u64 = stat.split_whitespace().nth(6).context("no sectors written there")?.parse()?;
        Ok(sectors * 512)
    }

    /// Waits until the kernel has written back what others left: no bytes for several seconds.
    async fn settle(&self) -> anyhow::Result<()> {
        rustix::fs::sync();
        for _ in 0..20 {
            let before = self.written()?;
            tokio::time::sleep(Duration::from_secs(6)).await;
            if self.written()? == before {
                return Ok(());
            }
        }
        bail!("somebody else keeps writing to this device: give the benchmark one of its own")
    }
}
