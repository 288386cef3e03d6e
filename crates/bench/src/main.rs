//! Measures parts of skep alone, and prints what it measured as JSON: the programs that `cargo xtask bench` runs.
//!
//! Development only.

mod agent;
mod agents;
mod content;
mod device;
mod endpoint;
mod entry;
mod etcd;
mod managers;
mod placing;
mod spec;
mod writes;

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage:
  skep-bench placing NODES SERVICES REPLICAS
  skep-bench endpoint FOLDER BACKENDS
  skep-bench entry FOLDER ENTRIES IDLE_SECONDS
  skep-bench file FOLDER growing|zeroed ENTRIES
  skep-bench writes etcd ENDPOINT,… CLIENTS SECONDS
  skep-bench writes skep FOLDER CLIENTS SECONDS
  skep-bench agents SOCKET MANAGER,… WORKER_TOKEN AGENTS SERVICES REPLICAS";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["placing", nodes, services, replicas] => placing::run(number(nodes)?, number(services)?, number(replicas)?),
        ["endpoint", folder, backends] => endpoint::run(Path::new(folder), number(backends)?),
        ["file", folder, layout, entries] => entry::file(Path::new(folder), layout, number(entries)?),
        words => tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(run_async(words)),
    }
}

async fn run_async(words: &[&str]) -> Result<()> {
    match words {
        ["entry", folder, entries, idle] => entry::store(Path::new(folder), number(entries)?, number(idle)?).await,
        ["writes", "etcd", endpoints, clients, seconds] => {
            let mut writers = Vec::new();
            for _ in 0..number::<usize>(clients)? {
                writers.push(writes::Writer::Etcd(etcd::Client::at_leader(endpoints).await?));
            }
            writes::run(writers, Duration::from_secs(number(seconds)?)).await
        }
        ["writes", "skep", folder, clients, seconds] => {
            let managers = managers::Managers::start(Path::new(folder)).await?;
            let mut writers = Vec::new();
            for _ in 0..number::<usize>(clients)? {
                writers.push(writes::Writer::Skep(managers.connect().await?));
            }
            writes::run(writers, Duration::from_secs(number(seconds)?)).await
        }
        ["manager", folder, raft_id] => managers::serve(Path::new(folder), number(raft_id)?).await,
        ["agents", socket, managers, token, agents, services, replicas] => {
            let load = agents::Load {
                socket: Path::new(socket),
                managers,
                token,
                agents: number(agents)?,
                services: number(services)?,
                replicas: number(replicas)?,
            };
            agents::run(load).await
        }
        _ => bail!("{USAGE}"),
    }
}

fn number<T: FromStr>(word: &str) -> Result<T> {
    word.parse().ok().with_context(|| format!("`{word}` is not a number that fits here"))
}
