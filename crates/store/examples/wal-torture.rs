//! For power cuts: writes numbered notes through the whole store and prints each number once it is
//! acknowledged; afterwards tells whether every printed number is still there.
//!
//! ```text
//! wal-torture write  DIR                     prints `acknowledged N` a line, until it is killed
//! wal-torture verify DIR FILE                FILE holds what `write` printed; exit code 1 if any is missing
//! ```
//! `write` on a folder that was used before goes on behind the highest number. The last
//! [`KEPT`] notes are kept, so that snapshots stay small and the log is purged and recycled meanwhile.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use skep_model::{Change, Cluster, Config, ContentDigest, Contents, Id, Labels, Meta, Timestamp};
use skep_store::{DataKey, Store, StoreConfig};

/// Notes that are kept; older ones are removed.
const KEPT: u64 = 4096;
/// Proposals under way at once.
const AT_ONCE: u64 = 8;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir] => write(Path::new(dir)).await,
        ["verify", dir, file] => verify(Path::new(dir), Path::new(file)).await,
        _ => bail!("usage: wal-torture write DIR | wal-torture verify DIR FILE"),
    }
}

async fn open(dir: &Path) -> anyhow::Result<Store> {
    let mut config = StoreConfig::new(dir, 1, "", DataKey::from_bytes([0x5a; 32]));
    // Small, so that rolling, recycling, snapshots and purges happen all the time.
    config.segment_bytes = 256 * 1024;
    config.snapshot_bytes_min = 2 << 20;
    config.entries_kept = 64;
    Ok(Store::open(config).await?)
}

async fn write(dir: &Path) -> anyhow::Result<()> {
    let store = open(dir).await?;
    if !store.is_initialized() {
        store.initialize(vec![note(0)]).await?;
    }
    let mut next = highest(&*read(&store).await?).map_or(0, |highest| highest + 1);
    loop {
        let writers: Vec<_> = (next..next + AT_ONCE).map(|number| tokio::spawn(put(store.clone(), number))).collect();
        for writer in writers {
            writer.await??;
        }
        next += AT_ONCE;
    }
}

async fn put(store: Store, number: u64) -> anyhow::Result<()> {
    let mut changes = vec![note(number)];
    if let Some(old) = number.checked_sub(KEPT)
        && store.cluster().configs.contains_key(&Id::from_u128(u128::from(old)))
    {
        changes.push(Change::RemoveConfig { config: Id::from_u128(u128::from(old)) });
    }
    store.propose(changes).await.with_context(|| format!("cannot write note {number}"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {number}")?;
    out.flush()?;
    Ok(())
}

async fn verify(dir: &Path, printed: &Path) -> anyhow::Result<()> {
    let printed = std::fs::read(printed).with_context(|| format!("cannot read {}", printed.display()))?;
    // A guest that dies while it prints leaves half a line, and its console adds returns.
    let acknowledged: BTreeSet<u64> = String::from_utf8_lossy(&printed)
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter_map(|line| line.trim().strip_prefix("acknowledged ")?.parse().ok())
        .collect();
    let store = open(dir).await?;
    if !store.is_initialized() {
        // Killed before the first write was acknowledged, or not the folder that was meant.
        println!("{} acknowledged, and the store is empty", acknowledged.len());
        anyhow::ensure!(acknowledged.is_empty(), "every acknowledged note is lost");
        return Ok(());
    }
    let cluster = read(&store).await?;
    let highest = highest(&cluster).unwrap_or(0);
    let expected = acknowledged.iter().filter(|number| **number + KEPT > highest);
    let missing: Vec<_> = expected.filter(|number| !intact(&cluster, **number)).collect();
    println!("{} acknowledged, the highest written is {highest}, {} missing", acknowledged.len(), missing.len());
    store.shutdown().await;
    if !missing.is_empty() {
        bail!("acknowledged and lost: {missing:?}");
    }
    Ok(())
}

/// Also what was on its way when the last writer died.
async fn read(store: &Store) -> anyhow::Result<Arc<Cluster>> {
    let leading = async {
        let mut leadership = store.leadership();
        leadership.wait_for(|now| matches!(now, skep_store::Leadership::Leader { .. })).await.map(drop)
    };
    tokio::time::timeout(Duration::from_secs(60), leading).await.context("nobody leads")??;
    Ok(store.linearizable().await?)
}

fn highest(cluster: &Cluster) -> Option<u64> {
    cluster.configs.keys().next_back().and_then(|id| u64::try_from(id.as_u128()).ok())
}

fn intact(cluster: &Cluster, number: u64) -> bool {
    let config = cluster.configs.get(&Id::from_u128(u128::from(number)));
    config.and_then(|config| config.contents.current()).is_some_and(|content| *content.data == *text(number))
}

fn text(number: u64) -> Arc<[u8]> {
    format!("note {number} ").repeat(1 + number as usize % 40).into_bytes().into()
}

fn note(number: u64) -> Change {
    let at = Timestamp(number);
    let config = Config {
        id: Id::from_u128(u128::from(number)),
        meta: Meta::new(at),
        name: format!("note-{number}"),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest(format!("{number:064x}")), text(number), at),
    };
    Change::CreateConfig { config: Box::new(config) }
}
