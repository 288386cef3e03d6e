//! The log's and the snapshot's bytes.

use proptest::prelude::*;
use skep_api::{
    ASSIGNMENTS_FORMAT, AssignedContent, Assignment, AssignmentKey, Assignments, CHANGES_FORMAT, CLUSTER_FORMAT,
    DecodeError, decode_assignments, decode_changes, decode_cluster, encode_assignments, encode_changes,
    encode_cluster,
};
use skep_model::{Change, Cluster, ContentDigest, Task, TaskId, Version};

use crate::arbitrary::draw;
use crate::session::assignments;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_change_survives(seed: u64) {
        let changes: Vec<Change> = draw(seed);
        let bytes = encode_changes(&changes);
        prop_assert_eq!(&decode_changes(&bytes).unwrap(), &changes);
        prop_assert_eq!(encode_changes(&decode_changes(&bytes).unwrap()), bytes);
    }

    #[test]
    fn a_cut_proposal_never_passes_for_another(seed: u64, cut: prop::sample::Index) {
        let changes: Vec<Change> = draw(seed);
        let bytes = encode_changes(&changes);
        let part = &bytes[..cut.index(bytes.len())];
        // A cut exactly between two changes reads as the first ones: the log's own length and checksum cover that.
        if let Ok(read) = decode_changes(part) {
            prop_assert_eq!(&read[..], &changes[..read.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_cluster_survives(seed: u64) {
        let cluster = cluster(seed);
        let bytes = encode_cluster(&cluster);
        let read = decode_cluster(&bytes).unwrap();
        prop_assert_eq!(encode_cluster(&read), bytes);
        prop_assert_eq!(read, cluster);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_set_of_assignments_survives(seed in 0..u64::MAX - 1) {
        let set = assignments(seed);
        prop_assert_eq!(decode_assignments(&encode_assignments(&set)).unwrap(), set);
    }
}

fn cluster(seed: u64) -> Cluster {
    // Indexes cannot hold two stacks or services of one name: names are drawn as ids, so they do not meet.
    let tables = (draw(seed), draw(seed + 1), draw(seed + 2), draw::<Vec<Task>>(seed + 3), draw(seed + 4));
    let (config, nodes, services, tasks, networks) = tables;
    let (secrets, configs, stacks) = (draw(seed + 5), draw(seed + 6), draw(seed + 7));
    Cluster::from_tables(Version(seed), config, nodes, services, tasks, networks, secrets, configs, stacks)
}

#[test]
fn an_unknown_format_is_refused_with_both_numbers() {
    let mut bytes = encode_changes(&[]);
    bytes[1] = 9;
    let refused = decode_changes(&bytes).unwrap_err();
    assert_eq!(refused, DecodeError::Format { found: 9, known: CHANGES_FORMAT });
    assert!(decode_cluster(&[]).is_err());
    assert_eq!(decode_cluster(&[0, 7]).unwrap_err(), DecodeError::Format { found: 7, known: CLUSTER_FORMAT });
    assert_eq!(decode_assignments(&[0, 7]).unwrap_err(), DecodeError::Format { found: 7, known: ASSIGNMENTS_FORMAT });
}

#[test]
fn an_unknown_kind_of_change_is_refused() {
    let known = encode_changes(&[Change::RemoveTask { task: TaskId::from_u128(1) }]);
    // Field 16 of the `oneof` becomes field 100: tag (16 << 3 | 2) is two bytes, and so is (100 << 3 | 2).
    let mut unknown = known.clone();
    let at = known.windows(2).position(|tag| tag == [0x82, 0x01]).expect("the tag of remove_task");
    unknown[at..at + 2].copy_from_slice(&[0xa2, 0x06]);
    let refused = decode_changes(&unknown).unwrap_err();
    assert_eq!(refused, DecodeError::UnknownChoice { field: "Change.kind" });
}

#[test]
fn a_missing_field_is_named() {
    // A proposal with one change, `remove_task`, whose message is empty.
    let refused = decode_changes(&[0, 1, 0x0a, 3, 0x82, 0x01, 0]).unwrap_err();
    assert_eq!(refused.to_string(), "field RemoveTask.task is missing");
}

#[test]
fn the_first_format_is_written_as_ever() {
    let task = TaskId::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let changes = [
        Change::RemoveTask { task },
        Change::RemoveStack { name: "counter".to_owned() },
        Change::SetTaskPending { task, reason: Some("no node".to_owned()), at: skep_model::Timestamp(5) },
    ];
    let golden = "00010a158201120a100102030405060708090a0b0c0d0e0f100a0ce201090a07636f756e7465720a26622\
                  40a100102030405060708090a0b0c0d0e0f1012076e6f206e6f6465190500000000000000";
    assert_eq!(hex(&encode_changes(&changes)), golden);

    let tunnel = Change::SetNodeTunnel {
        node: skep_model::NodeId::from_u128(task.as_u128()),
        key: skep_model::TunnelKey([0xab; 32]),
        endpoint: "10.0.0.1:7377".parse().ok(),
        at: skep_model::Timestamp(5),
    };
    assert_eq!(
        hex(&encode_changes(&[tunnel])),
        "00010a4f92034c0a100102030405060708090a0b0c0d0e0f101220ababababababababababababababababababababababab\
                ababababababababab1a0d31302e302e302e313a37333737210500000000000000"
    );

    let digest = ContentDigest("d".to_owned());
    let content =
        AssignedContent { digest: digest.clone(), name: "n".to_owned(), data: bytes::Bytes::from_static(b"x") };
    let assignments = Assignments {
        base: None,
        revision: 3,
        set: vec![Assignment::Secret(content)],
        removed: vec![AssignmentKey::Task(task), AssignmentKey::Config(digest)],
    };
    let golden = "000110031a0b12090a016412016e1a017822120a100102030405060708090a0b0c0d0e0f1022031a0164";
    assert_eq!(hex(&encode_assignments(&assignments)), golden);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
