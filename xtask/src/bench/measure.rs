//! Reading what processes cost, and medians.

use std::fs;

use anyhow::{Context, Result};

/// A process as it counts in a row.
#[derive(Clone, Debug)]
pub struct Cost {
    pub pid: i32,
    /// The command name, 15 bytes at most (proc(5), `comm`).
    pub name: String,
    pub rss_bytes: f64,
    /// Proportional set size: pages shared with others count in parts.
    pub pss_bytes: f64,
}

/// What each of `pids` costs now; those that ended meanwhile are left out.
pub fn costs(pids: &[i32]) -> Vec<Cost> {
    pids.iter().filter_map(|pid| cost(*pid)).collect()
}

fn cost(pid: i32) -> Option<Cost> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Cost { pid, name, rss_bytes: kilobytes(&rollup, "Rss:")?, pss_bytes: kilobytes(&rollup, "Pss:")? })
}

fn kilobytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_ascii_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

pub fn total(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    costs.iter().map(of).sum()
}

/// Runs `work` so often and answers the median of its values.
pub fn median(runs: u32, mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut values = (0..runs).map(|_| work()).collect::<Result<Vec<f64>>>()?;
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle).context("at least one run")?;
    Ok(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_number_of_runs_has_its_median_in_the_middle() {
        let check = |values: &[f64]| {
            let mut left = values.iter();
            median(u32::try_from(values.len()).unwrap(), || Ok(*left.next().unwrap())).unwrap()
        };
        assert!((check(&[9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((check(&[9.0, 1.0, 2.0, 4.0]) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_cost_of_a_living_process_is_known() {
        let own = costs(&[i32::try_from(std::process::id()).unwrap()]);
        assert!(own[0].rss_bytes >= own[0].pss_bytes && own[0].pss_bytes > 0.0);
    }
}
