//! A backup: the whole cluster in one file that only its passphrase opens.
//!
//! ```text
//! file   = magic [8] · format u16 · header length u32 · header · chunk · chunk · …
//! header = iterations u32 · salt [16] · key id [8] · made at u64 · cluster id [16] · version u64 · level u32 · skep version
//! chunk  = as in a snapshot file
//! ```
//! Integers are little-endian. The header can be read without the passphrase, so that a backup says what it is; the
//! seal of each chunk covers it. The key is PBKDF2-HMAC-SHA256 of the passphrase: slow to guess by its count alone,
//! in exchange for no memory that a Raspberry Pi lacks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use ring::pbkdf2;
use skep_api::{DecodeError, decode_cluster, encode_cluster};
use skep_model::{Cluster, ClusterId, Timestamp, Version};

use crate::key::{DataKey, NoRandomness, Purpose, fill_random};
use crate::snapshot::{read_chunks, write_chunks};

const MAGIC: [u8; 8] = *b"SKEPBAK\n";
const FORMAT: u16 = 1;
/// OWASP's count for PBKDF2-HMAC-SHA256 (Password Storage Cheat Sheet, 2023): some tenths of a second.
const ITERATIONS: u32 = 600_000;
/// A file that asks for more wants to keep the reader busy.
const ITERATIONS_MAX: u32 = 20_000_000;
const SALT: usize = 16;

/// What a backup says of itself without its passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHeader {
    /// When it was made, by the clock of who made it.
    pub made_at: Timestamp,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The cluster's version that it holds.
    pub version: Version,
    /// The feature level that the cluster had.
    pub level: u32,
    /// The version of the skep that wrote it.
    pub skep_version: String,
}

/// A backup cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file operation failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A backup never replaces a file.
    #[error("`{0}` is there already; give the backup another name")]
    Exists(PathBuf),
    /// There is nothing to back up.
    #[error("the cluster has no settings yet: there is nothing to back up")]
    Empty,
    /// The file's bytes are not what was written.
    #[error("the backup `{path}` is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Another kind of file.
    #[error("`{0}` is not a backup that `skep cluster backup` made")]
    NotABackup(PathBuf),
    /// Written by a build that is too new.
    #[error("`{path}` has format {format}; this build of skep reads format {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// The passphrase is another one.
    #[error("the passphrase does not open `{0}`")]
    WrongPassphrase(PathBuf),
    /// The content was read, but not understood.
    #[error("the backup `{path}` cannot be restored by this build of skep")]
    State {
        /// The file.
        path: PathBuf,
        /// What it does not know.
        #[source]
        source: DecodeError,
    },
    /// The kernel gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Writes a backup, durably and as a whole or not at all, readable by its owner only; returns what it says of itself.
/// Blocking, and slow on purpose.
pub fn write_backup(
    path: &Path,
    passphrase: &[u8],
    cluster: &Cluster,
    made_at: Timestamp,
) -> Result<BackupHeader, BackupError> {
    let config = cluster.config.as_ref().ok_or(BackupError::Empty)?;
    let header = BackupHeader {
        made_at,
        cluster: config.id,
        version: cluster.version,
        level: config.level,
        skep_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    refuse_existing(path)?;
    let mut salt = [0; SALT];
    fill_random(&mut salt)?;
    let key = key_of(passphrase, salt, ITERATIONS);
    let head = encode_header(&header, salt, key.id());
    let unfinished = beside(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&unfinished).map_err(io_error("create", &unfinished))?;
    let written = write_to(&file, &head, &key, salt, &encode_cluster(cluster))
        .map_err(io_error("write", &unfinished))
        .and_then(|()| refuse_existing(path))
        .and_then(|()| fs::rename(&unfinished, path).map_err(io_error("rename the backup to", path)));
    if let Err(error) = written {
        // Of no use to anybody; that it was not written is what the user is told.
        fs::remove_file(&unfinished).ok();
        return Err(error);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))?;
    Ok(header)
}

/// Reads what [`write_backup`] wrote. Blocking, and slow on purpose.
pub fn read_backup(path: &Path, passphrase: &[u8]) -> Result<(BackupHeader, Cluster), BackupError> {
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    let damaged = |detail: &str| BackupError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let mut input = bytes.as_slice();
    if input.split_off(..MAGIC.len()) != Some(&MAGIC) {
        return Err(BackupError::NotABackup(path.to_owned()));
    }
    let format = input.try_get_u16_le().map_err(|_| damaged("it is cut short"))?;
    if format != FORMAT {
        return Err(BackupError::Format { path: path.to_owned(), format });
    }
    let length = input.try_get_u32_le().map_err(|_| damaged("it is cut short"))? as usize;
    let fields = input.split_off(..length).ok_or_else(|| damaged("it is cut short"))?;
    let head = &bytes[..bytes.len() - input.len()];
    let Head { header, iterations, salt, key_id } =
        decode_header(fields).ok_or_else(|| damaged("its header does not read"))?;
    if !(1..=ITERATIONS_MAX).contains(&iterations) {
        return Err(damaged("its header asks for an impossible number of rounds"));
    }
    let key = key_of(passphrase, salt, iterations);
    if key.id() != key_id {
        return Err(BackupError::WrongPassphrase(path.to_owned()));
    }
    let data = read_chunks(&key.derive(Purpose::Backup(salt)), head, input).map_err(|detail| damaged(&detail))?;
    let cluster = decode_cluster(&data).map_err(|source| BackupError::State { path: path.to_owned(), source })?;
    Ok((header, cluster))
}

fn key_of(passphrase: &[u8], salt: [u8; SALT], iterations: u32) -> DataKey {
    let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, passphrase, &mut key);
    DataKey::from_bytes(key)
}

fn write_to(file: &File, head: &[u8], key: &DataKey, salt: [u8; SALT], data: &[u8]) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    out.write_all(head)?;
    write_chunks(&mut out, &key.derive(Purpose::Backup(salt)), head, data)?;
    out.flush()?;
    drop(out);
    file.sync_all()
}

struct Head {
    header: BackupHeader,
    iterations: u32,
    salt: [u8; SALT],
    key_id: [u8; 8],
}

fn encode_header(header: &BackupHeader, salt: [u8; SALT], key_id: [u8; 8]) -> Vec<u8> {
    let BackupHeader { made_at, cluster, version, level, skep_version } = header;
    let mut fields = Vec::new();
    fields.put_u32_le(ITERATIONS);
    fields.put_slice(&salt);
    fields.put_slice(&key_id);
    fields.put_u64_le(made_at.0);
    fields.put_u128_le(cluster.as_u128());
    fields.put_u64_le(version.0);
    fields.put_u32_le(*level);
    fields.put_slice(skep_version.as_bytes());
    let mut head = MAGIC.to_vec();
    head.put_u16_le(FORMAT);
    head.put_u32_le(u32::try_from(fields.len()).expect("a version is a short word"));
    head.extend(fields);
    head
}

fn decode_header(mut fields: &[u8]) -> Option<Head> {
    let iterations = fields.try_get_u32_le().ok()?;
    let (mut salt, mut key_id) = ([0; SALT], [0; 8]);
    fields.try_copy_to_slice(&mut salt).ok()?;
    fields.try_copy_to_slice(&mut key_id).ok()?;
    let header = BackupHeader {
        made_at: Timestamp(fields.try_get_u64_le().ok()?),
        cluster: ClusterId::from_u128(fields.try_get_u128_le().ok()?),
        version: Version(fields.try_get_u64_le().ok()?),
        level: fields.try_get_u32_le().ok()?,
        skep_version: String::from_utf8(fields.to_vec()).ok()?,
    };
    Some(Head { header, iterations, salt, key_id })
}

fn refuse_existing(path: &Path) -> Result<(), BackupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(BackupError::Exists(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io { action, path: path.to_owned(), source }
}
