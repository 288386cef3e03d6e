//! The names of a log's files: `x` is being written, `x.1` is the newest rotated one, then `x.2`, …

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `x` for 0, `x.index` else.
pub(super) fn name(path: &Path, index: u32) -> PathBuf {
    match index {
        0 => path.to_owned(),
        index => with_suffix(path, &index.to_string()),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// What tells two files apart while names move between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

pub(super) fn id_of(file: &File) -> io::Result<FileId> {
    let metadata = file.metadata()?;
    Ok(FileId(metadata.dev(), metadata.ino()))
}

/// `None` while the path does not exist.
pub(super) fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(FileId(metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every file of the log, oldest first, each once, also while it is being rotated.
///
/// Rotation only moves files to higher numbers, from the highest down, so walking upwards can meet a file twice but
/// cannot miss one; and it leaves at most one number without a file, so two in a row are the end.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<(FileId, File)>> {
    let mut files: Vec<(FileId, File)> = Vec::new();
    let mut gaps = 0;
    for index in 0.. {
        match File::open(name(path, index)) {
            Ok(file) => {
                gaps = 0;
                let id = id_of(&file)?;
                if !files.iter().any(|(seen, _)| *seen == id) {
                    files.push((id, file));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => gaps += 1,
            Err(error) => return Err(error),
        }
        if gaps == 2 {
            break;
        }
    }
    files.reverse();
    Ok(files)
}
