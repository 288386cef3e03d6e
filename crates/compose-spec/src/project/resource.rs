//! What services share: networks, volumes, secrets and configs.

use std::sync::Arc;

use super::{At, Strings};
use crate::source::Span;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// The network's key.
    pub span: Span,
    pub name: Option<String>,
    pub external: bool,
    pub driver: Option<At<String>>,
    pub driver_opts: Strings,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv6: Option<At<bool>>,
    pub labels: Strings,
    pub ipam_driver: Option<At<String>>,
    pub ipam: Vec<IpamConfig>,
}

/// Addresses as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpamConfig {
    pub span: Span,
    pub subnet: Option<At<String>>,
    pub gateway: Option<At<String>>,
    pub ip_range: Option<At<String>>,
    pub aux_addresses: Strings,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    /// The volume's key.
    pub span: Span,
    pub name: Option<String>,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: Strings,
    pub labels: Strings,
}

/// A secret or a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its key.
    pub span: Span,
    pub name: Option<String>,
    pub labels: Strings,
    pub template_driver: Option<At<String>>,
    pub source: ContentSource,
}

#[derive(Clone, PartialEq, Eq)]
pub enum ContentSource {
    External,
    /// The absolute path, and the bytes that were read there.
    File {
        path: String,
        data: Arc<[u8]>,
    },
    /// The variable, and its value.
    Environment {
        variable: String,
        data: Arc<[u8]>,
    },
    /// Written in the file; configs only.
    Inline {
        data: Arc<[u8]>,
    },
}

impl ContentSource {
    /// `None` for what is not made by this project.
    pub fn data(&self) -> Option<&Arc<[u8]>> {
        match self {
            ContentSource::External => None,
            ContentSource::File { data, .. }
            | ContentSource::Environment { data, .. }
            | ContentSource::Inline { data } => Some(data),
        }
    }
}

impl std::fmt::Debug for ContentSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret's bytes must not reach a log by way of a debug format.
        match self {
            ContentSource::External => f.write_str("External"),
            ContentSource::File { path, data } => write!(f, "File {{ {path}, {} bytes }}", data.len()),
            ContentSource::Environment { variable, data } => {
                write!(f, "Environment {{ {variable}, {} bytes }}", data.len())
            }
            ContentSource::Inline { data } => write!(f, "Inline {{ {} bytes }}", data.len()),
        }
    }
}
