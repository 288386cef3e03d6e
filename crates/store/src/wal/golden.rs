//! The log's bytes as released: they must stay readable, and a frame must only read where it was written.

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::format::*;
use super::record::*;
use crate::DataKey;
use crate::key::Purpose;

fn header() -> SegmentHeader {
    let pos = |index| LogPos { term: 3, node: 1, index };
    let checkpoint = Checkpoint {
        vote: Some(Ballot { term: 3, node: 1, committed: true }),
        committed: Some(pos(40)),
        purged: None,
        last: Some(pos(41)),
    };
    SegmentHeader { seq: 2, node: 1, key_id: DataKey::from_bytes([1; 32]).id(), first_frame: 17, checkpoint }
}

fn records() -> Vec<Record> {
    let pos = LogPos { term: 3, node: 1, index: 42 };
    let entry = EntryRecord { pos, kind: PayloadKind::Normal, payload: Bytes::from_static(b"payload") };
    vec![
        Record::Vote(Ballot { term: 4, node: 2, committed: false }),
        Record::Entry(entry),
        Record::Committed(pos),
        Record::TruncateAfter(None),
        Record::TruncateAfter(Some(pos)),
        Record::Purge(pos),
    ]
}

fn check_hex(bytes: &[u8], expected: Expect) {
    let lines = bytes.chunks(32).map(crate::key::hex);
    expected.assert_eq(&lines.collect::<Vec<_>>().join("\n"));
}

/// Logs of format 1 are out there: these bytes must never change, nor stop being readable.
#[test]
fn golden_bytes_of_format_1() {
    let header = header();
    let bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    check_hex(
        &bytes,
        expect![[r#"
        534b455057414c0a0100020000000000000001000000000000008fe53ca741c5
        bb2b110000000000000001030000000000000001000000000000000101030000
        0000000000010000000000000028000000000000000000000000000000000000
        0000000000000000000000000000010300000000000000010000000000000029
        0000000000000006db311e"#]],
    );

    let mut body = Vec::new();
    records().iter().for_each(|record| put_record(&mut body, record));
    check_hex(
        &body,
        expect![[r#"
        1300000002010400000000000000020000000000000000210000000101030000
        000000000001000000000000002a000000000000007061796c6f61641a000000
        0301030000000000000001000000000000002a000000000000001a0000000400
        0000000000000000000000000000000000000000000000001a00000004010300
        00000000000001000000000000002a000000000000001a000000050103000000
        0000000001000000000000002a00000000000000"#]],
    );

    let key = DataKey::from_bytes([1; 32]).derive(Purpose::Segment(2));
    let frame = encode_frame(&key, &bytes, 17, [5; 12], &body);
    let found = find_frame(key.salt, &frame).expect("a frame finds itself");
    assert_eq!((found.number, found.size), (17, BLOCK));
    assert_eq!(open_frame(&key, &bytes, found, &frame), Ok(records()));
    check_hex(
        &frame[..288],
        expect![[r#"
        536b46721100000000000000b4000000050505050505050505050505b474204a
        c67072aff93ae35068edcde29d70f5242beec91bff0d7900f4e78ef1992dc37d
        1c00afe82bfe3061d9d4558038e6f692791554f9937ed8924428d2354a6346b3
        a0cc88296f919461c49cbe18e171a826efb8c1fed107c8ed73e73343fec2eae9
        c39d8417c185f4bce9c5e44bfecaba84afbf9b4bd717b8dd65934590bc3fc1ab
        045ff62c94bbf88ed683edd181d3eb337e33efb47ae12d5e4d5622650fae4bdd
        3a6568261d83f9e8acd680e03fcc1f7861cc0ae3f90be46691b94879f20835c9
        477a87b600000000000000000000000000000000000000000000000000000000
        0000000000000000000000000000000000000000000000000000000000000000"#]],
    );
    assert!(frame[288..].iter().all(|byte| *byte == 0));
}

#[test]
fn frame_of_another_segment_does_not_parse() {
    let data_key = DataKey::from_bytes([1; 32]);
    let key = data_key.derive(Purpose::Segment(2));
    let frame = encode_frame(&key, &header().encode(), 17, [5; 12], b"");
    let next = data_key.derive(Purpose::Segment(3));
    assert_eq!(find_frame(next.salt, &frame), Err(FormatError::FrameChecksum));
    let found = find_frame(key.salt, &frame).expect("its own salt finds it");
    let other = SegmentHeader { first_frame: 16, ..header() };
    assert_eq!(open_frame(&key, &other.encode(), found, &frame), Err(FormatError::Sealed));
}
