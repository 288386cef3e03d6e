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

/// Panics with every difference that the page does not list.
pub fn check(docker: &Facts, skep: &Facts) {
    let known = table();
    assert!(known.iter().all(|row| !row.key.is_empty()));
    let keys: BTreeSet<&String> = docker.keys().chain(skep.keys()).collect();
    println!("{} facts compared", keys.len());
    let mut unknown = Vec::new();
    let mut listed = 0;
    for key in keys {
        let value = |facts: &Facts| facts.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned());
        let (docker, skep) = (value(docker), value(skep));
        if docker == skep {
            continue;
        }
        if known.iter().any(|row| row.tells(key, &docker, &skep)) {
            listed += 1;
        } else {
            unknown.push(format!("{key}\n    docker: {docker}\n    skep:   {skep}"));
        }
    }
    println!("{listed} differences, each listed in docs/docker-differences.md");
    assert!(unknown.is_empty(), "{} differences that the page does not list:\n{}", unknown.len(), unknown.join("\n"));
}

impl Difference {
    fn tells(&self, key: &str, docker: &str, skep: &str) -> bool {
        let about = match self.key.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == self.key,
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
