//! `lab partition` and `lab slow`: what is wrong between nodes.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use skep_lab::{Direction, Lab, Loss};

use super::{LabOptions, NodeOptions, find};
use crate::cli::Result;
use crate::cli::output::time;

#[derive(Debug, Args)]
pub struct PartitionOptions {
    #[command(flatten)]
    lab: LabOptions,
    /// Lose only what the first send to the second
    #[arg(long)]
    one_way: bool,
    /// Two groups of nodes: n1,n2 n3 or 'n1,n2 | n3'
    #[arg(required = true, value_name = "NODES")]
    groups: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SlowOptions {
    #[command(flatten)]
    node: NodeOptions,
    /// How late each packet is, each way
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = time::parse_duration)]
    delay: Duration,
    /// How many packets are lost: 5%
    #[arg(long, default_value = "0%", value_name = "PERCENT")]
    loss: Loss,
}

pub fn partition(options: &PartitionOptions) -> Result {
    let (first, second) = two_groups(&options.groups)?;
    let lab = options.lab.attach()?;
    let direction = if options.one_way { Direction::OneWay } else { Direction::Both };
    lab.partition(&numbers(&lab, &first)?, &numbers(&lab, &second)?, direction)
}

pub fn slow(options: &SlowOptions) -> Result {
    let lab = options.node.lab.attach()?;
    lab.slow(find(&lab, &options.node.node)?.number(), options.delay, options.loss)
}

/// The names in both groups. A bar divides them, or else they are two arguments.
fn two_groups(arguments: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let whole = arguments.join(" ");
    let sides: Vec<&str> = match whole.contains('|') {
        true => whole.split('|').collect(),
        false => arguments.iter().map(String::as_str).collect(),
    };
    let names = |side: &str| -> Vec<String> {
        side.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let groups: Vec<Vec<String>> = sides.into_iter().map(names).filter(|group| !group.is_empty()).collect();
    match <[Vec<String>; 2]>::try_from(groups) {
        Ok([first, second]) => Ok((first, second)),
        Err(_) => bail!("`{whole}` is not two groups of nodes; write n1,n2 n3 or 'n1,n2 | n3'"),
    }
}

fn numbers(lab: &Lab, names: &[String]) -> Result<Vec<u8>> {
    names.iter().map(|name| Ok(find(lab, name)?.number())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_two_arguments_or_divided_by_a_bar() {
        let read = |line: &str| {
            let arguments: Vec<String> = line.split('/').map(str::to_owned).collect();
            two_groups(&arguments).map(|(first, second)| format!("{} {}", first.join("+"), second.join("+"))).ok()
        };
        for line in ["n1,n2/n3", "n1,n2|n3", "n1,n2 | n3", "n1,n2/|/n3", "n1/n2/|/n3", "n1, n2 |n3"] {
            assert_eq!(read(line).as_deref(), Some("n1+n2 n3"), "{line}");
        }
        for line in ["n1", "n1,n2", "n1/n2/n3", "n1|n2|n3", "n1|", "/"] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
