//! A node's identity on disk: `<data>/identity/key.pem` and `certificate.pem` (the certificate, then the trusted CAs).
//!
//! Two files, each replaced as a whole, and a renewal touches only the second: a crash at any point leaves a pair that
//! fits together. The key is made before the node asks for its first certificate, so an interrupted join goes on with
//! the same key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use skep_model::Timestamp;

use crate::clock::{from_unix_seconds, unix_seconds};
use crate::credentials::{Credentials, CredentialsError};
use crate::key::{KeyError, NodeKey};

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
/// The latest time that is known to have passed, in seconds since 1970.
const CLOCK: &str = "clock";

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not usable", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("`{}` is not usable", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: CredentialsError,
    },
    #[error("`{}` is missing, although `{}` exists: restore it, or run `skep leave --force` and join again", missing.display(), beside.display())]
    HalfThere { missing: PathBuf, beside: PathBuf },
}

/// The folder `<data>/identity`.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    path: PathBuf,
}

impl IdentityDir {
    /// The folder inside the node's data folder; made (0700) when something is first stored in it.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("identity") }
    }

    /// The node's credentials, or none if it is not a member of a cluster.
    pub fn load(&self) -> Result<Option<Credentials>, FileError> {
        let (key_path, chain_path) = (self.path.join(KEY), self.path.join(CERTIFICATE));
        let Some(chain) = read(&chain_path)? else {
            return Ok(None);
        };
        let Some(key) = self.load_key()? else {
            return Err(FileError::HalfThere { missing: key_path, beside: chain_path });
        };
        let credentials = Credentials::from_chain(key, chain)
            .map_err(|source| FileError::Credentials { path: chain_path, source })?;
        Ok(Some(credentials))
    }

    /// The node's key: the one on disk, or a new one that is on disk when this returns.
    pub fn key(&self) -> Result<NodeKey, FileError> {
        if let Some(key) = self.load_key()? {
            return Ok(key);
        }
        let path = self.path.join(KEY);
        let key = NodeKey::generate().map_err(|source| FileError::Key { path: path.clone(), source })?;
        self.create()?;
        write_private(&path, key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// Makes `credentials` what the node is after a restart. They must hold the key that [`key`](Self::key) gave.
    pub fn store(&self, credentials: &Credentials) -> Result<(), FileError> {
        self.create()?;
        let key = self.path.join(KEY);
        let pem = credentials.key().to_pem();
        if read(&key)?.as_deref() != Some(pem.as_str()) {
            write_private(&key, pem.as_bytes())?;
        }
        write_private(&self.path.join(CERTIFICATE), credentials.chain_pem().as_bytes())
    }

    /// The latest time that was stored; none if there is none that can be read: a clock is no reason not to start.
    pub fn load_clock(&self) -> Option<Timestamp> {
        let text = read(&self.path.join(CLOCK)).ok().flatten()?;
        text.trim().parse().ok().map(from_unix_seconds)
    }

    /// Stores a time that has passed; `NodeClock::worth_storing` says which.
    pub fn store_clock(&self, passed: Timestamp) -> Result<(), FileError> {
        write_private(&self.path.join(CLOCK), format!("{}\n", unix_seconds(passed)).as_bytes())
    }

    /// Forgets the node's identity: the certificate first, so that what is left is never half of one.
    pub fn remove(&self) -> Result<(), FileError> {
        for name in [CERTIFICATE, KEY, CLOCK] {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(failed("remove", &self.path)),
        }
    }

    fn load_key(&self) -> Result<Option<NodeKey>, FileError> {
        let path = self.path.join(KEY);
        read(&path)?.map(|pem| NodeKey::from_pem(&pem).map_err(|source| FileError::Key { path, source })).transpose()
    }

    fn create(&self) -> Result<(), FileError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed("create", &self.path))
    }
}

/// Replaces `path` by `content` as a whole, mode 0600, durable when this returns.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    // The rename itself is durable only once the folder is.
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { verb, path: path.to_owned(), source }
}
