//! What is wrong on the machine itself, each with what mends it: facts of the kernel and the disk that a running node
//! needs, and that something else may have taken away since its daemon started.

use std::fs;
use std::path::Path;

use skep_api::Complaint;
use skep_overlay::plan::INGRESS;

/// Of the data folder's disk: less room than either pair is worth a word.
const FREE_MIN: [(u64, u64); 2] = [(1 << 30, 20), (10 << 30, 5)];

/// Looks at this machine, or at what of it the calling thread's network namespace shows.
pub fn host_complaints(data_dir: &Path) -> Vec<Complaint> {
    let root = Path::new("/");
    [forwarding(root), tun(root), reverse_path(root), disk(data_dir)].into_iter().flatten().collect()
}

fn complaint(what: impl Into<String>, mend: impl Into<String>) -> Complaint {
    Complaint { what: what.into(), mend: mend.into() }
}

/// The daemon switches it on when it starts.
fn forwarding(root: &Path) -> Option<Complaint> {
    let key = "net.ipv4.ip_forward";
    let is_off = read(root, "proc/sys/net/ipv4/ip_forward").is_some_and(|value| value == "0");
    is_off.then(|| {
        complaint(
            format!("IP forwarding is off ({key} = 0): containers reach nobody, and published ports nothing"),
            format!("sysctl -w {key}=1   # and look for who turned it off in /etc/sysctl.d"),
        )
    })
}

fn tun(root: &Path) -> Option<Complaint> {
    (!root.join("dev/net/tun").exists() && !root.join("sys/module/wireguard").exists()).then(|| {
        complaint("the kernel has neither a tun device nor WireGuard: no tunnel to other nodes", "modprobe tun")
    })
}

/// The higher of an interface's own setting and that of all is what counts: 2, which is loose, wins over 1.
fn reverse_path(root: &Path) -> Option<Complaint> {
    let setting = |name: &str| read(root, &format!("proc/sys/net/ipv4/conf/{name}/rp_filter"))?.parse::<u8>().ok();
    let is_strict = setting(INGRESS)?.max(setting("all").unwrap_or_default()) == 1;
    is_strict.then(|| {
        complaint(
            format!("reverse path filtering is strict on {INGRESS}: connections that other nodes pass on are dropped"),
            format!("sysctl -w net.ipv4.conf.{INGRESS}.rp_filter=2"),
        )
    })
}

fn disk(data_dir: &Path) -> Option<Complaint> {
    let disk = rustix::fs::statvfs(data_dir).ok()?;
    let (free, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    too_full(free, size).then(|| {
        complaint(
            format!(
                "the disk of {} is nearly full: {} MiB of {} MiB are free",
                data_dir.display(),
                free >> 20,
                size >> 20
            ),
            "skep image ls, and skep image rm what is not needed; or give it a larger disk",
        )
    })
}

/// A small disk is not full for having few bytes, nor a large one for a small share.
fn too_full(free: u64, size: u64) -> bool {
    FREE_MIN.iter().any(|(bytes, percent)| free < *bytes && free < size / 100 * percent)
}

fn read(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_away_is_named_with_what_brings_it_back() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/net/ipv4/ip_forward", "1\n");
        write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n");
        write("proc/sys/net/ipv4/conf/sk-ingress/rp_filter", "2\n");
        write("dev/net/tun", "");
        let found = || {
            let root = root.path();
            [forwarding(root), tun(root), reverse_path(root)].into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(found(), []);
        write("proc/sys/net/ipv4/ip_forward", "0\n");
        write("proc/sys/net/ipv4/conf/sk-ingress/rp_filter", "0\n");
        fs::remove_file(root.path().join("dev/net/tun")).unwrap();
        let mends: Vec<String> = found().into_iter().map(|complaint| complaint.mend).collect();
        assert!(mends[0].starts_with("sysctl -w net.ipv4.ip_forward=1"), "{mends:?}");
        assert_eq!(mends[1..], ["modprobe tun", "sysctl -w net.ipv4.conf.sk-ingress.rp_filter=2"]);
    }

    #[test]
    fn a_disk_is_nearly_full_by_its_size() {
        const GIB: u64 = 1 << 30;
        assert!(too_full(GIB / 2, 16 * GIB) && too_full(8 * GIB, 1000 * GIB));
        assert!(!too_full(GIB, 2 * GIB) && !too_full(20 * GIB, 1000 * GIB) && !too_full(38 * GIB, 252 * GIB));
        assert!(!too_full(GIB / 2, GIB));
    }
}
