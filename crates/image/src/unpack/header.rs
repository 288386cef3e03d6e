//! Fields of tar headers and PAX records, read as other implementations do where archives stray from the format.
//!
//! Own readers instead of the tar crate's for three reasons: numbers may be blank or negative, PAX values (binary
//! extended attributes) may contain newlines, and an extension header's size is an attacker's choice.

use std::ffi::CString;

use rustix::fs::Timespec;

/// An octal or base-256 field; blank is 0 (as in Go's archive/tar and GNU tar).
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement, big-endian, the top bit of the first byte being only the mark.
        let negative = first & 0x40 != 0;
        let start = if negative { -1i64 } else { 0 };
        let mut bytes = field.iter().enumerate().map(|(i, b)| match (i, negative) {
            (0, false) => b & 0x7f,
            _ => *b,
        });
        return bytes.try_fold(start, |value, byte| Some(value.checked_mul(256)? | i64::from(byte)));
    }
    let text = field.split(|b| *b == 0).next()?;
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok().filter(|n| *n >= 0) }
}

/// What PAX records say about the next entry.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, i64)>,
    pub(crate) xattrs: Vec<(CString, Vec<u8>)>,
    pub(crate) sparse: bool,
}

impl Pax {
    /// Parses `LENGTH KEY=VALUE\n` records (POSIX.1-2017 pax); `Err` says what is malformed.
    pub(crate) fn parse(mut records: &[u8]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        while !records.is_empty() {
            // Some writers pad the last record's block with NULs inside the declared size.
            if records.iter().all(|b| *b == 0) {
                break;
            }
            let (key, value, rest) = split_record(records).ok_or("malformed PAX record")?;
            pax.set(key, value)?;
            records = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let name = CString::new(name).map_err(|_| "NUL in the name of an extended attribute")?;
            self.xattrs.push((name, value.to_vec()));
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            self.sparse = true;
            return Ok(());
        }
        // An empty value takes back what a global header said; those are not applied here.
        if value.is_empty() {
            return Ok(());
        }
        let text = || std::str::from_utf8(value).map_err(|_| format!("PAX {} is not a number", lossy(key)));
        let unsigned = || text()?.parse::<u64>().map_err(|_| format!("PAX {} is not a number", lossy(key)));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(unsigned()?),
            b"uid" => self.uid = Some(unsigned()?),
            b"gid" => self.gid = Some(unsigned()?),
            b"mtime" => self.mtime = Some(decimal_time(text()?).ok_or("PAX mtime is not a time")?),
            _ => {}
        }
        Ok(())
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

/// `-12.5` → seconds rounded down and nanoseconds.
fn decimal_time(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{fraction:0<9}");
    let nanoseconds: i64 = digits[..9].parse().ok()?;
    match text.starts_with('-') && nanoseconds > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some((seconds, nanoseconds)),
    }
}

pub(crate) fn timespec((tv_sec, tv_nsec): (i64, i64)) -> Timespec {
    Timespec { tv_sec, tv_nsec: tv_nsec as _ }
}

fn lossy(bytes: &[u8]) -> String {
    super::error::printable(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_in_every_form_that_writers_use() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"77777777777 "), Some(0o77777777777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\x00"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b"0000-44\0"), None);
        assert_eq!(number(b"-000044\0"), None);
    }

    #[test]
    fn pax_values_may_contain_newlines_and_times_may_be_negative() {
        let record = |key: &str, value: &[u8]| {
            let body = key.len() + value.len() + 3;
            let length = (1..4).map(|digits| body + digits).find(|n| n.to_string().len() + body == *n).unwrap();
            [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
        };
        let records = [
            record("SCHILY.xattr.security.capability", b"\x01\n\x00="),
            record("mtime", b"-1.25"),
            record("path", b"a\nb"),
        ];
        let pax = Pax::parse(&records.concat()).unwrap();
        assert_eq!(pax.xattrs, [(c"security.capability".to_owned(), b"\x01\n\x00=".to_vec())]);
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome_does_not_matter = (number(&bytes), Pax::parse(&bytes));
        }

        #[test]
        fn records_with_wild_lengths_end(length in any::<u64>(), tail in "[a-z=\n ]{0,40}") {
            let _outcome_does_not_matter = Pax::parse(format!("{length} {tail}").as_bytes());
        }
    }
}
