//! Faults of a lab's network: directions that are cut, and links that are slow and lose packets.
//!
//! They are part of the lab's record, and the switch is made to do what the record says: so that each command, in a process of
//! its own, adds to what is there. Cutting is the kernel's work ([`filter`]); for slow links a [`wire`] is at work as well, in a
//! thread of whoever owns the lab, or in a process of a lab that stays.

mod filter;
mod nfnetlink;
mod wire;

use std::fmt;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::wire::Link;
use crate::holder::Holder;
use crate::node::Node;
use crate::process::{ProcessId, StopSignal};
use crate::{record, tools};

/// The longest delay of a link.
const DELAY_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

/// What is wrong with a lab's network, as its record has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    pub cuts: Vec<Cut>,
    pub slow: Vec<Slow>,
    /// The process that is the slow links, where no owner is.
    pub(crate) wire: Option<ProcessId>,
}

/// Nothing that `from` sends gets to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    pub from: u8,
    pub to: u8,
}

/// Everything that `node` sends or gets is this late, and lost this often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    pub node: u8,
    pub delay_ms: u32,
    pub loss: Loss,
}

/// Which way a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Both,
    /// What the first send to the second is lost; the other way is open.
    OneWay,
}

/// The share of packets that are lost: 0 to 1000 of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss(u16);

impl Loss {
    pub const NONE: Loss = Loss(0);

    /// `None` above 1000.
    pub fn new(per_mille: u16) -> Option<Loss> {
        (per_mille <= 1000).then_some(Loss(per_mille))
    }

    pub fn per_mille(self) -> u16 {
        self.0
    }
}

impl FromStr for Loss {
    type Err = anyhow::Error;

    /// `5%`, `0.5%`, `5`: percent, to a tenth.
    fn from_str(text: &str) -> Result<Loss> {
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let per_mille = match (whole.parse::<u16>(), tenth.parse::<u16>(), tenth.len()) {
            (Ok(whole), Ok(tenth), 1) => whole.checked_mul(10).and_then(|loss| loss.checked_add(tenth)),
            _ => None,
        };
        match per_mille.and_then(Loss::new) {
            Some(loss) => Ok(loss),
            None => bail!("`{text}` is no loss: write percent from 0% to 100%, such as 5% or 0.5%"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenth) => write!(f, "{whole}.{tenth}%"),
        }
    }
}

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.slow.is_empty()
    }

    /// Adds what cuts `first` from `second`; nodes in both keep each other.
    pub(crate) fn cut(&mut self, first: &[u8], second: &[u8], direction: Direction) {
        for (&a, &b) in first.iter().flat_map(|a| second.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
            self.cuts.push(Cut { from: a, to: b });
            if direction == Direction::Both {
                self.cuts.push(Cut { from: b, to: a });
            }
        }
        self.cuts.sort_unstable();
        self.cuts.dedup();
    }

    /// Makes the link of `node` slow instead of what it was; with no delay and no loss it is as new.
    pub(crate) fn slow_down(&mut self, node: u8, delay: Duration, loss: Loss) -> Result<()> {
        if delay > DELAY_MAX {
            bail!("a link delays at most {DELAY_MAX:?}, not {delay:?}");
        }
        self.slow.retain(|slow| slow.node != node);
        let delay_ms = u32::try_from(delay.as_millis()).context("a delay does not fit")?;
        if delay_ms > 0 || loss != Loss::NONE {
            self.slow.push(Slow { node, delay_ms, loss });
        }
        Ok(())
    }
}

/// The slow links of a lab that this process owns.
#[derive(Debug)]
pub(crate) struct OwnWire {
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

impl OwnWire {
    fn start(links: Vec<Link>) -> Result<OwnWire> {
        let (reader, stop) = io::pipe().context("cannot make a pipe")?;
        let work = move || {
            if let Err(error) = wire::run(links, &reader) {
                eprintln!("lab: the slow links are cut: {error:#}");
            }
        };
        let thread = std::thread::Builder::new().name("lab-wire".to_owned()).spawn(work);
        Ok(OwnWire { stop, thread: thread.context("cannot start a thread")? })
    }

    pub(crate) fn end(self) {
        drop(self.stop);
        // It said what went wrong itself; a panic in it was printed.
        let _ended = self.thread.join();
    }
}

/// Makes the network do what the record says, with slow links in this process, in the place of `own`.
pub(crate) fn realize_here(
    outside: &Holder,
    nodes: &[Node],
    faults: &mut Faults,
    own: &mut Option<OwnWire>,
) -> Result<()> {
    end_process(faults)?;
    if let Some(before) = own.take() {
        before.end();
    }
    if !faults.slow.is_empty() {
        let holder = |number| nodes.iter().find(|node| node.number() == number).map(Node::holder);
        *own = Some(OwnWire::start(open(&faults.slow, holder)?)?);
    }
    filter_all(outside, nodes, faults)
}

/// As [`realize_here`], with slow links in a process of lab `name` that lives as long as the lab.
pub(crate) fn realize_apart(outside: &Holder, nodes: &[Node], faults: &mut Faults, name: &str) -> Result<()> {
    end_process(faults)?;
    if !faults.slow.is_empty() {
        faults.wire = Some(start_process(outside, faults, name)?);
    }
    filter_all(outside, nodes, faults)
}

fn filter_all(outside: &Holder, nodes: &[Node], faults: &Faults) -> Result<()> {
    outside.in_netns(|| filter::cut(&faults.cuts))??;
    for node in nodes {
        let queued = faults.slow.iter().any(|slow| slow.node == node.number());
        node.in_netns(|| filter::queue(queued))??;
    }
    Ok(())
}

fn end_process(faults: &mut Faults) -> Result<()> {
    match faults.wire.take() {
        Some(process) => process.stop(StopSignal::Kill, PATIENCE),
        None => Ok(()),
    }
}

fn start_process(outside: &Holder, faults: &Faults, name: &str) -> Result<ProcessId> {
    let slow = serde_json::to_string(&faults.slow).context("slow links are plain data")?;
    let mut command = outside.enter();
    command.arg(tools::skep_binary()?).args(["lab", "wire", name]);
    // Out of the terminal's reach: it ends with the lab, or with the next change.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start the slow links")?;
    let mut input = child.stdin.take().context("the pipe was asked for")?;
    input.write_all(slow.as_bytes()).context("cannot tell which links are slow")?;
    drop(input);
    let mut line = String::new();
    let stdout = child.stdout.take().context("the pipe was asked for")?;
    BufReader::new(stdout).read_line(&mut line).context("cannot hear from the slow links")?;
    if line.trim() != READY {
        let output = child.wait_with_output().context("cannot wait for the slow links")?;
        bail!("cannot make links slow: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let pid = i32::try_from(child.id()).context("process number does not fit")?;
    ProcessId::of(pid).context("the slow links ended at once")
}

const READY: &str = "ready";

/// What `skep lab wire` does: is the slow links that standard input tells, in lab `name`, until it is killed.
pub fn run_wire(name: &str) -> Result<()> {
    let slow: Vec<Slow> = serde_json::from_reader(io::stdin()).context("standard input tells no slow links")?;
    let Some(info) = record::load_named(name)? else {
        bail!("there is no lab `{name}`; `skep lab ls` lists them");
    };
    let holder = |number| info.nodes.iter().find(|node| node.number == number).and_then(|node| node.holder);
    let links = open(&slow, holder)?;
    let (never, _open): (PipeReader, PipeWriter) = io::pipe().context("cannot make a pipe")?;
    println!("{READY}");
    wire::run(links, &never)
}

/// `holder` has the process that holds a node's namespaces.
fn open(slow: &[Slow], holder: impl Fn(u8) -> Option<ProcessId>) -> Result<Vec<Link>> {
    let open = |slow: &Slow| {
        let process = holder(slow.node).with_context(|| format!("node {} is not there", slow.node))?;
        // Nothing is started with it.
        let holder = Holder { process, procs: PathBuf::new() };
        holder.in_netns(|| Link::open(*slow))?
    };
    slow.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_percent_to_a_tenth() {
        for (text, per_mille) in [("5%", 50), ("0.5%", 5), ("100", 1000), ("0", 0), ("99.9%", 999)] {
            let loss: Loss = text.parse().unwrap();
            assert_eq!(loss.per_mille(), per_mille, "{text}");
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        for wrong in ["", "%", "101%", "100.1%", "-1", "5.55", "9999999", "five"] {
            assert!(wrong.parse::<Loss>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_partition_cuts_every_pair_once_and_spares_nodes_on_both_sides() {
        let cuts = |first: &[u8], second: &[u8], direction| {
            let mut faults = Faults::default();
            faults.cut(first, second, direction);
            faults.cut(first, second, direction);
            faults.cuts.iter().map(|cut| (cut.from, cut.to)).collect::<Vec<_>>()
        };
        assert_eq!(cuts(&[1, 2], &[3], Direction::Both), [(1, 3), (2, 3), (3, 1), (3, 2)]);
        assert_eq!(cuts(&[1], &[2, 3], Direction::OneWay), [(1, 2), (1, 3)]);
        assert_eq!(cuts(&[1, 2], &[2, 3], Direction::OneWay), [(1, 2), (1, 3), (2, 3)]);
    }

    #[test]
    fn a_link_without_delay_and_loss_is_as_new() {
        let mut faults = Faults::default();
        faults.slow_down(2, Duration::from_millis(5), Loss::NONE).unwrap();
        faults.slow_down(2, Duration::ZERO, Loss(10)).unwrap();
        assert_eq!(faults.slow, [Slow { node: 2, delay_ms: 0, loss: Loss(10) }]);
        faults.slow_down(2, Duration::ZERO, Loss::NONE).unwrap();
        assert!(faults.is_empty());
        assert!(faults.slow_down(2, Duration::from_secs(61), Loss::NONE).is_err());
    }
}
