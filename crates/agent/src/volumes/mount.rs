//! Mounting what a volume's options name, and saying in words why it cannot be.
//!
//! The call is the one that Docker's driver `local` makes: no helper program (mount.nfs, mount.cifs) takes part, so options
//! that such a program would have resolved are resolved here (`addr`), and the others reach the kernel as they are.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountFlags, UnmountFlags, fsconfig_set_flag, fsconfig_set_string, fsopen, mount, mount_remount,
    unmount,
};
use skep_model::VolumeSource;

/// A mount that is not there, with the call that was made.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {reason}")]
pub struct MountError {
    /// As mount(8) is called; passwords left out.
    call: String,
    reason: String,
}

/// Flags by their words; `false` takes one away.
const FLAGS: [(&str, MountFlags, bool); 20] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
    ("bind", MountFlags::BIND, true),
];
/// What fstab has for mount(8) alone.
const NO_EFFECT: [&str; 6] = ["defaults", "auto", "noauto", "nofail", "_netdev", "silent"];
const REFUSED: [&str; 11] = [
    "remount",
    "move",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "loop",
];

/// The options as the kernel takes them.
struct Call<'s> {
    source: VolumeSource<'s>,
    flags: MountFlags,
    data: Vec<String>,
}

/// Mounts `source` on the folder `target`; may block for as long as a server does not answer.
pub fn mount_source(source: VolumeSource<'_>, target: &Path) -> Result<(), MountError> {
    let failed = |reason: String| MountError { call: shown(source), reason };
    let call = Call::plan(source).map_err(failed)?;
    let data = CString::new(call.data.join(",")).map_err(|_| failed("an option has a zero byte in it".to_owned()))?;
    if call.flags.contains(MountFlags::BIND) {
        mount(source.device, target, "none", call.flags & (MountFlags::BIND | MountFlags::REC), None)
            .map_err(|errno| failed(call.words(errno)))?;
        // The flags of a bind hold only once it is mounted again.
        let others = call.flags & !(MountFlags::BIND | MountFlags::REC);
        if !others.is_empty()
            && let Err(errno) = mount_remount(target, MountFlags::BIND | others, "")
        {
            unmount_all(target).map_err(|error| failed(error.to_string()))?;
            return Err(failed(call.words(errno)));
        }
        return Ok(());
    }
    mount(source.device, target, source.kind, call.flags, &*data).map_err(|errno| failed(call.words(errno)))
}

/// What is still open keeps its files.
pub fn unmount_all(target: &Path) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::DETACH)?)
}

/// Whether something is mounted right there.
pub fn is_mounted(path: &Path) -> io::Result<bool> {
    // A server that is gone must not be asked.
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, path, flags, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl<'s> Call<'s> {
    fn plan(source: VolumeSource<'s>) -> Result<Self, String> {
        let mut call = Self { source, flags: MountFlags::empty(), data: Vec::new() };
        for word in source.words() {
            let flag = FLAGS.iter().find(|(known, ..)| *known == word);
            match flag {
                Some((_, flag, true)) => call.flags |= *flag,
                Some((_, flag, false)) => call.flags &= !*flag,
                None if word == "rbind" => call.flags |= MountFlags::BIND | MountFlags::REC,
                None if NO_EFFECT.contains(&word) => {}
                None if REFUSED.contains(&word) => {
                    return Err(format!("the option `{word}` is not supported for a volume"));
                }
                None => call.data.push(word.to_owned()),
            }
        }
        if source.kind.starts_with("nfs") || source.kind == "cifs" || source.kind == "smb3" {
            call.resolve_address()?;
        }
        Ok(call)
    }

    /// The kernel knows no names.
    fn resolve_address(&mut self) -> Result<(), String> {
        let share = || self.source.device.trim_start_matches(['/', '\\']).split(['/', '\\']).next();
        let name = self.source.option("addr").or_else(|| share().filter(|_| !self.source.kind.starts_with("nfs")));
        let Some(name) = name.filter(|name| !name.is_empty() && name.parse::<IpAddr>().is_err()) else { return Ok(()) };
        let found =
            (name, 0).to_socket_addrs().map_err(|error| format!("the name `{name}` was not resolved: {error}"))?;
        // As Docker: IPv4 where there is one.
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        let address = addresses.first().ok_or_else(|| format!("the name `{name}` has no address"))?;
        self.data.retain(|word| !word.starts_with("addr="));
        self.data.push(format!("addr={address}"));
        Ok(())
    }

    /// What the kernel said, and what that most often means.
    fn words(&self, errno: Errno) -> String {
        let kind = self.source.kind;
        let said = io::Error::from(errno);
        let hint = match errno {
            Errno::NODEV => format!(
                "this kernel has no file system `{kind}`: load its module (`modprobe {kind}`), or install the package that \
                 has it"
            ),
            Errno::NOENT | Errno::NOTDIR => format!("`{}` is not there", self.source.device),
            Errno::NOTBLK => {
                format!("`{}` is no block device; a file must be attached first (losetup)", self.source.device)
            }
            Errno::INVAL => match self.kernel_log() {
                Some(log) => log,
                None => "the kernel does not take these options; its log (`dmesg`) may say which".to_owned(),
            },
            Errno::CONNREFUSED | Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => {
                "the server does not answer on this node's network".to_owned()
            }
            Errno::ACCESS => "the server, or a mode of the file system, does not allow it".to_owned(),
            _ => return said.to_string(),
        };
        format!("{said}: {hint}")
    }

    /// What this file system says of each option; nothing is mounted, and no server is asked.
    fn kernel_log(&self) -> Option<String> {
        let context = fsopen(self.source.kind, FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
        let refused = self.data.iter().filter(|word| {
            let given = match word.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value),
                None => fsconfig_set_flag(&context, word.as_str()),
            };
            given.is_err()
        });
        let refused: Vec<&str> = refused.map(|word| word.split('=').next().unwrap_or_default()).collect();
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(read) = rustix::io::read(&context, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..read]);
            said.push(line.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        match (said.is_empty(), refused.is_empty()) {
            (false, _) => Some(said.join("; ")),
            (true, false) => Some(format!("the file system does not take {}", refused.join(", "))),
            (true, true) => None,
        }
    }
}

/// As one would type it.
fn shown(source: VolumeSource<'_>) -> String {
    let words = without_passwords(source.options);
    let options = if words.is_empty() { String::new() } else { format!(" -o {words}") };
    format!("mount -t {}{options} {}", source.kind, source.device)
}

/// The words of the option `o`, for a message.
pub fn without_passwords(words: &str) -> String {
    let shown = words.split(',').map(|word| match word.split_once('=') {
        Some((key, _)) if matches!(key.trim(), "password" | "password2" | "pass") => format!("{key}=…"),
        _ => word.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}
