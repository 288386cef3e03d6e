//! B16: one endpoint comes or goes among many, in three sizes.

use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::row::{Goal, Row, Values};
use super::tools::{Bench, read_part};

const SIZES: [u32; 3] = [100, 1_000, 10_000];
const QUICK_SIZES: [u32; 3] = [50, 100, 200];
/// A chain for each endpoint, as kube-proxy has them, changed with 10,000 loaded: median on the reference machine.
const CHAINS_MS: f64 = 45.0;

#[derive(Deserialize)]
struct Changed {
    change_ms: f64,
}

pub fn change(bench: &Bench) -> Result<Vec<Row>> {
    bench.sized(SIZES, QUICK_SIZES).iter().map(|size| row(bench, *size)).collect()
}

fn row(bench: &Bench, size: u32) -> Result<Row> {
    let folder = bench.anchors().join("endpoint");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(bench.parts()?).arg("endpoint").arg(&folder).arg(size.to_string());
    let changed: Changed = read_part(&mut command)?;
    let values = Values { anchor: CHAINS_MS, skep: changed.change_ms, unit: "ms" };
    let work = format!("one endpoint among {size}, plan and kernel");
    Ok(Row::new("B16", work, "chains per endpoint, published".to_owned(), values, Goal::AtMost(1.0)))
}
