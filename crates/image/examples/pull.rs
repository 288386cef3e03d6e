//! Pulls one image and prints how long it took and how much memory: `pull STORE-FOLDER REFERENCE`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use skep_image::{ImageStore, Platform, Reference, RegistryConfig};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: pull STORE-FOLDER REFERENCE";
    let (folder, reference) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let reference: Reference = reference.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store = ImageStore::open(&folder, RegistryConfig::default()).await?;
        let start = Instant::now();
        let image = store.pull(&reference, None, &Platform::host(), |_| {}).await?;
        let pulled = start.elapsed();
        store.flush().await;
        println!("{image:?}");
        println!("{} bytes, usable after {pulled:.2?}, on disk after {:.2?}", image.size, start.elapsed());
        Ok::<_, anyhow::Error>(())
    })?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("RssAnon")) {
        println!("{line}");
    }
    Ok(())
}
