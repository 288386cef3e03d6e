//! This node's keys in the tunnel, which never leave it: `<data>/net/tunnel.key`, for root alone, and while it is being
//! replaced `tunnel.key.next`. Both go with the node's folder when the node leaves.
//!
//! ```text
//! due ─▶ make the next, on the disk ─▶ tell the managers ─▶ they write it and tell all ─▶ use it, forget the old
//! ```
//! The node changes over when it is told what the others are told, at the same time as they: whatever fails or is cut
//! off before that, it goes on with the key that they know.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use skep_identity::{FileError, write_private};
use skep_model::TunnelKey;
use skep_overlay::tunnel::{KeyError, PrivateKey};

/// How old a key grows at most, where the node's settings say nothing.
pub const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("failed to read the tunnel's key `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to create the folder `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` holds no key: remove it, and the node makes another", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("the kernel gave no random bytes for the tunnel's key")]
    Random(#[source] io::Error),
    #[error("failed to write the tunnel's key")]
    Write(#[from] FileError),
}

/// See the file's header.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    current: PrivateKey,
    /// Not used before the others know it.
    next: Option<PrivateKey>,
    period: Duration,
}

impl Keys {
    /// The node's keys; the first is made, and on the disk for good, before its first use.
    pub fn load(data_dir: &Path, period: Duration) -> Result<Self, KeyFileError> {
        let path = data_dir.join("net/tunnel.key");
        let current = match read(&path)? {
            Some(key) => key,
            None => make(&path)?,
        };
        let next = read(&next_path(&path))?;
        Ok(Self { path, current, next, period })
    }

    /// The key that the others are to know.
    pub fn told(&self) -> TunnelKey {
        public(self.next.as_ref().unwrap_or(&self.current))
    }

    /// The key to use, where the others know the node by `known`; none: nobody has said.
    pub fn used(&mut self, known: Option<TunnelKey>) -> &PrivateKey {
        if let Some(next) = self.next.take_if(|next| known == Some(public(next))) {
            // Should it fail, or the power, the next start finds both and is told the same again.
            if let Err(error) = fs::rename(next_path(&self.path), &self.path) {
                tracing::warn!(%error, "the tunnel's old key stays on the disk");
            }
            tracing::info!("the tunnel has another key");
            self.current = next;
        }
        &self.current
    }

    /// How long the node may wait before it calls [`Keys::renew`]; none: it must not, for its managers are older, or
    /// another key is under way.
    pub fn due_in(&self, known: Option<TunnelKey>, now: SystemTime) -> Option<Duration> {
        if self.next.is_some() || known != Some(public(&self.current)) {
            return None;
        }
        let made = fs::metadata(&self.path).and_then(|file| file.modified()).ok()?;
        // A key from the future is a clock's mistake: it is as good as new.
        let age = now.duration_since(made).unwrap_or_default();
        Some(self.lifetime().saturating_sub(age))
    }

    /// Makes the key after this one.
    pub fn renew(&mut self) -> Result<(), KeyFileError> {
        self.next = Some(make(&next_path(&self.path))?);
        Ok(())
    }

    /// Between three quarters of the period and the whole: nodes that were made together do not change together. The key
    /// itself is the chance, so that a restart does not draw again.
    fn lifetime(&self) -> Duration {
        let chance = u32::from(public(&self.current).0[0]);
        self.period * (768 + chance) / 1024
    }
}

fn public(key: &PrivateKey) -> TunnelKey {
    TunnelKey(*key.public().bytes())
}

fn next_path(path: &Path) -> PathBuf {
    path.with_extension("key.next")
}

fn read(path: &Path) -> Result<Option<PrivateKey>, KeyFileError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            text.trim().parse().map(Some).map_err(|source| KeyFileError::Damaged { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyFileError::Read { path: path.to_owned(), source }),
    }
}

fn make(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let folder = path.parent().expect("the file is in a folder");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| KeyFileError::Folder { path: folder.to_owned(), source })?;
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| KeyFileError::Random(error.into()))?;
    let key = PrivateKey::from_bytes(bytes);
    write_private(path, format!("{}\n", key.to_base64()).as_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Keys::load(dir.path(), PERIOD);
        let key = load().unwrap().current;
        assert_eq!(load().unwrap().current, key);
        let path = dir.path().join("net/tunnel.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with(&key.to_base64()));
        // A node that forgot its key must not go on as if it were new: the cluster would move its place.
        fs::write(&path, "cut o").unwrap();
        assert!(matches!(load(), Err(KeyFileError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert_ne!(load().unwrap().current, key, "a node that left is another one");
    }

    #[test]
    fn the_next_key_is_used_once_the_others_know_it_whatever_happens_between() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Keys::load(dir.path(), PERIOD).unwrap();
        let mut keys = load();
        let first = keys.told();
        keys.renew().unwrap();
        let second = keys.told();
        assert_ne!(first, second);
        // Killed and started again, it says the same and goes on with what the others know.
        for mut keys in [keys, load()] {
            assert_eq!(keys.told(), second);
            for known in [None, Some(first)] {
                assert_eq!(public(keys.used(known)), first);
            }
            assert_eq!(keys.due_in(Some(first), SystemTime::now()), None, "one at a time");
        }
        assert_eq!(public(load().used(Some(second))), second);
        let mut keys = load();
        assert_eq!((keys.told(), public(keys.used(None)), keys.next.is_none()), (second, second, true));
    }

    #[test]
    fn a_key_is_replaced_in_the_last_quarter_of_its_time_and_only_where_managers_say_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load(dir.path(), PERIOD).unwrap();
        let known = Some(keys.told());
        let now = SystemTime::now();
        let wait = keys.due_in(known, now).unwrap();
        assert!(wait > PERIOD / 4 * 3 - Duration::from_secs(60) && wait <= PERIOD, "{wait:?}");
        assert_eq!(keys.due_in(known, now + PERIOD), Some(Duration::ZERO));
        assert!(keys.due_in(known, now - PERIOD).is_some_and(|wait| wait <= PERIOD), "a clock that was set back");
        for older in [None, Some(TunnelKey([1; 32]))] {
            assert_eq!(keys.due_in(older, now + PERIOD), None);
        }
    }
}
