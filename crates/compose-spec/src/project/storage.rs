//! What a service sees of the world: ports, mounts, and the files of secrets and configs.

use std::net::IpAddr;

use super::Strings;
use crate::source::Span;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub span: Span,
    pub name: Option<String>,
    pub target: u16,
    /// First and last of the ports that one may be chosen from, most often equal; `None` lets the cluster choose.
    pub published: Option<(u16, u16)>,
    pub host_ip: Option<IpAddr>,
    pub protocol: Protocol,
    pub mode: PortMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortMode {
    Ingress,
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub span: Span,
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    Bind(Bind),
    /// By key of the project's volumes; anonymous without one.
    Volume {
        key: Option<String>,
        no_copy: bool,
        subpath: Option<String>,
        labels: Strings,
    },
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        mode: Option<u32>,
        /// Further mount options of the `tmpfs` attribute's short form, such as `noexec`.
        options: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bind {
    /// Absolute path on the node.
    pub source: String,
    /// `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.
    pub propagation: Option<String>,
    /// Make the folder when it is not there: the short form's way, and the long form's when it says so.
    pub create_host_path: bool,
    /// `recursive: disabled`.
    pub non_recursive: bool,
}

/// A secret or config in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReference {
    pub span: Span,
    /// Key of the project's secrets or configs.
    pub source: String,
    /// As written; without one its default applies.
    pub target: Option<String>,
    pub uid: Option<String>,
    pub gid: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}
