//! From the bytes of a layer blob to the bytes of its tar: gzip, zstd or plain, told apart by their first bytes
//! (media types are wrong often enough), and metered against bombs.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use super::error::UnpackError;
use super::limits::Limits;

const BUFFER: usize = 64 * 1024;
/// Largest back-reference distance that is accepted: what `zstd --ultra -22` needs. Longer ones take more memory
/// than a small node can give.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Reads the tar inside `compressed`, whatever its compression, to the end of the last member or frame.
pub(crate) fn open<R: Read + Send + 'static>(mut compressed: R) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0u8; 4];
    let mut known = 0;
    while known < magic.len() {
        match compressed.read(&mut magic[known..])? {
            0 => break,
            n => known += n,
        }
    }
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(magic).take(known as u64).chain(compressed));
    match magic {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => zstd_reader(whole),
        // A skippable frame in front of the data, as zstd:chunked has.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => zstd_reader(whole),
        _ => Ok(Box::new(whole)),
    }
}

fn zstd_reader<R: BufRead + Send + 'static>(reader: R) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

/// Stops a layer that grows out of proportion, or that would fill the disk.
pub(crate) struct Meter<R> {
    inner: R,
    limits: Limits,
    /// A folder on the file system that is written to.
    disk: OwnedFd,
    compressed_bytes: u64,
    bytes: u64,
    next_check: u64,
}

impl<R: Read> Meter<R> {
    /// Looking at the disk costs a system call; this much is written between two looks.
    const CHECK_EVERY: u64 = 16 << 20;

    pub(crate) fn new(inner: R, limits: Limits, disk: OwnedFd, compressed_bytes: u64) -> Meter<R> {
        Meter { inner, limits, disk, compressed_bytes, bytes: 0, next_check: 0 }
    }

    fn check(&self) -> Result<(), UnpackError> {
        let Limits { layer_bytes_max, ratio_max, ratio_free_bytes, disk_reserve_bytes, .. } = self.limits;
        if self.bytes > layer_bytes_max {
            return Err(UnpackError::Limit(format!("it unpacks to more than {layer_bytes_max} bytes")));
        }
        let proportion = self.compressed_bytes.saturating_mul(ratio_max).max(ratio_free_bytes);
        if self.bytes > proportion {
            let compressed = self.compressed_bytes;
            return Err(UnpackError::Limit(format!(
                "its {compressed} bytes unpack to more than {ratio_max} times as much, which only a decompression bomb does"
            )));
        }
        let disk = rustix::fs::fstatvfs(&self.disk).map_err(|e| UnpackError::folder("measure the disk of", e))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < disk_reserve_bytes {
            let reserve = disk_reserve_bytes >> 20;
            return Err(UnpackError::DiskFull(format!(": {} MiB free, {reserve} MiB are kept free", free >> 20)));
        }
        Ok(())
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        if self.bytes >= self.next_check && n > 0 {
            self.next_check = self.bytes + Self::CHECK_EVERY;
            self.check().map_err(io::Error::other)?;
        }
        Ok(n)
    }
}
