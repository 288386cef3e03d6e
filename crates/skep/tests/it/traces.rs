//! What a node's kernel and folders hold: compared before and after, nothing may be left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use skep_lab::Node;

/// Links, addresses, routes, rules, packet filter, mounts, cgroups, processes and files of a node, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// All but what is in the node's folders.
    pub fn of_kernel(node: &Node) -> Traces {
        let mut lines = BTreeSet::new();
        let commands: [&[&str]; 5] = [
            &["ip", "-o", "address"],
            &["ip", "-o", "route", "show", "table", "all"],
            &["ip", "-6", "-o", "route", "show", "table", "all"],
            &["ip", "rule"],
            &["nft", "list", "ruleset"],
        ];
        for command in commands {
            let said = node.run(command[0], &command[1..]).unwrap().ok().unwrap();
            lines.extend(said.lines().map(|line| format!("{}: {}", command.join(" "), line.trim())));
        }
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", node.holder().pid)).unwrap();
        // Labs of other tests come and go in the machine's own mount namespace, not in this one.
        lines.extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| format!("mount: {place}")));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join(node.cgroup_parent().trim_start_matches('/'));
            walk(&group, &mut |path| {
                if path.is_dir() {
                    lines.insert(format!("cgroup: {}", path.display()));
                }
            });
        }
        for pid in node.processes().unwrap() {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            lines.insert(format!("process: {pid} {}", String::from_utf8_lossy(&words).replace('\0', " ")));
        }
        Traces(lines)
    }

    /// The files (folders only where they are empty) in the node's data and run folders, by their path below the node's.
    pub fn of_folders(node: &Node) -> Traces {
        let mut lines = BTreeSet::new();
        for folder in [node.data_dir(), node.run_dir()] {
            walk(&folder, &mut |path| {
                if !path.is_dir() || path.is_symlink() {
                    let below = path.strip_prefix(node.folder()).unwrap();
                    lines.insert(below.display().to_string());
                }
            });
        }
        Traces(lines)
    }

    /// What is here and was not before.
    pub fn since<'a>(&'a self, before: &'a Traces) -> Vec<&'a str> {
        self.0.difference(&before.0).map(String::as_str).collect()
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn walk(root: &Path, see: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), see);
        }
    }
}
