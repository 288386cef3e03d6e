//! Reads a tar stream entry by entry: old, ustar, GNU and PAX formats.
//!
//! The tar crate gives the header's layout; the walk over blocks is ours, so that sizes of extension headers are
//! bounded and a PAX size moves the stream as it should (both were holes of tar readers: RUSTSEC-2026-0068).
//! Knows nothing about the file system: names come out as written.

use std::ffi::CString;
use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, Header};

use super::error::UnpackError;
use super::header::{Pax, number, timespec};

const BLOCK: u64 = 512;
/// Linux takes no path over 4096 bytes; xattrs of one file are at most 64 KiB each on the usual file systems.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits only.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timespec,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(CString, Vec<u8>)>,
}

pub(crate) struct Archive<R> {
    reader: R,
    /// Of the current entry: content not yet read, and the padding after it.
    content: u64,
    padding: u64,
}

/// Extension headers in front of an entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Archive<R> {
        Archive { reader, content: 0, padding: 0 }
    }

    /// The next entry; its content is what `read` gives until the next call.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| malformed("a size is not a number"))?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                EntryType::XHeader => {
                    extensions.pax = Pax::parse(&self.extension(size)?).map_err(UnpackError::Archive)?
                }
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    /// Reads up to the end of the stream: what follows the archive's end mark belongs to the layer's digest.
    pub(crate) fn finish(mut self) -> Result<R, UnpackError> {
        io::copy(&mut self.reader, &mut io::sink())?;
        Ok(self.reader)
    }

    /// `None` at the end: a block of zeros, or the end of the stream between entries.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0u8; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.reader.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("it ends in the middle of a header")),
                n => filled += n,
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let stated = number(&header.as_old().cksum);
        // Historic writers summed signed bytes (POSIX.1 says unsigned); both are accepted, as everywhere.
        let with_blanks = || block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
        let unsigned: i64 = with_blanks().map(i64::from).sum();
        let signed: i64 = with_blanks().map(|b| i64::from(b as i8)).sum();
        if stated != Some(unsigned) && stated != Some(signed) {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(malformed(&format!("an extension header has {size} bytes, more than {EXTENSION_BYTES_MAX}")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let read = (&mut self.reader).take(size).read_to_end(&mut bytes)?;
        if read as u64 != size {
            return Err(malformed("it ends in the middle of an extension header"));
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Entry, UnpackError> {
        let Extensions { path, link, pax } = extensions;
        let path = pax.path.or(path).unwrap_or_else(|| header.path_bytes().into_owned());
        if pax.sparse || header.entry_type() == EntryType::GNUSparse {
            return Err(UnpackError::refused(
                &path,
                "it is stored sparse, which image layers should not use: write the layer without --sparse",
            ));
        }
        let kind = kind(header, &path)?;
        let old = header.as_old();
        let field = |field: &[u8], name: &str| {
            number(field).ok_or_else(|| UnpackError::refused(&path, format!("its {name} is not a number")))
        };
        let owner = |pax: Option<u64>, header: &[u8], name: &str| {
            let id = pax.map_or_else(|| field(header, name), |id| i64::try_from(id).or(Ok(-1)))?;
            // The last id means "leave as it is" to chown.
            let valid = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            valid.ok_or_else(|| UnpackError::refused(&path, format!("its {name} {id} is out of range")))
        };
        let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        let entry = Entry {
            link: pax.link.or(link).unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            kind,
            mode: (field(&old.mode, "mode")? & 0o7777) as u32,
            uid: owner(pax.uid, &old.uid, "owner")?,
            gid: owner(pax.gid, &old.gid, "group")?,
            mtime: timespec(pax.mtime.map_or_else(|| field(&old.mtime, "time").map(|s| (s, 0)), Ok)?),
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: pax.xattrs,
            path,
        };
        // Only files have content. Links often carry the size of their target, without its bytes.
        self.content = if entry.kind == Kind::File { pax.size.unwrap_or(size) } else { 0 };
        self.padding = padding(self.content);
        if self.content > u64::MAX - BLOCK {
            return Err(UnpackError::refused(&entry.path, "its size is out of range"));
        }
        Ok(entry)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), UnpackError> {
        let skipped = io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(malformed("it ends in the middle of an entry")) }
    }
}

/// The content of the current entry; fails if the stream ends before the content does.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX).min(buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buf[..wanted])?;
        if n == 0 {
            return Err(io::Error::other(malformed("it ends in the middle of a file")));
        }
        self.content -= n as u64;
        Ok(n)
    }
}

fn kind(header: &Header, path: &[u8]) -> Result<Kind, UnpackError> {
    Ok(match header.entry_type() {
        // Before ustar, a folder was a file with a slash at the end.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        other => {
            let flag = char::from(other.as_byte()).escape_debug().to_string();
            return Err(UnpackError::refused(
                path,
                format!("tar entries of type `{flag}` are not known in image layers"),
            ));
        }
    })
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn malformed(problem: &str) -> UnpackError {
    UnpackError::Archive(problem.to_owned())
}
