//! A node's identity on disk: `<data>/identity/key.pem` and `certificate.pem` (the certificate, then the trusted CAs);
//! on managers `raft.key` too. With autolock, `locked` stands in the place of both keys.
//!
//! Two files, each replaced as a whole, and a renewal touches only the second: a crash at any point leaves a pair that
//! fits together. The key is made before the node asks for its first certificate, so an interrupted join goes on with
//! the same key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::credentials::{Credentials, CredentialsError};
use crate::key::{KeyError, NodeKey};
use crate::lock::{LockError, LockedKeys, ManagerKeys};

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const DATA_KEY: &str = "raft.key";
const LOCKED: &str = "locked";

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
    #[error("`{}` is not usable", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: LockError,
    },
    #[error("`{}` is not a key of 32 bytes", path.display())]
    DataKey { path: PathBuf },
    #[error("this manager's keys are locked: run `skep unlock`")]
    Locked,
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
        Self::credentials(key, chain, chain_path)
    }

    /// As [`load`](Self::load), where the node's key is not in its file: of a manager that was unlocked.
    pub fn load_with(&self, key: NodeKey) -> Result<Option<Credentials>, FileError> {
        let path = self.path.join(CERTIFICATE);
        let Some(chain) = read(&path)? else { return Ok(None) };
        Self::credentials(key, chain, path)
    }

    fn credentials(key: NodeKey, chain: String, chain_path: PathBuf) -> Result<Option<Credentials>, FileError> {
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
        // A locked key stays in the locked file alone.
        if self.locked()?.is_none() && read(&key)?.as_deref() != Some(pem.as_str()) {
            write_private(&key, pem.as_bytes())?;
        }
        write_private(&self.path.join(CERTIFICATE), credentials.chain_pem().as_bytes())
    }

    /// Forgets the node's identity: the certificate first, so that what is left is never half of one.
    pub fn remove(&self) -> Result<(), FileError> {
        for name in [CERTIFICATE, KEY, DATA_KEY, LOCKED] {
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

    /// A manager's data key, or none before its first store.
    pub fn data_key(&self) -> Result<Option<[u8; 32]>, FileError> {
        if self.locked()?.is_some() {
            return Err(FileError::Locked);
        }
        let path = self.path.join(DATA_KEY);
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map(Some).map_err(|_| FileError::DataKey { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    pub fn store_data_key(&self, key: &[u8; 32]) -> Result<(), FileError> {
        self.create()?;
        write_private(&self.path.join(DATA_KEY), key)
    }

    /// The keys of a manager that autolock locked; none if they are in the clear.
    pub fn locked(&self) -> Result<Option<LockedKeys>, FileError> {
        let path = self.path.join(LOCKED);
        match fs::read(&path) {
            Ok(bytes) => LockedKeys::read(bytes).map(Some).map_err(|source| FileError::Lock { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Puts a locked file in the place of the keys in the clear, or of another locked file.
    pub fn lock(&self, locked: &LockedKeys) -> Result<(), FileError> {
        write_private(&self.path.join(LOCKED), locked.bytes())?;
        for name in [KEY, DATA_KEY] {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
                _ => {}
            }
        }
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &self.path))
    }

    /// Puts the keys back in the clear, and removes the locked file.
    pub fn release(&self, keys: &ManagerKeys) -> Result<(), FileError> {
        write_private(&self.path.join(KEY), keys.node_key.to_pem().as_bytes())?;
        write_private(&self.path.join(DATA_KEY), &keys.data_key)?;
        let path = self.path.join(LOCKED);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn load_key(&self) -> Result<Option<NodeKey>, FileError> {
        if self.locked()?.is_some() {
            return Err(FileError::Locked);
        }
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
