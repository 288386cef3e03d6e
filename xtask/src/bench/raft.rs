//! B11: replicated writes, beside etcd on the same machine: three members each, on loopback, and every member's disk
//! synchronized before a write counts.
//!
//! skep's managers speak mutual TLS among themselves and with the clients; etcd's members speak in the clear.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde::Deserialize;
use skep_lab::Lab;

use super::row::{Goal, Row, Values};
use super::tools::{Bench, read_part};
use crate::packages;

const MEMBERS: u16 = 3;
/// Clients, and how many times etcd's writes a second skep is to reach with as many.
const CLIENTS: [(u32, f64); 3] = [(1, 1.5), (16, 3.0), (128, 5.0)];
const ETCD_CLIENT_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;

#[derive(Clone, Copy, Deserialize)]
struct Wrote {
    per_second: f64,
    p50_ms: f64,
}

pub fn writes(bench: &Bench) -> Result<Vec<Row>> {
    let seconds = bench.sized("5", "1");
    let (mut etcd, mut skep) = (Vec::new(), Vec::new());
    // In turns, so that a busy minute of the machine is both sides'.
    for _ in 0..bench.runs {
        etcd.push(measure_etcd(bench, seconds)?);
        skep.push(measure_skep(bench, seconds)?);
    }
    let rows = CLIENTS.iter().enumerate().flat_map(|(at, (clients, times))| {
        let of = |runs: &[Vec<Wrote>], figure: fn(&Wrote) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(|run| figure(&run[at])).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let speed = |wrote: &Wrote| wrote.per_second;
        let wait = |wrote: &Wrote| wrote.p50_ms;
        let work = format!("Raft writes of 256 bytes, {clients} clients");
        let (speeds, waits) = ((of(&etcd, speed), of(&skep, speed)), (of(&etcd, wait), of(&skep, wait)));
        let per_second = Values { anchor: speeds.0, skep: speeds.1, unit: "/s" };
        let p50 = Values { anchor: waits.0, skep: waits.1, unit: "ms" };
        let anchor = "etcd 3.4, 3 members, client at the leader";
        [
            Row::new("B11", work.clone(), anchor.to_owned(), per_second, Goal::AtLeast(times * speeds.0)),
            Row::new("B11", format!("{work}, median wait"), anchor.to_owned(), p50, Goal::AtMost(waits.0 / times)),
        ]
    });
    Ok(rows.collect())
}

fn measure_etcd(bench: &Bench, seconds: &str) -> Result<Vec<Wrote>> {
    let root = bench.anchors().join("etcd");
    packages::unpack_once(&["etcd-server"], &bench.anchors().join("packages"), &root)?;
    let lab = Lab::builder().build()?;
    let node = lab.node(1);
    let port = |base: u16, member: u16| base + 10 * member;
    let peer = |member: u16| format!("http://127.0.0.1:{}", port(ETCD_PEER_PORT, member));
    let client = |member: u16| format!("127.0.0.1:{}", port(ETCD_CLIENT_PORT, member));
    let all: Vec<String> = (0..MEMBERS).map(|member| format!("m{member}={}", peer(member))).collect();
    for member in 0..MEMBERS {
        let mut command = node.command(root.join("usr/bin/etcd"));
        command.arg("--name").arg(format!("m{member}"));
        command.arg("--data-dir").arg(node.folder().join(format!("etcd{member}")));
        for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.arg(option).arg(peer(member));
        }
        for option in ["--listen-client-urls", "--advertise-client-urls"] {
            command.arg(option).arg(format!("http://{}", client(member)));
        }
        command.arg("--initial-cluster").arg(all.join(",")).arg("--log-level").arg("error");
        // They end with the lab.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start etcd")?;
    }
    let endpoints: Vec<String> = (0..MEMBERS).map(client).collect();
    CLIENTS
        .iter()
        .map(|(clients, _)| {
            let mut command = node.command(bench.parts()?);
            command.args(["writes", "etcd", &endpoints.join(","), &clients.to_string(), seconds]);
            read_part(&mut command)
        })
        .collect()
}

fn measure_skep(bench: &Bench, seconds: &str) -> Result<Vec<Wrote>> {
    let lab = Lab::builder().build()?;
    let node = lab.node(1);
    CLIENTS
        .iter()
        .map(|(clients, _)| {
            let mut command = node.command(bench.parts()?);
            command.arg("writes").arg("skep").arg(node.folder().join(format!("raft{clients}")));
            command.args([&clients.to_string(), seconds]);
            read_part(&mut command)
        })
        .collect()
}
