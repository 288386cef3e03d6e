//! Row B14: the control plane end to end without containers.
//!
//! Agents are simulated, everything between them and the managers is real: each joins with the worker token, has a
//! key and a certificate of its own and one session over mutual TLS; it answers every task that it is assigned by
//! reporting it as running. The clock runs from the deploy until a manager shows every task as running.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use skep_api::{
    CaClient, ControlClient, DeployMode, DeployRequest, Filter, IssueRequest, Prune, connect_join, connect_unix,
};
use skep_identity::{Credentials, JoinConnector, JoinToken, NodeClock, NodeKey, Tls};
use skep_model::{Availability, DesiredState, Labels, Role, ServiceSpec, Stack, TaskState};

use crate::agent::{self, AgentSetup};
use crate::spec;

/// Joins and handshakes that run at once.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const STACK: &str = "load";

/// What to run, and against whom.
pub struct Load<'a> {
    /// A manager's socket.
    pub socket: &'a Path,
    /// `host:port`, comma-separated; agents are shared out among them.
    pub managers: &'a str,
    /// For workers.
    pub token: &'a str,
    pub agents: u64,
    pub services: u64,
    pub replicas: u64,
}

#[derive(Serialize)]
struct Ran {
    agents: u64,
    tasks: u64,
    join_seconds: f64,
    seconds: f64,
    tasks_per_second: f64,
    /// From the deploy until agents had reported half of the tasks.
    half_seconds: f64,
}

pub async fn run(load: Load<'_>) -> Result<()> {
    raise_limit(load.agents)?;
    let managers: Vec<String> = load.managers.split(',').map(str::to_owned).collect();
    let control = ControlClient::new(connect_unix(load.socket).await?);
    let start = Instant::now();
    let reported = Arc::new(AtomicU64::new(0));
    let sessions = start_agents(&load, &managers, &reported).await?;
    wait_for_nodes(&control, load.agents).await?;
    let join_seconds = start.elapsed().as_secs_f64();
    eprintln!("{} agents have a session after {join_seconds:.1} s", load.agents);

    let start = Instant::now();
    deploy(&control, load.services, load.replicas).await?;
    eprintln!("deployed after {:.2} s", start.elapsed().as_secs_f64());
    let tasks = load.services * load.replicas;
    let all = async {
        let mut half = None;
        while reported.load(Relaxed) < tasks {
            half = half.or_else(|| (reported.load(Relaxed) * 2 >= tasks).then(|| start.elapsed()));
            tokio::time::sleep(LOOK_EVERY).await;
        }
        eprintln!("all reported after {:.2} s", start.elapsed().as_secs_f64());
        for number in 0..load.services {
            wait_for_tasks(&control, number, load.replicas).await?;
        }
        anyhow::Ok(half.unwrap_or_else(|| start.elapsed()))
    };
    let half = tokio::time::timeout(PATIENCE, all)
        .await
        .map_err(|_| anyhow!("agents reported {} of {tasks} tasks within {PATIENCE:?}", reported.load(Relaxed)))??;
    let seconds = start.elapsed().as_secs_f64();
    let ran = Ran {
        agents: load.agents,
        tasks,
        join_seconds,
        seconds,
        tasks_per_second: tasks as f64 / seconds,
        half_seconds: half.as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&ran)?);
    drop(sessions);
    Ok(())
}

/// Each agent has a connection.
fn raise_limit(agents: u64) -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = agents + 100;
    limit.current = limit.current.map(|current| current.max(wanted));
    limit.maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).context("cannot open so many connections")
}

async fn start_agents(
    load: &Load<'_>,
    managers: &[String],
    reported: &Arc<AtomicU64>,
) -> Result<tokio::task::JoinSet<()>> {
    let clock = Arc::new(NodeClock::new());
    let joined: Vec<(u64, Tls)> = stream::iter(0..load.agents)
        .map(|number| {
            let manager = &managers[number as usize % managers.len()];
            let clock = Arc::clone(&clock);
            async move { anyhow::Ok((number, join(manager, load.token, clock).await?)) }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let connecting = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut sessions = tokio::task::JoinSet::new();
    for (number, tls) in joined {
        let setup = AgentSetup {
            number,
            tls,
            manager: managers[number as usize % managers.len()].clone(),
            reported: Arc::clone(reported),
            connecting: Arc::clone(&connecting),
        };
        sessions.spawn(agent::live(setup));
    }
    Ok(sessions)
}

/// A certificate of its own for one more node.
async fn join(manager: &str, token: &str, clock: Arc<NodeClock>) -> Result<Tls> {
    let parsed: JoinToken = token.parse()?;
    let key = NodeKey::generate()?;
    let request = IssueRequest {
        token: token.to_owned(),
        csr: key.request()?.into(),
        availability: Availability::Active,
        level: skep_model::FEATURE_LEVEL,
        routes: Vec::new(),
    };
    let connection = connect_join(manager, JoinConnector::new(parsed.ca(), Arc::clone(&clock))).await?;
    let issued = CaClient::new(connection).issue(request).await.map_err(|refusal| anyhow!("{}", refusal.message))?;
    let credentials = Credentials::new(key, &issued.certificate, &issued.authorities)?;
    Ok(Tls::new(&credentials, clock)?)
}

/// Until the cluster shows as many workers ready.
async fn wait_for_nodes(control: &ControlClient, agents: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = control.nodes(Filter::default()).await.map_err(|refusal| anyhow!("{}", refusal.message))?;
        let ready = |node: &&skep_model::Node| {
            node.spec.role == Role::Worker && node.status.state == skep_model::NodeState::Ready
        };
        let ready = nodes.iter().filter(ready).count() as u64;
        if ready >= agents {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{ready} of {agents} agents are ready after {PATIENCE:?}");
        }
        tokio::time::sleep(LOOK_EVERY * 10).await;
    }
}

async fn deploy(control: &ControlClient, services: u64, replicas: u64) -> Result<()> {
    let specs: Vec<ServiceSpec> = (0..services)
        .map(|number| {
            let mut spec = spec::service(&service_name(number), replicas);
            spec.labels = Labels::from([(Stack::LABEL.to_owned(), STACK.to_owned())]);
            spec
        })
        .collect();
    let request = DeployRequest {
        name: STACK.to_owned(),
        services: specs,
        networks: Vec::new(),
        secrets: Vec::new(),
        configs: Vec::new(),
        prune: Prune::No,
        mode: DeployMode::Apply,
    };
    control.deploy_stack(request).await.map_err(|refusal| anyhow!("{}", refusal.message)).context("not deployed")?;
    Ok(())
}

async fn wait_for_tasks(control: &ControlClient, service: u64, replicas: u64) -> Result<()> {
    loop {
        let filter = Filter { service: Some(service_name(service)), ..Filter::default() };
        let tasks = control.tasks(filter).await.map_err(|refusal| anyhow!("{}", refusal.message))?;
        let runs =
            |task: &&skep_model::Task| task.desired == DesiredState::Running && task.status.state == TaskState::Running;
        if tasks.iter().filter(runs).count() as u64 >= replicas {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn service_name(number: u64) -> String {
    format!("{STACK}_s{number}")
}
