//! One skep cluster of a lab's nodes, formed as a user would: by the `skep` command line.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::lab::Lab;
use crate::node::Node;

/// How long nodes may take to be ready. Generous: machines are shared and builds run beside tests.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Where managers listen for other nodes.
const PORT: u16 = 7377;

/// A lab whose nodes are members of one cluster: the first are managers, the others workers.
#[derive(Debug)]
pub struct Cluster<'a> {
    lab: &'a Lab,
    managers: u8,
}

/// A row of `skep node ls`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeRow {
    #[serde(rename = "ID")]
    pub id: String,
    /// In a lab the node's name: `n1`.
    pub hostname: String,
    /// `Ready`, `Down`, `Unknown` or `Disconnected`.
    pub status: String,
    pub availability: String,
    /// `Leader`, `Reachable` or `Unreachable`; empty for a worker.
    pub manager_status: String,
}

impl NodeRow {
    pub fn is_ready(&self) -> bool {
        self.status == "Ready"
    }

    pub fn is_leader(&self) -> bool {
        self.manager_status == "Leader"
    }

    /// A manager that the others reach.
    pub fn is_reachable_manager(&self) -> bool {
        self.is_leader() || self.manager_status == "Reachable"
    }
}

/// The output of `skep node ls --format json`.
pub fn parse_node_rows(json_lines: &str) -> Result<Vec<NodeRow>> {
    let row = |line: &str| serde_json::from_str(line).with_context(|| format!("`{line}` is no row of `node ls`"));
    json_lines.lines().map(row).collect()
}

impl Node {
    /// The cluster's nodes as this node, a manager, lists them.
    pub fn list_nodes(&self) -> Result<Vec<NodeRow>> {
        parse_node_rows(&self.skep(&["node", "ls", "--no-trunc", "--format", "json"])?.ok()?)
    }
}

impl<'a> Cluster<'a> {
    /// Starts a daemon in each node that has none, makes a cluster of n1 and joins the others: up to n`managers` as managers, then
    /// workers. Returns once every node is ready and every manager is reachable.
    pub fn form(lab: &'a Lab, managers: u8) -> Result<Cluster<'a>> {
        if managers == 0 || usize::from(managers) > lab.nodes().len() {
            bail!("a cluster of {} nodes has 1 to {0} managers, not {managers}", lab.nodes().len());
        }
        let cluster = Cluster { lab, managers };
        cluster.start_daemons()?;
        let (first, others) = lab.nodes().split_first().context("a lab with managers has nodes")?;
        first.skep(&["init", "--advertise-addr", &first.address().to_string()])?.ok()?;
        let (managers, workers) = others.split_at(usize::from(managers) - 1);
        if !managers.is_empty() {
            let token = cluster.join_token("manager")?;
            // One after the other, as a user would: each changes who votes.
            managers.iter().try_for_each(|node| cluster.join(node, &token))?;
        }
        if !workers.is_empty() {
            let token = cluster.join_token("worker")?;
            at_once(workers, |node| cluster.join(node, &token))?;
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    pub fn lab(&self) -> &Lab {
        self.lab
    }

    /// How many nodes were made managers: n1 to n`managers`.
    pub fn managers(&self) -> u8 {
        self.managers
    }

    /// A new token, asked of n1; it makes earlier ones of the same role worthless. `role` is `worker` or `manager`.
    pub fn join_token(&self, role: &str) -> Result<String> {
        Ok(self.lab.node(1).skep(&["join-token", "--quiet", role])?.ok()?.trim().to_owned())
    }

    /// Joins `node` by way of n1.
    pub fn join(&self, node: &Node, token: &str) -> Result<()> {
        let manager = format!("{}:{PORT}", self.lab.node(1).address());
        let address = node.address().to_string();
        let joined = node.skep(&["join", "--token", token, "--advertise-addr", &address, &manager])?.ok();
        joined.map(drop).with_context(|| format!("node {} did not join", node.name()))
    }

    /// Waits until n1 lists every node as ready and every manager as reachable.
    pub fn wait_until_whole(&self) -> Result<()> {
        let wanted = self.lab.nodes().len();
        let first = self.lab.node(1);
        self.wait("every node is ready", || {
            let rows = first.list_nodes()?;
            let ready = rows.iter().filter(|row| row.is_ready()).count();
            let managers = rows.iter().filter(|row| row.is_reachable_manager()).count();
            match (ready, managers) == (wanted, usize::from(self.managers)) {
                true => Ok(()),
                false => bail!("{}", Listing(&rows)),
            }
        })
    }

    /// The number of the node that leads, as the first node that answers has it; waits until there is one.
    pub fn leader(&self) -> Result<u8> {
        self.wait("there is a leader", || {
            let managers = &self.lab.nodes()[..usize::from(self.managers)];
            let rows = managers.iter().filter(|node| is_at_work(node)).find_map(|node| node.list_nodes().ok());
            let leader = rows.iter().flatten().find(|row| row.is_leader()).map(|row| &row.hostname);
            let node = self.lab.nodes().iter().find(|node| Some(node.name()) == leader.map(String::as_str));
            node.map(Node::number).context("no manager names a leader")
        })
    }

    fn start_daemons(&self) -> Result<()> {
        at_once(self.lab.nodes(), |node| match node.daemon()? {
            Some(_) => Ok(()),
            None => node.start_daemon().map(drop),
        })
    }

    /// Looks until `look` succeeds; its last error is in the one when it never does.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(last) if Instant::now() > deadline => {
                    return Err(last).with_context(|| format!("waited {PATIENCE:?} in vain until {what}"));
                }
                // The cluster is asked by command line, which announces nothing.
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }
}

/// A daemon that was paused takes connections and never answers.
fn is_at_work(node: &Node) -> bool {
    node.daemon().is_ok_and(|daemon| daemon.is_some_and(|daemon| !daemon.is_paused()))
}

/// Does `work` for all nodes at once, and fails with the first failure.
fn at_once(nodes: &[Node], work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

struct Listing<'a>(&'a [NodeRow]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for NodeRow { id: _, hostname, status, availability, manager_status } in self.0 {
            write!(f, "{hostname}: {status} {availability} {manager_status}; ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_node_ls_are_read() {
        let lines = "{\"ID\":\"1\",\"IDSelf\":\"1 *\",\"Hostname\":\"n1\",\"Status\":\"Ready\",\"Availability\":\"Active\",\"ManagerStatus\":\"Leader\"}\n\
            {\"ID\":\"2\",\"Hostname\":\"n2\",\"Status\":\"Down\",\"Availability\":\"Active\",\"ManagerStatus\":\"\"}\n";
        let rows = parse_node_rows(lines).unwrap();
        let told: Vec<_> =
            rows.iter().map(|row| (row.is_ready(), row.is_leader(), row.is_reachable_manager())).collect();
        assert_eq!(told, [(true, true, true), (false, false, false)]);
        assert!(parse_node_rows("not json").is_err());
    }
}
