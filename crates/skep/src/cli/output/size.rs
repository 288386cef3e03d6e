//! Sizes as Docker writes them.

const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
const BINARY_UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DIGITS: i32 = 3;

/// Three digits and a power of 1000: `142MB`, `13.3kB`.
pub fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, UNITS)
}

/// The same with powers of 1024: `64MiB`, as Docker shows memory.
pub fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, BINARY_UNITS)
}

fn scaled(bytes: u64, base: f64, units: [&str; 6]) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    let whole = if size < 1.0 { 1 } else { size.log10().floor() as i32 + 1 };
    let decimals = usize::try_from(DIGITS - whole).unwrap_or(0);
    let text = format!("{size:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_docker() {
        assert_eq!(decimal(0), "0B");
        assert_eq!(decimal(13_256), "13.3kB");
        assert_eq!(decimal(142_000_000), "142MB");
        assert_eq!(decimal(1_040_000_000), "1.04GB");
    }
}
