//! The archive format that the kernel unpacks at boot: cpio "newc", as in the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// An archive under construction; all in it belongs to root and is executable.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, content);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a boot archive's files are far below 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("names are short");
        let (links, zero) = (1, 0);
        let fields = [self.entries, mode, zero, zero, links, zero, size, zero, zero, zero, zero, name, zero];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn busybox_reads_it() {
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", b"odd");
        let bytes = archive.finish();
        let busybox = crate::tools::find_tool("busybox").unwrap();
        let mut child = Command::new(busybox)
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"a\na/b\n");
    }
}
