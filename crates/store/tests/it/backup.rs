//! Backups: read back with their passphrase, and by nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use skep_model::{Cluster, ClusterConfig, ClusterSpec, Id, JoinTokenHashes, Meta, Timestamp};
use skep_store::{BackupError, read_backup, write_backup};
use tempfile::TempDir;

use crate::notes::note;

fn cluster() -> Cluster {
    let config = ClusterConfig {
        id: Id::from_u128(77),
        meta: Meta::new(Timestamp(1)),
        spec: ClusterSpec::default(),
        ca_certificate: "certificate".into(),
        ca_key: "correct-horse-battery-staple".into(),
        join_tokens: JoinTokenHashes::default(),
        trust: Default::default(),
        next_raft_id: 2,
        unlock_key: None,
        level: 1,
    };
    let mut cluster = Cluster::default();
    let first = skep_model::Change::SetClusterConfig { config: Box::new(config), expected: None };
    cluster.apply(&first, 1).unwrap();
    // More than a chunk.
    for number in 0..40 {
        cluster.apply(&note(number, &"text ".repeat(3000)), 2 + number).unwrap();
    }
    cluster
}

#[test]
fn a_backup_is_read_back_with_its_passphrase_and_only_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cluster.backup");
    let before = cluster();
    let written = write_backup(&path, b"open sesame", &before, Timestamp(5)).unwrap();
    assert_eq!((written.cluster, written.version, written.made_at), (Id::from_u128(77), before.version, Timestamp(5)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let bytes = fs::read(&path).unwrap();
    let secret = b"correct-horse-battery-staple";
    assert!(!bytes.windows(secret.len()).any(|window| window == secret));

    let (header, after) = read_backup(&path, b"open sesame").unwrap();
    assert_eq!((header, after), (written, before.clone()));
    let wrong = read_backup(&path, b"open barley").unwrap_err();
    assert!(matches!(wrong, BackupError::WrongPassphrase(_)), "{wrong}");
    let again = write_backup(&path, b"open sesame", &before, Timestamp(6)).unwrap_err();
    assert!(matches!(again, BackupError::Exists(_)), "{again}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "a backup replaces nothing");

    let broken = dir.path().join("broken");
    // In the cluster's id, in the content, and the last chunk.
    let mut changed = bytes.clone();
    changed[60] ^= 1;
    let mut content = bytes.clone();
    content[bytes.len() / 2] ^= 1;
    for damaged in [changed, content, bytes[..bytes.len() - 1].to_vec()] {
        fs::write(&broken, damaged).unwrap();
        let refused = read_backup(&broken, b"open sesame").unwrap_err();
        assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
    }
    fs::write(&broken, b"PK\x03\x04 something else").unwrap();
    assert!(matches!(read_backup(&broken, b"x").unwrap_err(), BackupError::NotABackup(_)));
}

#[test]
fn there_is_nothing_to_back_up_before_the_first_write() {
    let dir = TempDir::new().unwrap();
    let refused = write_backup(&dir.path().join("b"), b"x", &Cluster::default(), Timestamp(0)).unwrap_err();
    assert!(matches!(refused, BackupError::Empty), "{refused}");
}
