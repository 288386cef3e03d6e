//! Linux capabilities: names to bits, Docker's default set, and `cap_add` / `cap_drop` arithmetic.
//!
//! A set is a plain `u64` mask (bit = capability number), because that is what `capset(2)`, the bounding-set loop and
//! the seccomp compiler want. This file decides which capabilities a process has; the core applies them.

use thiserror::Error;

/// Capability names in kernel order: the index is the bit (`include/uapi/linux/capability.h`).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub const DAC_READ_SEARCH: u64 = 1 << 2;
pub const SYS_MODULE: u64 = 1 << 16;
pub const SYS_RAWIO: u64 = 1 << 17;
pub const SYS_CHROOT: u64 = 1 << 18;
pub const SYS_PTRACE: u64 = 1 << 19;
pub const SYS_PACCT: u64 = 1 << 20;
pub const SYS_ADMIN: u64 = 1 << 21;
pub const SYS_BOOT: u64 = 1 << 22;
pub const SYS_NICE: u64 = 1 << 23;
pub const SYS_TIME: u64 = 1 << 25;
pub const SYS_TTY_CONFIG: u64 = 1 << 26;
pub const SYSLOG: u64 = 1 << 34;
pub const PERFMON: u64 = 1 << 38;
pub const BPF: u64 = 1 << 39;

/// Every capability this build knows a name for.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The 14 capabilities of a Docker container without `cap_add` (moby `oci/caps/defaults.go`).
pub const DOCKER_DEFAULT: u64 = 1            // CHOWN
    | 1 << 1                                 // DAC_OVERRIDE
    | 1 << 3                                 // FOWNER
    | 1 << 4                                 // FSETID
    | 1 << 5                                 // KILL
    | 1 << 6                                 // SETGID
    | 1 << 7                                 // SETUID
    | 1 << 8                                 // SETPCAP
    | 1 << 10                                // NET_BIND_SERVICE
    | 1 << 13                                // NET_RAW
    | SYS_CHROOT
    | 1 << 27                                // MKNOD
    | 1 << 29                                // AUDIT_WRITE
    | 1 << 31; // SETFCAP

#[derive(Debug, Error, PartialEq, Eq)]
pub enum CapError {
    #[error("unknown capability `{name}`{hint}")]
    Unknown { name: String, hint: String },
}

/// The mask of one capability, written with or without `CAP_`, in any case. `ALL` is not a name here.
pub fn parse(name: &str) -> Result<u64, CapError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match NAMES.iter().position(|known| *known == bare) {
        Some(bit) => Ok(1 << bit),
        None => Err(CapError::Unknown { name: name.to_owned(), hint: suggestion(bare) }),
    }
}

/// `CAP_…` names of a mask in bit order, as `inspect` prints them. Bits without a name are left out.
pub fn names(mask: u64) -> Vec<String> {
    NAMES.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// What a container may have: Docker's `TweakCapabilities`.
///
/// Privileged: everything, add and drop do not count. `drop: [ALL]` starts from nothing, `add: [ALL]` from everything;
/// named drops are then taken from `ALL` or from the defaults, named adds are put on top. A name in both lists ends
/// added after `drop: [ALL]` and without, exactly as in Docker, where adding comes last.
pub fn effective(add: &[String], drop: &[String], privileged: bool) -> Result<u64, CapError> {
    let (add_all, added) = parse_list(add)?;
    let (drop_all, dropped) = parse_list(drop)?;
    if privileged {
        return Ok(ALL);
    }
    let base = match (add_all, drop_all) {
        (true, _) => return Ok(ALL & !dropped),
        (false, true) => 0,
        (false, false) => DOCKER_DEFAULT & !dropped,
    };
    Ok(base | added)
}

fn parse_list(list: &[String]) -> Result<(bool, u64), CapError> {
    let mut all = false;
    let mut mask = 0;
    for name in list {
        match name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            true => all = true,
            false => mask |= parse(name)?,
        }
    }
    Ok((all, mask))
}

fn suggestion(bare: &str) -> String {
    let nearest = NAMES.iter().map(|known| (distance(bare, known), *known)).min();
    match nearest {
        Some((edits, known)) if edits <= 3 && edits * 2 < known.len() => format!("; did you mean `{known}`?"),
        _ => "; names are those of capabilities(7), such as `NET_ADMIN`, or `ALL`".to_owned(),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: &[&str]) {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mask = effective(&owned(add), &owned(drop), false).unwrap();
        let mut expected: Vec<_> = expected.iter().map(|name| format!("CAP_{name}")).collect();
        let mut got = names(mask);
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "add {add:?} drop {drop:?}");
    }

    #[test]
    fn the_default_is_dockers_fourteen() {
        let fourteen = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        check(&[], &[], &fourteen);
    }

    #[test]
    fn all_goes_both_ways_and_adding_comes_last() {
        check(&["NET_ADMIN"], &["ALL"], &["NET_ADMIN"]);
        check(&["cap_chown", "CAP_KILL"], &["all"], &["CHOWN", "KILL"]);
        check(&["CHOWN"], &["CHOWN", "ALL"], &["CHOWN"]);
        let everything_but_chown: Vec<_> = NAMES.iter().copied().filter(|name| *name != "CHOWN").collect();
        check(&["ALL"], &["CHOWN"], &everything_but_chown);
        check(&["ALL"], &["ALL"], &NAMES);
        assert_eq!(effective(&[], &["CHOWN".to_owned()], true), Ok(ALL));
    }

    #[test]
    fn named_masks_are_the_named_bits() {
        let named = [
            ("DAC_READ_SEARCH", DAC_READ_SEARCH),
            ("SYS_MODULE", SYS_MODULE),
            ("SYS_RAWIO", SYS_RAWIO),
            ("SYS_CHROOT", SYS_CHROOT),
            ("SYS_PTRACE", SYS_PTRACE),
            ("SYS_PACCT", SYS_PACCT),
            ("SYS_ADMIN", SYS_ADMIN),
            ("SYS_BOOT", SYS_BOOT),
            ("SYS_NICE", SYS_NICE),
            ("SYS_TIME", SYS_TIME),
            ("SYS_TTY_CONFIG", SYS_TTY_CONFIG),
            ("SYSLOG", SYSLOG),
            ("PERFMON", PERFMON),
            ("BPF", BPF),
        ];
        for (name, mask) in named {
            assert_eq!(parse(name), Ok(mask), "{name}");
        }
    }

    #[test]
    fn a_typo_gets_a_suggestion() {
        let said = |name: &str| parse(name).unwrap_err().to_string();
        assert_eq!(said("NET_ADMN"), "unknown capability `NET_ADMN`; did you mean `NET_ADMIN`?");
        assert_eq!(said("CAP_SYS_PTRACES"), "unknown capability `CAP_SYS_PTRACES`; did you mean `SYS_PTRACE`?");
        assert!(said("root").contains("capabilities(7)"));
    }
}
