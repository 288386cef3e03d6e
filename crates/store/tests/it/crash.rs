//! A writing process killed with SIGKILL, again and again on one folder: what it said was written is there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use skep_store::{DataKey, Store, StoreConfig};
use tempfile::TempDir;

use crate::notes::{note, text_of};

const DIR: &str = "SKEP_STORE_CRASH_DIR";
const ROUNDS: u64 = 6;

fn config(dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(dir, 1, "", DataKey::from_bytes([5; 32]));
    config.segment_bytes = 64 * 1024;
    config.snapshot_bytes_min = 512 * 1024;
    config.entries_kept = 16;
    config
}

async fn next_number(store: &Store) -> u64 {
    let cluster = store.linearizable().await.expect("a cluster of one can be read");
    cluster.configs.len() as u64
}

/// The child: writes numbered notes, eight at a time, and prints each number once it is acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of the crash test"]
async fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = Store::open(config(Path::new(&dir))).await.unwrap();
    if !store.is_initialized() {
        store.initialize(vec![note(0, "note 0")]).await.unwrap();
    }
    let mut number = next_number(&store).await;
    loop {
        let writers: Vec<_> = (number..number + 8)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    store.propose(vec![note(number, &format!("note {number}"))]).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {number}").and_then(|()| out.flush()).unwrap();
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        number += 8;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "crash::child_that_writes_until_killed"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 40 + round as usize * 67;
        let mut seen = 0;
        for line in lines.by_ref() {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                acknowledged.push(number.parse::<u64>().unwrap());
                seen += 1;
            }
            if seen == wanted {
                break;
            }
        }
        child.kill().unwrap();
        // What it still printed before it died counts too.
        for line in lines {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                acknowledged.push(number.parse::<u64>().unwrap());
            }
        }
        child.wait().unwrap();
        assert!(seen >= wanted, "the child ended by itself");

        let store = Store::open(config(dir.path())).await.expect("a killed store opens");
        let cluster = store.linearizable().await.unwrap();
        for number in &acknowledged {
            assert_eq!(text_of(&cluster, *number), Some(format!("note {number}")), "round {round}");
        }
        // Eight at a time, in any order: the child goes on behind the highest one.
        let highest = cluster.configs.keys().next_back().map_or(0, |id| id.as_u128() as u64);
        for number in 0..=highest {
            if text_of(&cluster, number).is_none() {
                store.propose(vec![note(number, &format!("note {number}"))]).await.unwrap();
            }
        }
        store.shutdown().await;
    }
}
