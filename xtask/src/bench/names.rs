//! Questions a second that a container's resolver answers, beside dnsmasq asked the same way.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_lab::Lab;

use super::measure::median;
use super::row::{Goal, Row, Values};
use super::tools::Bench;
use crate::packages;

const COMPOSE: &str = "services:
  web:
    image: 127.0.0.1:5000/library/busybox:1
    command: [sleep, \"100000\"]
    stop_signal: SIGKILL
    deploy: { replicas: 2 }
";
const ANCHOR_PORT: u16 = 5399;

/// Names that are known: a service's virtual address.
pub fn questions(bench: &Bench) -> Result<Vec<Row>> {
    let images = bench.images()?;
    let tools = bench.anchors().join("dns");
    packages::install(&[("dnsperf", "dnsperf")])?;
    packages::unpack_once(&["dnsmasq-base"], &tools.join("cache"), &tools)?;
    let lab = Lab::builder().binary(bench.skep()?).build()?;
    let node = lab.node(1);
    let _registry = node.start_registry(images)?;
    node.skep(&["init"])?.ok()?;
    let file = node.folder().join("compose.yml");
    fs::write(&file, COMPOSE).with_context(|| format!("cannot write {}", file.display()))?;
    node.skep(&["stack", "deploy", "-c", file.to_str().context("the folder is not UTF-8")?, "bench"])?.ok()?;
    let asked = node.folder().join("questions");
    fs::write(&asked, "web A\nbench_web A\n").with_context(|| format!("cannot write {}", asked.display()))?;

    let tasks = node.skep(&["service", "ps", "-q", "--no-trunc", "bench_web"])?.ok()?;
    let task = tasks.lines().next().context("the service has no task")?;
    let seconds = bench.sized(5, 1);
    let netns = format!("--net={}", node.run_dir().join("net/ns").join(task).display());
    let skep = median(bench.runs, || {
        let mut command = node.command("nsenter");
        command.arg(&netns).arg("dnsperf");
        ask(&mut command, "127.0.0.11", 53, seconds, &asked)
    })?;

    let mut server = node.command(tools.join("usr/sbin/dnsmasq"));
    server.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"]);
    server.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]);
    server.arg(format!("--port={ANCHOR_PORT}")).args(["--address=/web/10.0.0.1", "--address=/bench_web/10.0.0.1"]);
    let mut server = server.stderr(Stdio::null()).spawn().context("cannot start dnsmasq")?;
    thread::sleep(Duration::from_millis(500));
    let anchor = median(bench.runs, || ask(&mut node.command("dnsperf"), "127.0.0.1", ANCHOR_PORT, seconds, &asked));
    server.kill().and_then(|()| server.wait()).context("cannot stop dnsmasq")?;
    let values = Values { anchor: anchor?, skep, unit: "/s" };
    let work = "questions for a service's name, from its network";
    Ok(vec![Row::new("DNS", work, "dnsmasq on loopback".to_owned(), values, Goal::AtLeast(10_000.0))])
}

fn ask(command: &mut Command, server: &str, port: u16, seconds: u32, questions: &Path) -> Result<f64> {
    command.args(["-s", server, "-p", &port.to_string(), "-l", &seconds.to_string(), "-c", "4", "-T", "1"]);
    let output = command.arg("-d").arg(questions).output().context("cannot run dnsperf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "dnsperf failed: {}", String::from_utf8_lossy(&output.stderr));
    let lost = text.lines().find(|line| line.contains("Queries lost:")).context("dnsperf's summary is cut off")?;
    let lost: u64 = lost.split_whitespace().nth(2).and_then(|count| count.parse().ok()).unwrap_or(u64::MAX);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Queries per second:"));
    let rate: f64 = rate.context("dnsperf's summary has no rate")?.trim().parse()?;
    ensure!(lost < 100, "{lost} questions were lost");
    Ok(rate)
}
