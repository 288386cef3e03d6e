//! Which program keeps this machine's firewall, told by what it leaves on the disk and in the kernel: nothing is run.

use std::fs;
use std::path::Path;

use skep_api::Firewall;

/// The firewall in force; `root` is `/`, but in tests. One that is installed and switched off is none.
pub fn firewall(root: &Path) -> Option<Firewall> {
    if has_ufw(root) {
        return Some(Firewall::Ufw);
    }
    has_firewalld(root).then_some(Firewall::Firewalld)
}

/// What `ufw enable` and `ufw disable` write. The file outlives the program's removal.
fn has_ufw(root: &Path) -> bool {
    let settings = fs::read_to_string(root.join("etc/ufw/ufw.conf")).unwrap_or_default();
    let enabled = settings.lines().any(|line| {
        let said = line.trim().strip_prefix("ENABLED=");
        said.is_some_and(|said| said.trim_matches(['"', '\'']).eq_ignore_ascii_case("yes"))
    });
    enabled && ["usr/sbin/ufw", "sbin/ufw"].iter().any(|program| root.join(program).exists())
}

/// Under systemd it writes no file that names its process, but has a cgroup while it runs.
fn has_firewalld(root: &Path) -> bool {
    let unit = "system.slice/firewalld.service";
    let groups = ["sys/fs/cgroup", "sys/fs/cgroup/systemd", "sys/fs/cgroup/unified"];
    if groups.iter().any(|group| root.join(group).join(unit).exists()) {
        return true;
    }
    let pid = fs::read_to_string(root.join("run/firewalld.pid")).unwrap_or_default();
    pid.trim().parse::<u32>().is_ok_and(|pid| root.join(format!("proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with these files.
    fn with(files: &[(&str, &str)]) -> Option<Firewall> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        firewall(root.path())
    }

    #[test]
    fn ufw_counts_while_it_is_installed_and_enabled() {
        let conf = |enabled: &str| {
            format!("# /etc/ufw/ufw.conf\n#\n\n# Set to yes to start on boot.\nENABLED={enabled}\n\nLOGLEVEL=low\n")
        };
        let program = ("usr/sbin/ufw", "#!/usr/bin/python3\n");
        assert_eq!(with(&[program, ("etc/ufw/ufw.conf", &conf("yes"))]), Some(Firewall::Ufw));
        assert_eq!(with(&[program, ("etc/ufw/ufw.conf", &conf("no"))]), None);
        assert_eq!(with(&[("etc/ufw/ufw.conf", &conf("yes"))]), None, "it was removed, and not purged");
        assert_eq!(with(&[program]), None);
    }

    #[test]
    fn firewalld_counts_while_it_runs() {
        let procs = ("sys/fs/cgroup/system.slice/firewalld.service/cgroup.procs", "");
        assert_eq!(with(&[procs]), Some(Firewall::Firewalld));
        let pid = ("run/firewalld.pid", "712\n");
        assert_eq!(with(&[pid, ("proc/712/stat", "")]), Some(Firewall::Firewalld));
        assert_eq!(with(&[pid]), None, "it ended");
        assert_eq!(with(&[]), None);
    }
}
