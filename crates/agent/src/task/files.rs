//! Files that a container gets from its task: hosts, resolv.conf, secrets and configs.
//!
//! Secrets and configs lie in a tmpfs of the node, one folder a task, readable by root alone until the
//! container mounts them; they are gone with the task, and with the power.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use skep_model::{ContainerSpec, FileTarget, NetworkAddress};

/// Where relative secret targets appear in a container.
const SECRETS_DIR: &str = "/run/secrets";

/// What a task was given.
#[derive(Debug, Default)]
pub struct Delivered {
    /// What is to be mounted where.
    pub mounts: Vec<(PathBuf, String)>,
    /// Whether a file is new or has another content than before.
    pub changed: bool,
}

/// Bytes for one target.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    pub target: &'a FileTarget,
    pub data: Cow<'a, [u8]>,
}

/// The text of /etc/hosts: loopback, the service's extra hosts, the container's own addresses.
pub fn hosts(
    spec: &ContainerSpec,
    hostname: &str,
    addresses: &[NetworkAddress],
    gateway: Option<Ipv4Addr>,
) -> Result<String, String> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    text.push_str(&extra_hosts(spec, gateway)?);
    for address in addresses.iter().flat_map(NetworkAddress::both) {
        let domain = spec.domainname.as_ref().map(|domain| format!("{hostname}.{domain} ")).unwrap_or_default();
        text.push_str(&format!("{address}\t{domain}{hostname}\n"));
    }
    Ok(text)
}

/// The text of /etc/hosts in the network of the node: the node's own, and the service's extra hosts.
pub fn hosts_of_node(spec: &ContainerSpec) -> Result<String, String> {
    let mut text = of_node("/etc/hosts");
    text.push_str(&extra_hosts(spec, Some(Ipv4Addr::LOCALHOST))?);
    Ok(text)
}

/// The text of /etc/resolv.conf there: the node's own unless the service names servers.
pub fn resolv_conf_of_node(spec: &ContainerSpec) -> String {
    let says_nothing = spec.dns_servers.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty();
    if says_nothing { of_node("/etc/resolv.conf") } else { resolv_conf(spec, None) }
}

/// A node without the file has nothing to say there.
fn of_node(path: &str) -> String {
    let mut text = fs::read_to_string(path).unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn extra_hosts(spec: &ContainerSpec, gateway: Option<Ipv4Addr>) -> Result<String, String> {
    let mut text = String::new();
    for (name, address) in &spec.extra_hosts {
        let address = match address.as_str() {
            "host-gateway" => gateway
                .map(IpAddr::V4)
                .ok_or_else(|| format!("extra host {name}: host-gateway needs a network that is not internal"))?,
            written => written.parse().map_err(|_| format!("extra host {name}: `{written}` is not an address"))?,
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

/// The text of /etc/resolv.conf: the node's own resolver unless the service names servers.
pub fn resolv_conf(spec: &ContainerSpec, resolver: Option<Ipv4Addr>) -> String {
    let mut text = String::new();
    match resolver {
        // The embedded resolver forwards to the servers that the service names, if it names any.
        Some(resolver) => text.push_str(&format!("nameserver {resolver}\n")),
        None => spec.dns_servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n"))),
    }
    if !spec.dns_search.is_empty() {
        text.push_str(&format!("search {}\n", spec.dns_search.join(" ")));
    }
    let options = if spec.dns_options.is_empty() { vec!["ndots:0".to_owned()] } else { spec.dns_options.clone() };
    text.push_str(&format!("options {}\n", options.join(" ")));
    text
}

/// Writes plain files of a container's own folder and says where they belong.
pub fn write_plain(folder: &Path, files: &[(&str, &str, &str)]) -> io::Result<Vec<(PathBuf, String)>> {
    files
        .iter()
        .map(|(name, target, text)| {
            let path = folder.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            Ok((path, (*target).to_owned()))
        })
        .collect()
}

/// The node's tmpfs for secrets and configs.
#[derive(Debug, Clone)]
pub struct SecretStore {
    root: PathBuf,
}

impl SecretStore {
    /// Mounts the tmpfs at `root` unless it is there from an earlier daemon.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        if !is_tmpfs(&root)? {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            // Kernels before 6.4 do not know noswap; without it the pages may be swapped like any tmpfs.
            let with = |data: &std::ffi::CStr| mount("tmpfs", &root, "tmpfs", flags, data);
            with(c"mode=0700,noswap").or_else(|_| with(c"mode=0700"))?;
        }
        Ok(Self { root })
    }

    /// Delivers a task's secrets and configs.
    ///
    /// Delivering again writes nothing that is already there byte for byte, and what it writes, into the files that a
    /// container has mounted.
    pub fn deliver(&self, task: &str, secrets: &[Delivery<'_>], configs: &[Delivery<'_>]) -> io::Result<Delivered> {
        let folder = self.root.join(task);
        let (default, single) = (folder.join("secrets"), folder.join("files"));
        let mut delivered = Delivered::default();
        if secrets.is_empty() && configs.is_empty() {
            return Ok(delivered);
        }
        for dir in [&folder, &default, &single] {
            fs::create_dir_all(dir)?;
        }
        fs::set_permissions(&default, fs::Permissions::from_mode(0o755))?;
        if secrets.iter().any(|secret| !secret.target.path.starts_with('/')) {
            delivered.mounts.push((default.clone(), SECRETS_DIR.to_owned()));
        }
        for secret in secrets {
            match secret.target.path.strip_prefix('/') {
                None => delivered.changed |= write_delivery(&default, &default.join(&secret.target.path), secret)?,
                Some(_) => delivered.single(&single, secret, secret.target.path.clone())?,
            }
        }
        for config in configs {
            let target = format!("/{}", config.target.path.trim_start_matches('/'));
            delivered.single(&single, config, target)?;
        }
        Ok(delivered)
    }

    /// Forgets what a task was given.
    pub fn forget(&self, task: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Tasks that something is kept for.
    pub fn tasks(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Takes the tmpfs away with all that is in it.
    pub fn close(self) -> io::Result<()> {
        unmount(&self.root, UnmountFlags::DETACH)?;
        fs::remove_dir(&self.root)
    }
}

impl Delivered {
    /// A file that is mounted by itself.
    fn single(&mut self, dir: &Path, item: &Delivery<'_>, target: String) -> io::Result<()> {
        let path = dir.join(self.mounts.len().to_string());
        self.changed |= write_delivery(dir, &path, item)?;
        self.mounts.push((path, target));
        Ok(())
    }
}

/// Whether there was something to write.
fn write_delivery(root: &Path, path: &Path, item: &Delivery<'_>) -> io::Result<bool> {
    // A relative target may name folders; it may not leave the one that it is relative to.
    let inside = path
        .strip_prefix(root)
        .is_ok_and(|rest| rest.components().all(|c| matches!(c, std::path::Component::Normal(_))));
    if !inside {
        let problem = format!("target `{}` leads out of its folder", item.target.path);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let known = fs::read(path).is_ok_and(|known| known == *item.data);
    if !known {
        fs::write(path, &item.data)?;
    }
    std::os::unix::fs::chown(path, Some(item.target.uid), Some(item.target.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(item.target.mode & 0o7777))?;
    Ok(!known)
}

fn is_tmpfs(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // Its own mount: on another device than its parent.
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}
