//! Trees as text, so that two of them can be compared: kind, mode, owner, size, time, links, attributes, content.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io};

use skep_image::Digest;

/// Extended attributes without following a link.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        found.insert(String::from_utf8(name.to_vec()).unwrap(), value);
    }
    found
}

/// One line per name below `root`, `root` itself included.
pub fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_name_of: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            let mut below: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            // Taken from the end: names come in order.
            below.sort_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
            queue.extend(below);
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {:o} {:x}", meta.mode() & 0o170000, meta.rdev())
        } else if kind.is_file() {
            format!("file {} {}", meta.size(), content(&path).unwrap())
        } else {
            "fifo".to_owned()
        };
        let same = (meta.nlink() > 1 && !meta.is_dir()).then(|| {
            let first = first_name_of.entry(meta.ino()).or_insert_with(|| name.clone());
            format!(" same as {}", first.display())
        });
        lines.push(format!(
            "{} {:04o} {}:{} {}.{:09} {what}{} {:?}",
            name.display(),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            same.unwrap_or_default(),
            xattrs(&path),
        ));
    }
    lines
}

fn content(path: &Path) -> io::Result<Digest> {
    Ok(Digest::of(&fs::read(path)?))
}

/// Asserts equality and shows only what differs.
pub fn assert_same(ours: &[String], theirs: &[String], who: &str) {
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|line| !b.contains(line)).take(20).cloned().collect::<Vec<_>>().join("\n  ")
    };
    let (mine, other) = (only(ours, theirs), only(theirs, ours));
    assert!(mine.is_empty() && other.is_empty(), "only ours:\n  {mine}\nonly {who}'s:\n  {other}");
    assert_eq!(ours.len(), theirs.len());
}
