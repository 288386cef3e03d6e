//! The block device under a folder: what was written to it, the file system's journal included.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longer than ext4 keeps a transaction open (5 s, `commit` in ext4(5)).
const QUIET: Duration = Duration::from_secs(6);
const ATTEMPTS: u32 = 20;

pub struct Device {
    stat: PathBuf,
}

impl Device {
    pub fn of(folder: &Path) -> Result<Device> {
        let number = std::fs::metadata(folder).with_context(|| format!("cannot see {}", folder.display()))?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Ok(Device { stat: PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat")) })
    }

    /// Bytes written since the device was made.
    pub fn written(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(&self.stat)
            .with_context(|| format!("cannot read {}: the folder must be on a block device", self.stat.display()))?;
        let sectors: u64 = stat.split_whitespace().nth(6).context("no sectors written there")?.parse()?;
        Ok(sectors * 512)
    }

    /// Waits until the kernel has written back what others left: no bytes for several seconds.
    pub fn settle(&self) -> Result<()> {
        rustix::fs::sync();
        for _ in 0..ATTEMPTS {
            let before = self.written()?;
            thread::sleep(QUIET);
            if self.written()? == before {
                return Ok(());
            }
        }
        bail!("somebody else keeps writing to this device: give the benchmark one of its own")
    }
}
