//! B15 and B17: requests to a published port, by a foreign load generator (Debian's `wrk`).

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use skep_lab::{Lab, Node, Outcome, Registry};

use super::measure::median;
use super::row::{Goal, Row, Values};
use super::tools::Bench;
use crate::packages;

const PORT: u16 = 8080;
/// What a deploy that was rolled back ends with.
const ROLLED_BACK: i32 = 3;
/// Each request on a connection of its own: what a change of endpoints could break.
const ONE_EACH: &str = "Connection: close";

/// nginx that answers from memory, and counts as running once it does.
const WEB: &str = "configs:
  web: { content: \"server { listen 80; access_log off; location / { return 200 ok; } }\" }
services:
  web:
    image: 127.0.0.1:5000/library/nginx:1
    configs: [{ source: web, target: /etc/nginx/conf.d/default.conf }]
    ports: [\"8080:80\"]
    environment: { VERSION: \"@VERSION\" }
    healthcheck: { test: [@CHECK], interval: 30s, start_period: 60s, start_interval: 100ms }
    deploy:
      replicas: @REPLICAS
      update_config: { order: @ORDER, monitor: 100ms, failure_action: rollback }
      rollback_config: { order: @ORDER, monitor: 100ms }
";

struct Site {
    lab: Lab,
    _registry: Registry,
}

impl Site {
    fn start(bench: &Bench) -> Result<Site> {
        packages::install(&[("wrk", "wrk")])?;
        let (skep, images) = (bench.skep()?, bench.images()?);
        let lab = Lab::builder().binary(skep).build()?;
        let registry = lab.node(1).start_registry(images)?;
        let site = Site { lab, _registry: registry };
        site.node().skep(&["init"])?.ok()?;
        Ok(site)
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }

    fn deploy(&self, replicas: u32, order: &str, version: u32) -> Result<()> {
        self.deploy_checked("CMD, nginx, -t", replicas, order, version)?.ok()?;
        Ok(())
    }

    /// An update whose tasks end before they are healthy, until it has been rolled back.
    fn fail(&self, replicas: u32, order: &str, version: u32) -> Result<()> {
        let outcome = self.deploy_checked("CMD-SHELL, \"nginx -s stop; exit 1\"", replicas, order, version)?;
        ensure!(outcome.code == ROLLED_BACK, "the failing update was not rolled back: {outcome}");
        Ok(())
    }

    fn deploy_checked(&self, check: &str, replicas: u32, order: &str, version: u32) -> Result<Outcome> {
        let file = self.node().folder().join("compose.yml");
        let text = WEB.replace("@VERSION", &version.to_string()).replace("@REPLICAS", &replicas.to_string());
        let text = text.replace("@ORDER", order).replace("@CHECK", check);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.to_str().context("the lab's folder is not UTF-8")?;
        self.node().skep(&["stack", "deploy", "-c", file, "bench"])
    }

    /// The address of the first container on the stack's network.
    fn container(&self) -> Result<String> {
        let tasks = self.node().skep(&["service", "ps", "-q", "--no-trunc", "bench_web"])?.ok()?;
        let task = tasks.lines().next().context("the service has no task")?;
        let hosts = self.node().skep(&["exec", task, "cat", "/etc/hosts"])?.ok()?;
        let mut addresses = hosts.lines().filter_map(|line| line.split_whitespace().next());
        let own = addresses.rfind(|address| !address.starts_with("127.") && !address.contains(':'));
        Ok(own.context("the container knows no address of its own")?.to_owned())
    }

    /// From within the node: both ways then cross the same links.
    fn load(&self, url: &str, seconds: u32) -> Result<Load> {
        let mut command = self.node().command("wrk");
        command.args(["-t", "1", "-c", "8", "-d", &format!("{seconds}s"), "-H", ONE_EACH, url]);
        Load::start(command)
    }
}

/// wrk, running.
struct Load(Child);

/// What wrk saw.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    requests: u64,
    failed: u64,
    per_second: f64,
}

impl Load {
    fn start(mut command: Command) -> Result<Load> {
        Ok(Load(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().context("cannot start wrk")?))
    }

    fn end(self) -> Result<Seen> {
        let output = self.0.wait_with_output().context("wrk was lost")?;
        ensure!(output.status.success(), "wrk failed: {}", output.status);
        read(&String::from_utf8_lossy(&output.stdout))
    }
}

/// wrk's summary; it names errors only where there are some.
fn read(text: &str) -> Result<Seen> {
    let Some(requests) = text.lines().find_map(|line| line.trim().split_once(" requests in ")) else {
        bail!("wrk's summary has no requests: {text}");
    };
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let errors = after("Socket errors:").unwrap_or_default();
    let failed = errors.split(',').filter_map(|part| part.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
    let refused = after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0);
    let per_second = after("Requests/sec:").and_then(|rate| rate.parse().ok()).context("wrk's summary has no rate")?;
    Ok(Seen { requests: requests.0.trim().parse()?, failed: failed + refused, per_second })
}

/// B15: what the way through a published port costs.
pub fn published(bench: &Bench) -> Result<Vec<Row>> {
    let site = Site::start(bench)?;
    site.deploy(1, "stop-first", 1)?;
    let seconds = bench.sized(5, 1);
    let rate = |url: &str| median(bench.runs, || Ok(site.load(url, seconds)?.end()?.per_second));
    let direct = rate(&format!("http://{}/", site.container()?))?;
    let published = rate(&format!("http://{}:{PORT}/", site.node().address()))?;
    let values = Values { anchor: direct, skep: published, unit: "/s" };
    let work = "requests to a published port, a connection each";
    Ok(vec![Row::new("B15", work, "the container's own port".to_owned(), values, Goal::AtLeast(0.9 * direct))])
}

/// B17: requests that fail while every task of a service is replaced, or an update fails and is rolled back. Swarm's routing mesh needs IPVS, so it cannot run
/// beside it wherever the kernel has none.
pub fn update_under_load(bench: &Bench) -> Result<Vec<Row>> {
    let site = Site::start(bench)?;
    let replicas = bench.sized(4, 2);
    site.deploy(replicas, "start-first", 0)?;
    let url = format!("http://{}:{PORT}/", site.node().address());
    let mut rows = Vec::new();
    type Deploy = fn(&Site, u32, &str, u32) -> Result<()>;
    let updates: [(Deploy, &str, &str); 4] = [
        (Site::deploy, "replaced", "start-first"),
        (Site::deploy, "replaced", "stop-first"),
        (Site::fail, "and an update that fails", "start-first"),
        (Site::fail, "and an update that fails", "stop-first"),
    ];
    for (version, (deploy, what, order)) in (1..).zip(updates) {
        let load = site.load(&url, bench.sized(30, 8))?;
        thread::sleep(Duration::from_secs(1));
        deploy(&site, replicas, order, version)?;
        let seen = load.end()?;
        ensure!(seen.requests > 0, "no request was answered");
        let values = Values { anchor: f64::NAN, skep: seen.failed as f64, unit: "" };
        let work = format!("failed of {} requests, {replicas} {what}, {order}", seen.requests);
        rows.push(Row::new("B17", work, "Docker Swarm drops requests".to_owned(), values, Goal::AtMost(0.0)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_with_errors_and_one_without_are_read() {
        let clean = "  1234 requests in 5.00s, 1.2MB read\nRequests/sec:    246.80\nTransfer/sec: 1MB\n";
        assert_eq!(read(clean).unwrap(), Seen { requests: 1234, failed: 0, per_second: 246.8 });
        let broken = "  10 requests in 1.00s, 1KB read\n  Socket errors: connect 1, read 2, write 0, timeout 3\n  \
                      Non-2xx or 3xx responses: 4\nRequests/sec:     10.00\n";
        assert_eq!(read(broken).unwrap(), Seen { requests: 10, failed: 10, per_second: 10.0 });
        assert!(read("unable to connect").is_err());
    }
}
