//! Making a lab: the switch, the nodes, and the promise that all of it goes away.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup;
use crate::faults::{self, Direction, Faults, Loss, OwnWire};
use crate::holder::Holder;
use crate::node::{self, Node};
use crate::process::ProcessId;
use crate::record::{self, LabInfo, NodeInfo};
use crate::registry::Registry;
use crate::{teardown, wiring};

/// The most nodes of one lab: the switch is a /24 whose last address is the outside.
const NODES_MAX: u8 = 250;

/// When a lab goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// With this value, or with [`crate::sweep`] once this process is gone.
    Owned,
    /// With [`crate::down`].
    Detached,
}

/// Where the world outside the nodes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In a namespace of the lab. The machine's own network is left alone.
    Apart,
    /// This machine: it has [`crate::OUTSIDE_ADDRESS`], on a link that goes with the lab, and reaches the nodes. Only one lab
    /// at a time can be: the next is [`Reach::Apart`].
    Machine,
}

/// Describes a lab; see [`Lab::builder`].
#[derive(Clone, Debug)]
pub struct LabBuilder {
    nodes: u8,
    name: Option<String>,
    lifetime: Lifetime,
    reach: Reach,
    binary: Option<PathBuf>,
}

/// A running lab. Dropping an owned one kills its processes and removes its namespaces, cgroups and folders, on panic too.
#[derive(Debug)]
pub struct Lab {
    info: LabInfo,
    lifetime: Lifetime,
    outside: Holder,
    nodes: Vec<Node>,
    wire: Mutex<Option<OwnWire>>,
}

impl LabBuilder {
    /// How many nodes, 0 to 250. The default is 1.
    pub fn nodes(mut self, nodes: u8) -> LabBuilder {
        self.nodes = nodes;
        self
    }

    /// A name of 1 to 32 of `a-z0-9-`. The default is made from this process's number.
    pub fn name(mut self, name: &str) -> LabBuilder {
        self.name = Some(name.to_owned());
        self
    }

    pub fn lifetime(mut self, lifetime: Lifetime) -> LabBuilder {
        self.lifetime = lifetime;
        self
    }

    /// The default is [`Reach::Apart`].
    pub fn reach(mut self, reach: Reach) -> LabBuilder {
        self.reach = reach;
        self
    }

    /// The `skep` to run in the nodes. The default is [`crate::skep_binary`], looked up when first needed.
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> LabBuilder {
        self.binary = Some(binary.into());
        self
    }

    /// Makes the lab. Also takes down what labs of dead processes left. Needs root.
    pub fn build(self) -> Result<Lab> {
        if !rustix::process::geteuid().is_root() {
            bail!("a lab makes namespaces and cgroups and needs root: run this with sudo");
        }
        if self.nodes > NODES_MAX {
            bail!("a lab has at most {NODES_MAX} nodes, not {}", self.nodes);
        }
        let name = self.name.unwrap_or_else(own_name);
        record::check_name(&name)?;
        say_failure(teardown::sweep().map(|_| ()));
        let info = announce(&name, self.lifetime, self.nodes)?;
        // From here on a failure takes down what was made so far.
        let mut draft = Draft { info, armed: true };
        let (outside, nodes) = construct(&mut draft.info, self.reach, self.binary)?;
        draft.armed = false;
        Ok(Lab { info: draft.info.clone(), lifetime: self.lifetime, outside, nodes, wire: Mutex::new(None) })
    }
}

impl Lab {
    /// A lab of one node that lives as long as the value.
    pub fn builder() -> LabBuilder {
        LabBuilder { nodes: 1, name: None, lifetime: Lifetime::Owned, reach: Reach::Apart, binary: None }
    }

    /// A named lab that stays after this process, until [`crate::down`].
    pub fn up(name: &str, nodes: u8) -> Result<Lab> {
        Lab::builder().name(name).nodes(nodes).lifetime(Lifetime::Detached).build()
    }

    /// Lets an owned lab stay after this process, until [`crate::down`]. Its slow links end with this process, so they are
    /// quick again.
    pub fn keep(mut self) -> Result<()> {
        self.change_faults(|faults| {
            faults.slow.clear();
            Ok(())
        })?;
        record::update(&self.info.name, |info| {
            info.owner = None;
            Ok(())
        })?;
        self.lifetime = Lifetime::Detached;
        Ok(())
    }

    /// The running lab `name`, made by another process. Dropping the value leaves the lab up.
    pub fn attach(name: &str) -> Result<Lab> {
        let Some(info) = record::load_named(name)? else {
            bail!("there is no lab `{name}`; `skep lab ls` lists them");
        };
        let outside = holder_of(name, 0, info.outside)?;
        let mut nodes = Vec::new();
        for node in &info.nodes {
            let holder = holder_of(name, node.number, node.holder)?;
            nodes.push(Node::new(node.clone(), &info.folder, holder, None));
        }
        Ok(Lab { info, lifetime: Lifetime::Detached, outside, nodes, wire: Mutex::new(None) })
    }

    pub fn name(&self) -> &str {
        &self.info.name
    }

    pub fn info(&self) -> &LabInfo {
        &self.info
    }

    /// Node `number`, counted from 1.
    ///
    /// # Panics
    /// When the lab has no such node.
    pub fn node(&self, number: u8) -> &Node {
        let found = self.nodes.iter().find(|node| node.number() == number);
        found.unwrap_or_else(|| panic!("lab {} has {} nodes, no node {number}", self.info.name, self.nodes.len()))
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Runs `work` in the network outside the nodes, as their users' machines are.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.outside.in_netns(work)
    }

    /// A command that runs outside the nodes: the switch's network, its own mount namespace.
    pub fn outside_command(&self, program: &str) -> Command {
        let mut command = self.outside.enter();
        command.arg(program);
        command
    }

    /// A registry for all nodes at `198.51.100.254:5000`, over HTTP: nodes need it among their insecure registries, where
    /// [`Node::write_config`] puts it. For a registry on a node's loopback see [`Node::start_registry`].
    pub fn start_registry(&self, images: &std::path::Path) -> Result<Registry> {
        Registry::start(&self.outside, wiring::OUTSIDE_ADDRESS, images, &self.info.folder)
    }

    pub(crate) fn outside_holder(&self) -> &Holder {
        &self.outside
    }

    /// What is wrong with the lab's network just now.
    pub fn faults(&self) -> Result<Faults> {
        Ok(record::load_named(&self.info.name)?.map(|info| info.faults).unwrap_or_default())
    }

    /// Cuts the nodes `first` from the nodes `second`, beside what is cut already: packets vanish, those of open connections
    /// too, and nobody is told. A node in both groups keeps both. The outside still reaches all.
    pub fn partition(&self, first: &[u8], second: &[u8], direction: Direction) -> Result<()> {
        self.check_numbers(first)?;
        self.check_numbers(second)?;
        self.change_faults(|faults| {
            faults.cut(first, second, direction);
            Ok(())
        })
    }

    /// Makes the link of node `number` slow: each packet that it sends or gets is `delay` (0 to 60 s) late, to the
    /// millisecond, or lost. Takes the place of what the link was before.
    pub fn slow(&self, number: u8, delay: Duration, loss: Loss) -> Result<()> {
        self.check_numbers(&[number])?;
        self.change_faults(|faults| faults.slow_down(number, delay, loss))
    }

    /// Ends all partitions and makes all links quick; what is under way on slow ones is lost. Cables that were pulled stay so.
    pub fn heal(&self) -> Result<()> {
        self.change_faults(|faults| {
            faults.cuts.clear();
            faults.slow.clear();
            Ok(())
        })
    }

    fn change_faults(&self, change: impl FnOnce(&mut Faults) -> Result<()>) -> Result<()> {
        record::update(&self.info.name, |info| {
            change(&mut info.faults)?;
            match self.lifetime {
                Lifetime::Owned => {
                    let mut own = self.wire.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    faults::realize_here(&self.outside, &self.nodes, &mut info.faults, &mut own)
                }
                Lifetime::Detached => {
                    faults::realize_apart(&self.outside, &self.nodes, &mut info.faults, &self.info.name)
                }
            }
        })
    }

    fn check_numbers(&self, numbers: &[u8]) -> Result<()> {
        match numbers.iter().find(|number| !self.nodes.iter().any(|node| node.number() == **number)) {
            Some(number) => bail!("lab {} has {} nodes, no node {number}", self.info.name, self.nodes.len()),
            None => Ok(()),
        }
    }

    /// Pulls the network cable of node `number`.
    pub fn unplug(&self, number: u8) -> Result<()> {
        wiring::set_connected(&self.outside, number, false)
    }

    /// Puts the network cable of node `number` back.
    pub fn plug(&self, number: u8) -> Result<()> {
        wiring::set_connected(&self.outside, number, true)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Owned {
            // First, for its socket keeps the switch's namespace.
            let wire = self.wire.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(wire) = wire.take() {
                wire.end();
            }
            say_failure(teardown::take_down(&self.info));
        }
    }
}

/// A lab under construction.
struct Draft {
    info: LabInfo,
    armed: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.armed {
            say_failure(teardown::take_down(&self.info));
        }
    }
}

/// A drop cannot return an error, and what it leaves the next sweep finds.
fn say_failure(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("lab: could not clean up, the next sweep tries again: {error:#}");
    }
}

/// Writes the record, with every node in it, before any of the lab exists.
fn announce(name: &str, lifetime: Lifetime, nodes: u8) -> Result<LabInfo> {
    let owner = match lifetime {
        Lifetime::Owned => Some(ProcessId::current()?),
        Lifetime::Detached => None,
    };
    let _lock = record::lock()?;
    if record::load_named(name)?.is_some() {
        bail!("there is a lab `{name}` already; `skep lab down {name}` takes it down");
    }
    // On a disk, as a node's data is, where /tmp may be memory; and short, for the sockets below it have 107 bytes.
    let mut info = LabInfo::new(name, owner, PathBuf::from(format!("/var/tmp/skep-lab-{name}")));
    info.nodes = (1..=nodes).map(|number| node_info(name, number)).collect();
    info.save()?;
    Ok(info)
}

fn node_info(lab: &str, number: u8) -> NodeInfo {
    NodeInfo {
        name: format!("n{number}"),
        number,
        address: wiring::node_address(number),
        cgroup_parent: format!("/{}", record::cgroup_name(lab, number)),
        holder: None,
    }
}

fn construct(info: &mut LabInfo, reach: Reach, binary: Option<PathBuf>) -> Result<(Holder, Vec<Node>)> {
    fs::create_dir_all(&info.folder).with_context(|| format!("cannot create {}", info.folder.display()))?;
    let outside = hold(&info.name, 0, "outside")?;
    info.outside = Some(outside.process);
    wiring::make_switch(&outside).context("cannot make the lab's switch")?;
    if reach == Reach::Machine && wiring::join_machine(&outside).context("cannot connect this machine to the lab")? {
        info.gateway = Some(wiring::OUTSIDE_ADDRESS);
    } else {
        wiring::stay_apart(&outside).context("cannot make the world outside the lab")?;
    }
    let mut nodes = Vec::new();
    for node in &mut info.nodes {
        let holder = hold(&info.name, node.number, &node.name)?;
        node.holder = Some(holder.process);
        wiring::plug(&outside, &holder, node.number).with_context(|| format!("cannot connect node {}", node.name))?;
        let made = Node::new(node.clone(), &info.folder, holder, binary.clone());
        node::make_folders(&made)?;
        nodes.push(made);
    }
    info.save()?;
    Ok((outside, nodes))
}

fn hold(lab: &str, number: u8, hostname: &str) -> Result<Holder> {
    let procs = cgroup::create(&record::cgroup_name(lab, number))?;
    Holder::start(hostname, &procs)
}

fn holder_of(lab: &str, number: u8, process: Option<ProcessId>) -> Result<Holder> {
    match process.filter(|process| process.is_alive()) {
        Some(process) => Ok(Holder { process, procs: cgroup::create(&record::cgroup_name(lab, number))? }),
        None => bail!("lab `{lab}` is not whole any more; `skep lab down {lab}` clears it"),
    }
}

/// `PID-COUNT`: tests run many labs at once, in one process or many.
fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
