//! One entry as a json-file line, byte for byte as moby's encoder writes it.

use super::Stream;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `{"log":"…","stream":"…","time":"…"}` and a newline. `text` is what the program wrote; `ends_line` adds the
/// newline that the line was split at.
pub(super) fn entry(out: &mut Vec<u8>, stream: Stream, text: &[u8], ends_line: bool, time: &str) {
    out.push(b'{');
    // An empty `log` is left out; it happens only to the empty rest of an unfinished line, which is not written at all.
    out.extend(b"\"log\":\"");
    string(out, text);
    if ends_line {
        out.extend(b"\\n");
    }
    out.extend(b"\",\"stream\":\"");
    out.extend(stream.name().bytes());
    out.extend(b"\",\"time\":\"");
    out.extend(time.bytes());
    out.extend(b"\"}\n");
}

/// Go's JSON string: `<`, `>`, `&`, U+2028 and U+2029 are escaped (safe inside HTML and JavaScript), every byte that is
/// not part of valid UTF-8 becomes U+FFFD, one for one.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        valid(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend(b"\\ufffd");
        }
    }
}

fn valid(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let width = match byte {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..0x20 => 1,
            0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => 3,
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend(&bytes[plain_from..at]);
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            0xe2 => out.extend([b'\\', b'u', b'2', b'0', b'2', HEX[usize::from(bytes[at + 2] & 0xf)]]),
            byte => out.extend([b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]),
        }
        at += width;
        plain_from = at;
    }
    out.extend(&bytes[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], expected: &str) {
        let mut out = Vec::new();
        string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        check(b"plain \xc3\xa9", "plain é");
        check(b"a\"b\\c", r#"a\"b\\c"#);
        check(b"\n\r\t\x00\x1b\x7f", "\\n\\r\\u0009\\u0000\\u001b\x7f");
        check(b"<a & b>", r"\u003ca \u0026 b\u003e");
        check("x\u{2028}y\u{2029}\u{2027}".as_bytes(), "x\\u2028y\\u2029\u{2027}");
    }

    #[test]
    fn each_invalid_byte_is_one_replacement() {
        check(b"\xff\xfe!", r"\ufffd\ufffd!");
        // A rune cut in the middle: Go steps one byte at a time.
        check(b"a\xe2\x82", r"a\ufffd\ufffd");
        check(b"\xed\xa0\x80", r"\ufffd\ufffd\ufffd");
    }

    #[test]
    fn a_line_is_the_one_docker_writes() {
        let mut out = Vec::new();
        entry(&mut out, Stream::Stderr, b"hi", true, "2024-01-02T03:04:05Z");
        entry(&mut out, Stream::Stdout, b"par", false, "2024-01-02T03:04:05Z");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"log\":\"hi\\n\",\"stream\":\"stderr\",\"time\":\"2024-01-02T03:04:05Z\"}\n\
             {\"log\":\"par\",\"stream\":\"stdout\",\"time\":\"2024-01-02T03:04:05Z\"}\n"
        );
    }
}
