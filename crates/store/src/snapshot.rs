//! Snapshot files: the whole state up to a place in the log, encrypted, written beside and renamed.
//!
//! ```text
//! file   = magic [8] · format u16 · header length u32 · header · chunk · chunk · …
//! header = key id [8] · salt [16] · place · membership's place · membership
//! chunk  = length u32 (top bit: the last one) · sealed bytes
//! ```
//! Each file has a key of its own (from its salt), each chunk's nonce is its number, and the seal
//! covers the header and whether the chunk is the last: so a changed, reordered, missing or cut chunk
//! does not open. What the bytes mean is `codec`'s matter, when to make one is `store`'s.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes};

use crate::key::{DataKey, FileKey, NoRandomness, Purpose, fill_random, hex};
use crate::raft::{
    MembershipError, SnapshotMeta, StoredMembership, decode_membership, encode_membership, log_id_of, pos_of,
};
use crate::wal::LogPos;

const MAGIC: [u8; 8] = *b"SKEPSNP\n";
const FORMAT: u16 = 1;
const CHUNK: usize = 256 * 1024;
const TAG: usize = 16;
const LAST: u32 = 1 << 31;
/// The newest, and the one before it in case the newest turns out damaged.
const KEPT: usize = 2;
const SUFFIX: &str = ".snapshot";

/// A snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file's bytes are not what was written.
    #[error("the snapshot `{path}` is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Encrypted with another key.
    #[error("`{path}` is encrypted with key {found}, and the key given is {given}")]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The key's id in the file.
        found: String,
        /// The id of the key that was given.
        given: String,
    },
    /// Written by a build that is too new or too old.
    #[error("`{path}` has format {format}; this build of skep reads format {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// The kernel gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The snapshots of one folder.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    key: DataKey,
    newest: Mutex<Option<Newest>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Newest {
    pub(crate) meta: SnapshotMeta,
    pub(crate) path: PathBuf,
    /// Bytes of the file.
    pub(crate) size: u64,
}

/// What a snapshot holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

impl Snapshots {
    /// Opens the folder and reads the newest snapshot, or an older one if the newest is damaged and
    /// the log still has everything since. Blocking.
    pub(crate) fn open(
        dir: &Path,
        key: &DataKey,
        purged: Option<u64>,
    ) -> Result<(Snapshots, Option<Loaded>), SnapshotError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let snapshots = Snapshots { dir: dir.to_owned(), key: key.clone(), newest: Mutex::new(None) };
        let mut problem = None;
        for path in snapshots.files()? {
            match snapshots.read(&path) {
                Ok(loaded) => {
                    if problem.is_some() && index_of(&loaded.meta) < purged {
                        break;
                    }
                    if let Some(error) = problem {
                        let error: SnapshotError = error;
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the newest snapshot does not read; going on from an older one and the log"
                        );
                    }
                    let size = fs::metadata(&path).map_err(io_error("measure", &path))?.len();
                    *snapshots.newest() = Some(Newest { meta: loaded.meta.clone(), path, size });
                    return Ok((snapshots, Some(loaded)));
                }
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        match problem {
            Some(error) => Err(error),
            None => Ok((snapshots, None)),
        }
    }

    pub(crate) fn newest(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a snapshot and makes it the newest, durably; older ones than the last two go. Blocking.
    pub(crate) fn write(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), SnapshotError> {
        // Names sort by place: the newest is the last.
        let (index, term) = meta.last_log_id.as_ref().map_or((0, 0), |id| (id.index, id.leader_id.term));
        let path = self.dir.join(format!("{index:020}-{term:020}{SUFFIX}"));
        let unfinished = self.dir.join("writing");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&unfinished).map_err(io_error("create", &unfinished))?;
        let mut out = BufWriter::new(&file);
        self.write_to(&mut out, meta, data, &unfinished)?;
        out.flush().map_err(io_error("write", &unfinished))?;
        drop(out);
        file.sync_all().map_err(io_error("sync", &unfinished))?;
        let size = file.metadata().map_err(io_error("measure", &unfinished))?.len();

        let mut newest = self.newest();
        fs::rename(&unfinished, &path).map_err(io_error("rename a snapshot to", &path))?;
        self.sync_dir()?;
        if newest.as_ref().is_none_or(|newest| index_of(&newest.meta) <= index_of(meta)) {
            *newest = Some(Newest { meta: meta.clone(), path, size });
        }
        for old in self.files()?.iter().skip(KEPT) {
            fs::remove_file(old).map_err(io_error("remove", old))?;
        }
        Ok(())
    }

    /// Reads the newest snapshot back. Blocking.
    pub(crate) fn load_newest(&self) -> Result<Option<Loaded>, SnapshotError> {
        let newest = self.newest().clone();
        newest.map(|newest| self.read(&newest.path)).transpose()
    }

    /// Snapshot files, the newest first.
    fn files(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                files.push(path);
            }
        }
        files.sort();
        files.reverse();
        Ok(files)
    }

    fn sync_dir(&self) -> Result<(), SnapshotError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &self.dir))
    }

    fn write_to(
        &self,
        out: &mut impl Write,
        meta: &SnapshotMeta,
        data: &[u8],
        path: &Path,
    ) -> Result<(), SnapshotError> {
        let mut salt = [0; 16];
        fill_random(&mut salt)?;
        let header = encode_header(&self.key, salt, meta);
        let key = self.key.derive(Purpose::Snapshot(salt));
        let written = out.write_all(&header).and_then(|()| write_chunks(out, &key, &header, data));
        written.map_err(io_error("write", path))
    }

    fn read(&self, path: &Path) -> Result<Loaded, SnapshotError> {
        let mut bytes = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io_error("read", path))?;
        let damaged = |detail: &str| SnapshotError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        let mut input = bytes.as_slice();
        if input.split_off(..8) != Some(&MAGIC) {
            return Err(damaged("it does not start as a snapshot does"));
        }
        let format = input.try_get_u16_le().map_err(|_| damaged("it is cut short"))?;
        if format != FORMAT {
            return Err(SnapshotError::Format { path: path.to_owned(), format });
        }
        let length = input.try_get_u32_le().map_err(|_| damaged("it is cut short"))? as usize;
        let fields = input.split_off(..length).ok_or_else(|| damaged("it is cut short"))?;
        let header = &bytes[..bytes.len() - input.len()];
        let Header { key_id, salt, meta } = decode_header(fields).map_err(|reason| damaged(&reason))?;
        if key_id != self.key.id() {
            let (found, given) = (hex(&key_id), hex(&self.key.id()));
            return Err(SnapshotError::WrongKey { path: path.to_owned(), found, given });
        }
        let key = self.key.derive(Purpose::Snapshot(salt));
        let data = read_chunks(&key, header, input).map_err(|detail| damaged(&detail))?;
        Ok(Loaded { meta, data })
    }
}

struct Header {
    key_id: [u8; 8],
    salt: [u8; 16],
    meta: SnapshotMeta,
}

fn encode_header(key: &DataKey, salt: [u8; 16], meta: &SnapshotMeta) -> Vec<u8> {
    let mut fields = Vec::new();
    fields.put_slice(&key.id());
    fields.put_slice(&salt);
    put_pos(&mut fields, meta.last_log_id.as_ref().map(pos_of));
    put_pos(&mut fields, meta.last_membership.log_id().as_ref().map(pos_of));
    fields.put_slice(&encode_membership(meta.last_membership.membership()));
    let mut header = MAGIC.to_vec();
    header.put_u16_le(FORMAT);
    header.put_u32_le(u32::try_from(fields.len()).expect("a list of managers is short"));
    header.extend(fields);
    header
}

fn decode_header(mut fields: &[u8]) -> Result<Header, String> {
    let short = |_| "its header is cut short".to_owned();
    let mut header = Header { key_id: [0; 8], salt: [0; 16], meta: SnapshotMeta::default() };
    fields.try_copy_to_slice(&mut header.key_id).map_err(short)?;
    fields.try_copy_to_slice(&mut header.salt).map_err(short)?;
    let last = get_pos(&mut fields).map_err(short)?;
    let membership_at = get_pos(&mut fields).map_err(short)?;
    let members = decode_membership(fields).map_err(|error: MembershipError| error.to_string())?;
    header.meta.last_log_id = last.as_ref().map(log_id_of);
    header.meta.last_membership = StoredMembership::new(membership_at.as_ref().map(log_id_of), members);
    Ok(header)
}

/// Writes `data` in sealed chunks behind `header`, which the seals cover.
pub(crate) fn write_chunks(out: &mut impl Write, key: &FileKey, header: &[u8], data: &[u8]) -> io::Result<()> {
    let mut chunks = data.chunks(CHUNK).peekable();
    let mut number = 0;
    loop {
        let mut chunk = chunks.next().unwrap_or_default().to_vec();
        let last = chunks.peek().is_none();
        let mut length = u32::try_from(chunk.len()).expect("a chunk is small");
        if last {
            length |= LAST;
        }
        key.seal(nonce(number), &context(header, length), &mut chunk, 0);
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&chunk)?;
        number += 1;
        if last {
            return Ok(());
        }
    }
}

/// What [`write_chunks`] wrote; what is wrong otherwise.
pub(crate) fn read_chunks(key: &FileKey, header: &[u8], mut input: &[u8]) -> Result<Bytes, String> {
    let mut data = Vec::with_capacity(input.len());
    let mut number = 0;
    loop {
        let length = input.try_get_u32_le().map_err(|_| format!("it ends before chunk {number}"))?;
        let size = (length & !LAST) as usize;
        let sealed =
            input.split_off(..size.saturating_add(TAG)).ok_or_else(|| format!("chunk {number} is cut short"))?;
        let mut sealed = sealed.to_vec();
        let chunk = key
            .open(nonce(number), &context(header, length), &mut sealed)
            .map_err(|error| format!("chunk {number} {error}"))?;
        data.extend_from_slice(chunk);
        number += 1;
        if length & LAST != 0 {
            return if input.is_empty() { Ok(data.into()) } else { Err("bytes follow its last chunk".to_owned()) };
        }
    }
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce
}

fn context(header: &[u8], length: u32) -> Vec<u8> {
    let mut context = header.to_vec();
    context.put_u32_le(length);
    context
}

fn put_pos(out: &mut Vec<u8>, pos: Option<LogPos>) {
    out.put_u8(u8::from(pos.is_some()));
    let LogPos { term, node, index } = pos.unwrap_or(LogPos { term: 0, node: 0, index: 0 });
    [term, node, index].into_iter().for_each(|value| out.put_u64_le(value));
}

fn get_pos(input: &mut &[u8]) -> Result<Option<LogPos>, bytes::TryGetError> {
    let present = input.try_get_u8()? != 0;
    let pos = LogPos { term: input.try_get_u64_le()?, node: input.try_get_u64_le()?, index: input.try_get_u64_le()? };
    Ok(present.then_some(pos))
}

fn index_of(meta: &SnapshotMeta) -> Option<u64> {
    meta.last_log_id.as_ref().map(|id| id.index)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io { action, path: path.to_owned(), source }
}
