//! B12: what one Raft entry costs the disk, down to the device: a file system of its own on a loop device.
//!
//! Anchors are two ways to keep a log that others use: a file that grows, and a file that was filled with zeros.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use skep_lab::Lab;

use super::row::{Goal, Row, Values};
use super::tools::{Bench, read_part};
use crate::packages;

const DEVICE_BYTES: u64 = 512 << 20;
const GOAL_BYTES: f64 = 4700.0;

#[derive(Deserialize)]
struct Entry {
    entry_bytes: f64,
    device_bytes: f64,
    /// Of the store's last minute, in which nothing happened.
    idle_bytes: f64,
}

#[derive(Deserialize)]
struct Flushed {
    device_bytes: f64,
}

/// B12: device bytes of a lone 512-byte entry beside those of both anchors, and of an idle minute.
pub fn lone_entry(bench: &Bench) -> Result<Vec<Row>> {
    packages::install(&[("mkfs.ext4", "e2fsprogs")])?;
    let lab = Lab::builder().build()?;
    let disk = make_disk(&lab)?;
    let part = |words: &[&str]| -> Result<std::process::Command> {
        let mut command = lab.node(1).command(bench.parts()?);
        command.arg(words[0]).arg(&disk).args(&words[1..]);
        Ok(command)
    };
    let entries = bench.sized("2000", "50");
    let growing: Flushed = read_part(&mut part(&["file", "growing", entries])?)?;
    let zeroed: Flushed = read_part(&mut part(&["file", "zeroed", entries])?)?;
    let entry: Entry = read_part(&mut part(&["entry", entries, bench.sized("60", "1")])?)?;
    let work = format!("device bytes of a lone Raft entry of {:.0} bytes", entry.entry_bytes);
    let row = |anchor: &str, bytes: f64| {
        let values = Values { anchor: bytes, skep: entry.device_bytes, unit: "B" };
        Row::new("B12", work.clone(), anchor.to_owned(), values, Goal::AtMost(GOAL_BYTES))
    };
    let idle = Values { anchor: 0.0, skep: entry.idle_bytes, unit: "B" };
    Ok(vec![
        row("a growing file", growing.device_bytes),
        row("a zero-filled file", zeroed.device_bytes),
        Row::new("B12", "device bytes of an idle minute of one store", "none".to_owned(), idle, Goal::AtMost(0.0)),
    ])
}

/// An ext4 on a loop device, mounted in the node alone; it goes with the lab.
fn make_disk(lab: &Lab) -> Result<PathBuf> {
    let node = lab.node(1);
    let (file, mount) = (node.folder().join("disk.img"), node.folder().join("disk"));
    let image = File::create(&file).with_context(|| format!("cannot create {}", file.display()))?;
    image.set_len(DEVICE_BYTES).context("cannot make room for a disk")?;
    fs::create_dir(&mount).with_context(|| format!("cannot create {}", mount.display()))?;
    let (file, folder) = (file.to_str().context("not UTF-8")?, mount.to_str().context("not UTF-8")?);
    node.run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", file])?.ok()?;
    node.run("mount", &["-o", "loop", file, folder])?.ok()?;
    Ok(mount)
}
