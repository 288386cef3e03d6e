//! Volumes of this node: named folders that outlive tasks, and unnamed ones that end with theirs.
//!
//! ```text
//! DATA/volumes/NAME/_data       named; removed only by `skep volume rm` or `skep leave --volumes`
//! DATA/containers/TASK/volumes/N  unnamed
//! RUN/volumes/NAME/TASK         a task of this boot that uses a volume with options
//! ```
//! Where a volume has options, they are mounted on its folder when the first task uses it, and unmounted when none does.
//! Who uses it is written down beside what does not outlive a boot either: the next daemon finds both, and after a boot
//! the first task mounts again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use skep_model::{Labels, Stack, VolumeSource};

mod mount;

use mount::{MountError, is_mounted, mount_source, unmount_all};

/// Clones share it.
#[derive(Debug, Clone)]
pub struct VolumeStore {
    root: PathBuf,
    uses: PathBuf,
    /// Each is made, mounted and unmounted by one at a time: whoever waits for a server holds up nobody else.
    changing: Arc<Mutex<BTreeMap<String, Arc<Mutex<()>>>>>,
}

/// A named volume as a task asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub labels: &'a Labels,
    /// `type`, `device` and `o`; empty is a folder, or what the volume was made with.
    pub options: &'a Labels,
    pub subpath: Option<&'a str>,
}

/// What is kept of a named volume beside its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub labels: Labels,
    #[serde(default)]
    pub options: Labels,
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
    #[error("volume {name}: driver `{driver}` is not supported; use the driver `local`")]
    Driver { name: String, driver: String },
    #[error("volume {name}: {problem}")]
    Options { name: String, problem: String },
    #[error(
        "volume {name} was made with other options on this node ({had}; now {wanted}), and options do not change: give it \
         another name, or remove its services and then the volume (`skep volume rm {name}` on this node)"
    )]
    Changed { name: String, had: String, wanted: String },
    #[error("failed to mount volume {name}")]
    Mount {
        name: String,
        #[source]
        source: MountError,
    },
    #[error("volume {name}: the subpath `{subpath}` {problem}")]
    Subpath { name: String, subpath: String, problem: String },
    #[error("volume {name} is in use by task {task}")]
    InUse { name: String, task: String },
}

impl VolumeStore {
    /// `uses` is a folder that does not outlive a boot.
    pub fn open(root: PathBuf, uses: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root, uses, changing: Arc::default() })
    }

    /// The folder of a named volume for `task`: made when it is not there, and mounted where it has options. Blocks for
    /// as long as a server takes to answer.
    pub fn take(&self, task: &str, wanted: Wanted<'_>) -> Result<PathBuf, VolumeError> {
        let Wanted { name, labels, options, subpath } = wanted;
        check_name(name)?;
        let turn = self.turn(name);
        let _one = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = self.ensure(name, labels, options)?;
        let problem = |problem| VolumeError::Options { name: name.to_owned(), problem };
        if let Some(source) = VolumeSource::of(&volume.options).map_err(problem)? {
            self.mark(name, task).map_err(|source| io_error("note the use of", name, source))?;
            let mounted = is_mounted(&volume.mountpoint).map_err(|source| io_error("look at", name, source))?;
            if !mounted && let Err(source) = mount_source(source, &volume.mountpoint) {
                return Err(VolumeError::Mount { name: name.to_owned(), source });
            }
        }
        match subpath {
            None => Ok(volume.mountpoint),
            Some(subpath) => within(&volume.mountpoint, name, subpath),
        }
    }

    /// Ends what `task` uses, and unmounts what nobody else does.
    pub fn give_back(&self, task: &str) -> io::Result<()> {
        for used in entries(&self.uses)? {
            if !used.join(task).exists() {
                continue;
            }
            let name = used.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let turn = self.turn(&name);
            let _one = turn.lock().unwrap_or_else(PoisonError::into_inner);
            match fs::remove_file(used.join(task)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            // As long as another task uses it, its folder is not empty.
            if fs::remove_dir(&used).is_ok() {
                unmount_if_mounted(&self.root.join(name).join("_data"))?;
            }
        }
        Ok(())
    }

    /// Tasks that use a volume with options.
    pub fn users(&self) -> io::Result<Vec<String>> {
        let mut users = Vec::new();
        for used in entries(&self.uses)? {
            for user in entries(&used)? {
                users.push(user.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        Ok(users)
    }

    fn turn(&self, name: &str) -> Arc<Mutex<()>> {
        let mut turns = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.to_owned()).or_default())
    }

    fn mark(&self, name: &str, task: &str) -> io::Result<()> {
        let used = self.uses.join(name);
        fs::create_dir_all(&used)?;
        fs::write(used.join(task), "")
    }

    /// The volume as it is there; made when it is not, with these labels and options.
    fn ensure(&self, name: &str, labels: &Labels, options: &Labels) -> Result<Volume, VolumeError> {
        let folder = self.root.join(name);
        let data = folder.join("_data");
        let fail = |source| io_error("create", name, source);
        // Asked so, a server that is gone holds nobody up.
        if is_mounted(&data).is_ok() {
            let known = read(&folder).map_err(|source| io_error("read", name, source))?;
            // A volume of the stack's own says what it has; one that is only referred to says nothing.
            let says = !options.is_empty() || labels.contains_key(Stack::LABEL);
            if says && known.options != *options {
                let (had, wanted) = (shown(&known.options), shown(options));
                return Err(VolumeError::Changed { name: name.to_owned(), had, wanted });
            }
            return Ok(known);
        }
        let volume = Volume {
            name: name.to_owned(),
            labels: labels.clone(),
            options: options.clone(),
            created_at: SystemTime::now(),
            mountpoint: data.clone(),
        };
        fs::create_dir_all(&folder).map_err(fail)?;
        let json = serde_json::to_vec_pretty(&volume).expect("a volume's description is plain data");
        // Options may hold the password of a share.
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(folder.join("volume.json"));
        io::Write::write_all(&mut file.map_err(fail)?, &json).map_err(fail)?;
        // Last: its presence says that the volume is whole.
        fs::create_dir_all(&data).map_err(fail)?;
        Ok(volume)
    }

    /// Named volumes, in the order of their names.
    pub fn list(&self) -> io::Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            volumes.extend(read(&folder).ok());
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
        let fail = |source| io_error("remove", name, source);
        let turn = self.turn(name);
        let _one = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = entries(&self.uses.join(name)).map_err(fail)?.first() {
            let task = user.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(VolumeError::InUse { name: name.to_owned(), task });
        }
        // What is mounted there is not the volume's to remove.
        unmount_if_mounted(&folder.join("_data")).map_err(fail)?;
        // First out of the way, so that a removal that is cut short leaves no half volume of that name.
        let trash = self.root.join(format!(".removed-{name}"));
        fs::rename(&folder, &trash).map_err(fail)?;
        fs::remove_dir_all(&trash).map_err(fail)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn unmount_if_mounted(data: &Path) -> io::Result<()> {
    match is_mounted(data) {
        Ok(true) => unmount_all(data),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A folder of the volume. Whoever writes to the volume may have made a link of it: it must not lead out.
fn within(data: &Path, name: &str, subpath: &str) -> Result<PathBuf, VolumeError> {
    let wrong = |problem: String| VolumeError::Subpath { name: name.to_owned(), subpath: subpath.to_owned(), problem };
    if !Path::new(subpath).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("leads out of the volume".to_owned()));
    }
    // Only what leads there without a link may be made.
    let parents = Path::new(subpath).components().scan(data.to_owned(), |path, part| {
        path.push(part);
        Some(path.clone())
    });
    for part in parents {
        match fs::symlink_metadata(&part) {
            Ok(found) if found.is_symlink() => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&part).map_err(|error| wrong(format!("was not made: {error}")))?;
            }
            Err(error) => return Err(wrong(format!("cannot be looked at: {error}"))),
        }
    }
    let unseen = |error: io::Error| wrong(format!("cannot be looked at: {error}"));
    let found = fs::canonicalize(data.join(subpath)).map_err(unseen)?;
    match found.starts_with(fs::canonicalize(data).map_err(unseen)?) {
        true => Ok(found),
        false => Err(wrong("is a link that leads out of the volume".to_owned())),
    }
}

fn read(folder: &Path) -> io::Result<Volume> {
    let volume: Volume = serde_json::from_slice(&fs::read(folder.join("volume.json"))?)?;
    Ok(Volume { mountpoint: folder.join("_data"), ..volume })
}

/// What is in a folder that need not be there.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn shown(options: &Labels) -> String {
    if options.is_empty() {
        return "none".to_owned();
    }
    // `o` may hold a password.
    let mut shown: Vec<String> =
        options.iter().filter(|(key, _)| *key != "o").map(|(key, value)| format!("{key}={value}")).collect();
    shown.extend(options.get("o").map(|words| mount::without_passwords(words)).map(|words| format!("o={words}")));
    shown.join(" ")
}

fn io_error(action: &'static str, name: &str, source: io::Error) -> VolumeError {
    VolumeError::Io { action, name: name.to_owned(), source }
}

fn check_name(name: &str) -> Result<(), VolumeError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest { Ok(()) } else { Err(VolumeError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<'a>(name: &'a str, none: &'a Labels) -> Wanted<'a> {
        Wanted { name, labels: none, options: none, subpath: None }
    }

    #[test]
    fn a_volume_keeps_its_data_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path().join("volumes"), dir.path().join("uses")).unwrap();
        let none = Labels::new();
        let data = store.take("t", plain("db", &none)).unwrap();
        fs::write(data.join("row"), "1").unwrap();
        assert_eq!(store.take("u", plain("db", &none)).unwrap(), data);
        assert_eq!(fs::read_to_string(data.join("row")).unwrap(), "1");
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("db").unwrap();
        assert_eq!(store.list().unwrap().len(), 0);
        assert!(matches!(store.remove("db"), Err(VolumeError::NotFound(_))));
        assert!(matches!(store.take("t", plain("../etc", &none)), Err(VolumeError::Name(_))));
    }

    #[test]
    fn a_subpath_stays_within_its_volume_whatever_a_container_made_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path().join("volumes"), dir.path().join("uses")).unwrap();
        let none = Labels::new();
        let data = store.take("t", plain("db", &none)).unwrap();
        std::os::unix::fs::symlink("/", data.join("out")).unwrap();
        std::os::unix::fs::symlink("made", data.join("in")).unwrap();
        let sub = |subpath| store.take("t", Wanted { subpath: Some(subpath), ..plain("db", &none) });
        assert!(sub("made/deep").unwrap().ends_with("_data/made/deep"));
        assert!(sub("in/deep").unwrap().ends_with("_data/made/deep"));
        for outside in ["out", "out/made-by-nobody", "../x", "/etc"] {
            assert!(matches!(sub(outside), Err(VolumeError::Subpath { .. })), "{outside}");
        }
        assert!(!Path::new("/made-by-nobody").exists());
    }
}
