//! Registry credentials: as shipped with a service, and as read from a user's docker config.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::config::nullable;

/// What a registry is shown. Never printed: `Debug` hides the secrets.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// An OAuth2 refresh token in place of a password (docker's `identitytoken`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_token: Option<String>,
}

/// A docker `config.json`, as far as it holds registry logins.
#[derive(Debug, Default)]
pub struct DockerConfig {
    path: PathBuf,
    raw: RawConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("failed to read docker config `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("docker config `{path}` is not valid JSON")]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("docker config `{path}`: the login for {registry} is not base64 of user:password; run the login again")]
    Malformed { path: PathBuf, registry: String },
    #[error(
        "docker config `{path}` keeps the login for {registry} in the credential helper `{helper}`, which is not supported: \
         log in with a config that stores it in `auths`, and name its folder in DOCKER_CONFIG"
    )]
    Helper { path: PathBuf, registry: String, helper: String },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawConfig {
    #[serde(deserialize_with = "nullable")]
    auths: BTreeMap<String, RawLogin>,
    #[serde(deserialize_with = "nullable")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawLogin {
    #[serde(deserialize_with = "nullable")]
    auth: String,
    #[serde(deserialize_with = "nullable")]
    username: String,
    #[serde(deserialize_with = "nullable")]
    password: String,
    #[serde(deserialize_with = "nullable")]
    identitytoken: String,
}

impl DockerConfig {
    /// Reads `path`; a missing file is an empty config.
    pub fn load(path: &Path) -> Result<DockerConfig, CredentialsError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DockerConfig::default()),
            Err(source) => return Err(CredentialsError::Read { path: path.into(), source }),
        };
        let raw =
            serde_json::from_slice(&text).map_err(|source| CredentialsError::Json { path: path.into(), source })?;
        Ok(DockerConfig { path: path.into(), raw })
    }

    /// The login for `registry` (as in `Reference::registry`), if the config has one.
    pub fn credentials_for(&self, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
        let keys = config_keys(registry);
        if let Some(helper) = keys.iter().find_map(|key| self.raw.cred_helpers.get(key)) {
            return Err(self.helper(registry, helper));
        }
        let Some(login) = keys.iter().find_map(|key| self.raw.auths.get(key)) else { return Ok(None) };
        let has_login = !(login.auth.is_empty() && login.username.is_empty() && login.identitytoken.is_empty());
        if !has_login {
            // With a store, docker leaves an empty entry as the mark that the store has the login.
            let store = &self.raw.creds_store;
            return if store.is_empty() { Ok(None) } else { Err(self.helper(registry, store)) };
        }
        let (username, password) = match login.auth.as_str() {
            "" => (login.username.clone(), login.password.clone()),
            auth => decode_basic(auth).ok_or_else(|| CredentialsError::Malformed {
                path: self.path.clone(),
                registry: registry.to_owned(),
            })?,
        };
        let identity_token = Some(login.identitytoken.clone()).filter(|token| !token.is_empty());
        Ok(Some(Credentials { username, password, identity_token }))
    }

    fn helper(&self, registry: &str, helper: &str) -> CredentialsError {
        CredentialsError::Helper {
            path: self.path.clone(),
            registry: registry.to_owned(),
            helper: format!("docker-credential-{helper}"),
        }
    }
}

impl Credentials {
    /// The value of an `Authorization: Basic` header.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.username, self.password)))
    }
}

fn decode_basic(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Docker Hub's login is kept under the address of its old index; others under the host, by some tools as URL.
fn config_keys(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    if registry == "docker.io" {
        keys.insert(0, "https://index.docker.io/v1/".to_owned());
        keys.extend(["index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
    }
    keys.extend([format!("https://{registry}/v1/"), format!("https://{registry}/v2/")]);
    keys
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.username)
    }
}

impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.auths.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        DockerConfig { path: "config.json".into(), raw: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn logins_are_found_under_the_names_docker_uses() {
        let auth = BASE64.encode("ann:pa:ss");
        let config = config(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"ghcr.io":{{"auth":"{auth}","identitytoken":"t"}},"e":{{}}}}}}"#
        ));
        let hub = config.credentials_for("docker.io").unwrap().unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("ann", "pa:ss"));
        let ghcr = config.credentials_for("ghcr.io").unwrap().unwrap();
        assert_eq!(ghcr.identity_token.as_deref(), Some("t"));
        assert_eq!(config.credentials_for("quay.io").unwrap(), None);
        assert_eq!(config.credentials_for("e").unwrap(), None);
        assert!(!format!("{hub:?}{config:?}").contains("pa:ss"));
    }

    #[test]
    fn helpers_are_named_where_they_would_be_needed_only() {
        let config = config(r#"{"auths":{"a.io":{}},"credsStore":"desktop","credHelpers":{"b.io":"gcloud"}}"#);
        let message = |registry| config.credentials_for(registry).unwrap_err().to_string();
        assert!(message("a.io").contains("docker-credential-desktop"));
        assert!(message("b.io").contains("docker-credential-gcloud"));
        assert_eq!(config.credentials_for("c.io").unwrap(), None);
    }
}
