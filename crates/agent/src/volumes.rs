//! Volumes of this node: named folders that outlive tasks, and unnamed ones that end with theirs.
//!
//! ```text
//! volumes/NAME/_data       named; removed only by `skep volume rm` or `skep leave --volumes`
//! containers/TASK/volumes/N  unnamed
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use skep_model::Labels;

#[derive(Debug, Clone)]
pub struct VolumeStore {
    root: PathBuf,
}

/// What is kept of a named volume beside its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub labels: Labels,
    pub created_at: SystemTime,
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("invalid volume name `{0}`: use letters, digits, `_`, `.` and `-`, starting with a letter or digit")]
    Name(String),
    #[error("volume {0} not found; `skep volume ls` lists what is here")]
    NotFound(String),
    #[error("failed to {action} volume {name}")]
    Io {
        action: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "volume {name}: driver `{driver}` with these options is not supported on this node; use the driver `local` without options"
    )]
    Driver { name: String, driver: String },
}

impl VolumeStore {
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// The data folder of a named volume; made when it is not there, with these labels.
    pub fn ensure(&self, name: &str, labels: &Labels) -> Result<PathBuf, VolumeError> {
        check_name(name)?;
        let folder = self.root.join(name);
        let data = folder.join("_data");
        let fail = |source| VolumeError::Io { action: "create", name: name.to_owned(), source };
        if !data.exists() {
            let volume = Volume {
                name: name.to_owned(),
                labels: labels.clone(),
                created_at: SystemTime::now(),
                mountpoint: PathBuf::new(),
            };
            fs::create_dir_all(&folder).map_err(fail)?;
            let json = serde_json::to_vec_pretty(&volume).expect("a volume's description is plain data");
            fs::write(folder.join("volume.json"), json).map_err(fail)?;
            // Last: its presence says that the volume is whole.
            fs::create_dir_all(&data).map_err(fail)?;
        }
        Ok(data)
    }

    /// Named volumes, in the order of their names.
    pub fn list(&self) -> io::Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let Ok(json) = fs::read(folder.join("volume.json")) else { continue };
            if let Ok(volume) = serde_json::from_slice::<Volume>(&json) {
                volumes.push(Volume { mountpoint: folder.join("_data"), ..volume });
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume and its data; whether it is in use is its caller's to know.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        check_name(name)?;
        let folder = self.root.join(name);
        if !folder.exists() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let fail = |source| VolumeError::Io { action: "remove", name: name.to_owned(), source };
        // First out of the way, so that a removal that is cut short leaves no half volume of that name.
        let trash = self.root.join(format!(".removed-{name}"));
        fs::rename(&folder, &trash).map_err(fail)?;
        fs::remove_dir_all(&trash).map_err(fail)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn check_name(name: &str) -> Result<(), VolumeError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest { Ok(()) } else { Err(VolumeError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_keeps_its_data_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path().join("volumes")).unwrap();
        let data = store.ensure("db", &Labels::new()).unwrap();
        fs::write(data.join("row"), "1").unwrap();
        assert_eq!(store.ensure("db", &Labels::new()).unwrap(), data);
        assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "1");
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("db").unwrap();
        assert_eq!(store.list().unwrap().len(), 0);
        assert!(matches!(store.remove("db"), Err(VolumeError::NotFound(_))));
        assert!(matches!(store.ensure("../etc", &Labels::new()), Err(VolumeError::Name(_))));
    }
}
