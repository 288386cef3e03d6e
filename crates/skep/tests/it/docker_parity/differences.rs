//! The differences that are known and wanted: the table of `docs/docker-differences.md`.

use std::collections::{BTreeMap, BTreeSet};

/// `section/key` and what was found.
pub type Facts = BTreeMap<String, String>;

const PAGE: &str = include_str!("../../../../../docs/docker-differences.md");
/// In a cell: there is no such thing here.
const ABSENT: &str = "–";
/// In a cell: whatever it is.
const ANY: &str = "…";

/// A row of the table.
struct Difference {
    /// What it is about; a final `*` stands for any end.
    key: &'static str,
    docker: &'static str,
    skep: &'static str,
}

/// Every difference that the page does not list, in words. A row whose key begins with `CASE: ` is for that case only.
pub fn check(case: &str, docker: &Facts, skep: &Facts) -> Vec<String> {
    let known = table();
    assert!(known.iter().all(|row| !row.key.is_empty()));
    let keys: BTreeSet<&String> = docker.keys().chain(skep.keys()).collect();
    println!("{case}: {} facts compared", keys.len());
    let mut unknown = Vec::new();
    let mut listed = 0;
    for key in keys {
        let value = |facts: &Facts| facts.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned());
        let (docker, skep) = (value(docker), value(skep));
        if docker == skep {
            continue;
        }
        if known.iter().any(|row| row.tells(case, key, &docker, &skep)) {
            listed += 1;
        } else {
            unknown.push(format!("{case}: {key}\n    docker: {docker}\n    skep:   {skep}"));
        }
    }
    println!("{case}: {listed} differences, each listed in docs/docker-differences.md");
    unknown
}

impl Difference {
    fn tells(&self, case: &str, key: &str, docker: &str, skep: &str) -> bool {
        let (of_case, own) = self.key.split_once(": ").unwrap_or((case, self.key));
        let about = of_case == case
            && match own.strip_suffix('*') {
                Some(start) => key.starts_with(start),
                None => key == own,
            };
        about && fits(self.docker, docker) && fits(self.skep, skep)
    }
}

fn fits(cell: &str, value: &str) -> bool {
    cell == ANY || cell == value
}

/// Rows look like ``| `key` | `docker's` | `skep's` | why |``.
fn table() -> Vec<Difference> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [key, docker, skep, why] = cells[..] else { panic!("four cells: {row}") };
        assert!(!why.is_empty(), "a reason: {row}");
        Difference { key, docker, skep }
    })
    .collect()
}
