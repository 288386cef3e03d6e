//! Several managers, as processes on machines of their own: what holds while some of them are lost, cut off or replaced.
//!
//! Safety is asserted always; time only as "within a deadline that a hang alone reaches".

mod addresses;
mod balancing;
mod bulk;
mod copies;
mod doctor;
mod drivers;
mod dual;
mod failing_updates;
mod healing;
mod lab_command;
mod leader_loss;
mod locks;
mod losses;
mod membership;
mod network;
mod network_losses;
mod partitions;
mod places;
mod recovery;
mod rekeying;
mod secrecy;
mod upgrade;
mod walks;
mod wire;

use serde_json::Value;
use skep_lab::{Node, Outcome};

use crate::world::World;

/// A cluster of nodes n1…: the first ones managers, the rest workers.
pub struct Cluster {
    pub world: World,
    pub managers: u8,
}

impl Cluster {
    /// All of them ready, every manager with a vote.
    pub fn new(managers: u8, workers: u8) -> Cluster {
        Cluster::with_settings(managers, workers, &[])
    }

    /// With more to say at its beginning.
    pub fn with_settings(managers: u8, workers: u8, settings: &[&str]) -> Cluster {
        Cluster::in_world(World::of_nodes(managers + workers), managers, workers, settings)
    }

    /// The same of the first nodes of a world that may have more.
    pub fn in_world(world: World, managers: u8, workers: u8, settings: &[&str]) -> Cluster {
        world.ok(&[&["init", "--advertise-addr", "eth0"], settings].concat());
        for number in 2..=managers + workers {
            let role = if number <= managers { "manager" } else { "worker" };
            join(&world, number, role).ok().unwrap_or_else(|error| panic!("{error}"));
        }
        let cluster = Cluster { world, managers };
        cluster.until_whole(usize::from(managers + workers));
        cluster
    }

    /// Waits until as many nodes are ready and one of them leads.
    pub fn until_whole(&self, nodes: usize) {
        self.world.until(&format!("{nodes} nodes are ready and one leads"), || {
            let rows = rows(&self.world, self.world.node(), &["node", "ls"])?;
            let ready = rows.iter().filter(|row| row["Status"] == "Ready").count();
            let leads = rows.iter().any(|row| row["ManagerStatus"] == "Leader");
            if ready == nodes && leads { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }

    pub fn node(&self, number: u8) -> &Node {
        self.world.lab().node(number)
    }

    pub fn on(&self, number: u8, args: &[&str]) -> Outcome {
        self.world.skep_on(self.node(number), args)
    }

    /// The number of the node that leads, as node `asked` sees it.
    pub fn leader_seen_by(&self, asked: u8) -> Result<u8, String> {
        let rows = rows(&self.world, self.node(asked), &["node", "ls"])?;
        let leader = rows.iter().find(|row| row["ManagerStatus"] == "Leader");
        let name = leader.and_then(|row| row["Hostname"].as_str()).ok_or_else(|| format!("{rows:?}"))?;
        name.trim_start_matches('n').parse().map_err(|_| name.to_owned())
    }

    /// The number of the node that leads; waits for an election.
    pub fn leader(&self) -> u8 {
        self.world.until("a manager leads", || self.leader_seen_by(self.world.node().number()))
    }

    /// Waits until `asked` sees a leader other than `lost`.
    pub fn until_led_by_another(&self, asked: u8, lost: u8) -> u8 {
        self.world.until("another manager leads", || match self.leader_seen_by(asked)? {
            leader if leader != lost => Ok(leader),
            leader => Err(format!("n{leader} still leads")),
        })
    }

    /// A manager other than `number`.
    pub fn other_manager(&self, number: u8) -> u8 {
        (1..=self.managers).find(|other| *other != number).expect("there are several managers")
    }
}

/// Node `number` joins by way of n1.
pub fn join(world: &World, number: u8, role: &str) -> Outcome {
    let token = world.ok(&["join-token", "--quiet", role]);
    let manager = format!("{}:7377", world.node().address());
    world.skep_on(world.lab().node(number), &["join", "--token", token.trim(), &manager])
}

/// A listing on a node, which may not be able to answer just now.
pub fn rows(world: &World, node: &Node, args: &[&str]) -> Result<Vec<Value>, String> {
    let outcome = world.skep_on(node, &[args, &["--no-trunc", "--format", "json"]].concat());
    if !outcome.is_ok() {
        return Err(outcome.to_string());
    }
    outcome.stdout.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))).collect()
}

/// Names of all configs that a node lists.
pub fn configs(cluster: &Cluster, number: u8) -> Result<Vec<String>, String> {
    let rows = rows(&cluster.world, cluster.node(number), &["config", "ls"])?;
    Ok(rows.iter().map(|row| row["Name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// One write; whether it was acknowledged.
pub fn write(cluster: &Cluster, number: u8, name: &str) -> Outcome {
    let script = format!("printf %s content-of-{name} | timeout 60 {} config create {name} -", binary(cluster, number));
    cluster.node(number).run("sh", &["-c", &script]).unwrap()
}

fn binary(cluster: &Cluster, number: u8) -> String {
    cluster.node(number).binary().unwrap().display().to_string()
}
