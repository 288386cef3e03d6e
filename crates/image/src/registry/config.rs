//! Which registries are reached how: mirrors, plain HTTP, own certificate authorities.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The node's registry settings (`[registry]` in config.toml).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// `host` or `host:port` of registries that may be reached without a valid certificate or over plain HTTP.
    /// Loopback addresses always may, as in Docker.
    pub insecure: Vec<String>,
    /// By registry as written in references (`docker.io`): base URLs asked first, in this order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// PEM files, or folders with `*.crt` and `*.pem`, of authorities trusted beside the built-in ones.
    pub ca_dirs: Vec<PathBuf>,
}

/// How far a registry's transport must be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// HTTPS with a verified certificate.
    Verified,
    /// HTTPS with any certificate, or plain HTTP.
    Insecure,
}

impl RegistryConfig {
    pub(crate) fn security(&self, host: &str) -> Security {
        let name = without_port(host);
        let listed = self.insecure.iter().any(|entry| entry == host || entry == name);
        if listed || is_loopback(name) { Security::Insecure } else { Security::Verified }
    }
}

/// `host` as users write it → the host that serves it.
pub(crate) fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_registries_may_be_insecure() {
        let config = RegistryConfig { insecure: vec!["nas:5000".into(), "lab".into()], ..Default::default() };
        let insecure = |host| config.security(host) == Security::Insecure;
        for host in ["localhost:5000", "127.8.0.1", "[::1]:5000", "nas:5000", "lab", "lab:80"] {
            assert!(insecure(host), "{host}");
        }
        for host in ["ghcr.io", "nas", "nas:5001", "localhost.evil.org", "10.0.0.1:5000"] {
            assert!(!insecure(host), "{host}");
        }
    }
}
