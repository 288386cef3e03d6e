//! How much one layer may take.

/// Bounds on one layer. The defaults leave room for every real image and stop what is built to exhaust a node.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the uncompressed archive.
    pub layer_bytes_max: u64,
    /// Files, folders and links, those included that the archive only implies.
    pub entries_max: u64,
    /// Uncompressed per compressed byte, beyond the first `ratio_free_bytes`. gzip cannot exceed 1032.
    pub ratio_max: u64,
    pub ratio_free_bytes: u64,
    /// Free bytes that images leave on their file system.
    pub disk_reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            layer_bytes_max: 256 << 30,
            entries_max: 4_000_000,
            ratio_max: 1100,
            ratio_free_bytes: 1 << 30,
            disk_reserve_bytes: 128 << 20,
        }
    }
}
