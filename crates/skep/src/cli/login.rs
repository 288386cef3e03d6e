//! Registry credentials of the user who runs the command, from their Docker configuration.

use std::env;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skep_image::{DockerConfig, Reference};

use super::Result;

/// What goes along with a spec: base64 of the credentials as JSON; `None` without a login for the image's registry.
pub fn registry_auth(image: &str) -> Result<Option<String>> {
    let reference: Reference = image.parse()?;
    let Some(path) = config_path() else { return Ok(None) };
    let credentials = DockerConfig::load(&path)?.credentials_for(reference.registry())?;
    Ok(match credentials {
        Some(credentials) => Some(STANDARD.encode(serde_json::to_vec(&credentials)?)),
        None => None,
    })
}

fn config_path() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}
