//! A json-file line back into an entry. Reads what Docker and other writers produce too: any key order, unknown keys
//! (`attrs`), every JSON escape.

use super::time::parse_time;
use super::{Entry, Stream};

/// `None` for a line that is not one of ours: torn by a power cut, or not a log at all.
pub(super) fn entry(line: &[u8]) -> Option<Entry> {
    let mut json = Json { rest: line.trim_ascii() };
    let (mut bytes, mut stream, mut time) = (Vec::new(), None, None);
    json.expect(b'{')?;
    loop {
        let key = json.string()?;
        json.expect(b':')?;
        match key.as_slice() {
            b"log" => bytes = json.string()?,
            b"stream" => {
                stream = match json.string()?.as_slice() {
                    b"stdout" => Some(Stream::Stdout),
                    b"stderr" => Some(Stream::Stderr),
                    _ => return None,
                }
            }
            b"time" => time = parse_time(std::str::from_utf8(&json.string()?).ok()?),
            _ => json.skip_value()?,
        }
        match json.next()? {
            b',' => {}
            b'}' if json.rest.is_empty() => break,
            _ => return None,
        }
    }
    Some(Entry { stream: stream?, time: time?, bytes })
}

struct Json<'a> {
    rest: &'a [u8],
}

impl Json<'_> {
    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.trim_ascii_start().split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            let plain = self.rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
            text.extend(&self.rest[..plain]);
            let end = self.rest[plain];
            self.rest = &self.rest[plain + 1..];
            match end {
                b'"' => return Some(text),
                _ => self.escape(&mut text)?,
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let (letter, rest) = self.rest.split_first()?;
        self.rest = rest;
        match letter {
            b'"' | b'\\' | b'/' => text.push(*letter),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'u' => {
                let unit = self.hex()?;
                let code = match unit {
                    0xd800..0xdc00 => self.low_surrogate(unit),
                    unit => Some(u32::from(unit)),
                };
                let rune = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend(rune.encode_utf8(&mut [0; 4]).bytes());
            }
            _ => return None,
        }
        Some(())
    }

    fn hex(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok()
    }

    /// A lone high surrogate is left for the caller to replace, and what follows it is not eaten.
    fn low_surrogate(&mut self, high: u16) -> Option<u32> {
        let before = self.rest;
        if let Some(rest) = self.rest.strip_prefix(b"\\u") {
            self.rest = rest;
            if let Some(low @ 0xdc00..0xe000) = self.hex() {
                return Some(0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(low) - 0xdc00));
            }
        }
        self.rest = before;
        None
    }

    /// Steps over a value of any kind, by its brackets and strings.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.rest.trim_ascii_start().first()? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.next();
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.next();
                }
                b',' | b'}' | b']' if depth == 0 => return Some(()),
                _ => drop(self.next()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "1970-01-01T00:00:01.5Z";

    #[test]
    fn unknown_keys_and_any_order_are_read() {
        let line = format!(
            r#" {{"time":"{TIME}", "attrs":{{"a":["}}",{{"b":1}}],"t":null}},"stream":"stderr","log":"x\u00e9\ud83d\ude00\/\t"}} "#
        );
        let expected =
            Entry {
                stream: Stream::Stderr, time: UNIX_EPOCH + Duration::from_millis(1500), bytes: "xé😀/\t".into()
            };
        assert_eq!(entry(line.as_bytes()), Some(expected));
    }

    #[test]
    fn torn_lines_are_refused() {
        let whole = format!(r#"{{"log":"a\"b\n","stream":"stdout","time":"{TIME}"}}"#);
        assert!(entry(whole.as_bytes()).is_some());
        for cut in 0..whole.len() {
            assert_eq!(entry(&whole.as_bytes()[..cut]), None, "cut at {cut}");
        }
        assert_eq!(entry(&vec![0; 4096]), None, "a power cut can leave zeros");
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(text in proptest::collection::vec(any::<u8>(), 0..200), ends in any::<bool>()) {
            let mut line = Vec::new();
            super::super::encode::entry(&mut line, Stream::Stdout, &text, ends, TIME);
            let expected: String = text.utf8_chunks().flat_map(|c| {
                c.valid().chars().chain(c.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER))
            }).chain(ends.then_some('\n')).collect();
            prop_assert_eq!(entry(&line).map(|e| e.bytes), Some(expected.into_bytes()));
        }

        #[test]
        fn no_input_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            entry(&line);
            let mut wrapped = b"{\"log\":\"".to_vec();
            wrapped.extend(&line);
            entry(&wrapped);
        }
    }
}
