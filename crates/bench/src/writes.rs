//! Row B11: writes a second with a number of clients, each on a connection of its own with one write under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{etcd, managers};

const VALUE_BYTES: usize = 256;

#[derive(Serialize)]
struct Wrote {
    clients: usize,
    writes: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One connection to the leader of whatever is measured.
pub enum Writer {
    Etcd(etcd::Client),
    Skep(managers::Client),
}

impl Writer {
    async fn put(&mut self, number: u64) -> Result<()> {
        match self {
            Writer::Etcd(client) => client.put(number, VALUE_BYTES).await,
            Writer::Skep(client) => client.put(number, VALUE_BYTES).await,
        }
    }
}

/// Lets all writers write for `time`; prints what they reached together.
pub async fn run(writers: Vec<Writer>, time: Duration) -> Result<()> {
    let clients = writers.len();
    let next = Arc::new(AtomicU64::new(1));
    let start = Instant::now();
    let running: Vec<_> = writers
        .into_iter()
        .map(|mut writer| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut waits = Vec::new();
                while start.elapsed() < time {
                    let began = Instant::now();
                    writer.put(next.fetch_add(1, Relaxed)).await?;
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
    let at = |share: f64| waits.get(((waits.len() - 1) as f64 * share) as usize).context("nothing was written");
    let milliseconds = |share: f64| anyhow::Ok(at(share)?.as_secs_f64() * 1e3);
    let wrote = Wrote {
        clients,
        writes: waits.len(),
        per_second: waits.len() as f64 / took,
        p50_ms: milliseconds(0.5)?,
        p99_ms: milliseconds(0.99)?,
    };
    println!("{}", serde_json::to_string(&wrote)?);
    Ok(())
}
