//! A node's identity on disk, and what the CA signs.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use skep_identity::{
    CaError, ClusterCa, Credentials, CredentialsError, FileError, GivenCaError, IdentityDir, ManagerKeys, NodeKey,
    UnlockKey,
};
use skep_model::{ClusterId, NodeId, Role, Timestamp};

use crate::support::{DAY, ca, days_ago, member, now};

#[test]
fn an_identity_survives_a_restart_and_nobody_else_can_read_it() -> Result<()> {
    let data = tempfile::tempdir()?;
    let dir = IdentityDir::new(data.path());
    assert!(dir.load()?.is_none());
    let ca = ca(1);
    let key = dir.key()?;
    assert_eq!(dir.key()?.to_pem(), key.to_pem(), "an interrupted join goes on with its key");
    let certificate = ca.issue(&key.request()?, NodeId::from_u128(5), Role::Worker, now(), 90 * DAY)?;
    let credentials = Credentials::new(key, &certificate, ca.certificate_pem())?;
    dir.store(&credentials)?;
    assert_eq!(dir.load()?.expect("stored").identity(), credentials.identity());

    let folder = data.path().join("identity");
    assert_eq!(folder.metadata()?.permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&folder)? {
        assert_eq!(entry?.metadata()?.permissions().mode() & 0o777, 0o600);
    }
    dir.remove()?;
    assert!(!folder.exists());
    dir.remove()?;
    Ok(())
}

#[test]
fn half_an_identity_says_what_is_missing() -> Result<()> {
    let data = tempfile::tempdir()?;
    let dir = IdentityDir::new(data.path());
    dir.store(&member(&ca(1), 5, Role::Worker))?;
    std::fs::remove_file(data.path().join("identity/key.pem"))?;
    assert!(matches!(dir.load(), Err(FileError::HalfThere { .. })));
    Ok(())
}

#[test]
fn a_ca_survives_the_store_and_refuses_what_is_not_signed_by_its_own_key() -> Result<()> {
    let created = ca(1);
    let ca = ClusterCa::from_pem(created.cluster_id(), created.certificate_pem(), &created.key_pem())?;
    assert_eq!(ca.cluster_id(), ClusterId::from_u128(1));
    assert_eq!(ca.digest(), created.digest());
    assert!(!format!("{ca:?}").contains("PRIVATE"));

    let mut request = NodeKey::generate()?.request()?;
    *request.last_mut().expect("not empty") ^= 1;
    let refused = ca.issue(&request, NodeId::from_u128(5), Role::Worker, now(), DAY);
    assert!(matches!(refused, Err(CaError::Request(_))));

    let other = self::ca(1);
    let mixed = ClusterCa::from_pem(ca.cluster_id(), ca.certificate_pem(), &other.key_pem());
    assert!(matches!(mixed, Err(CaError::KeyMismatch)));
    Ok(())
}

#[test]
fn a_certificate_says_who_for_how_long_and_is_for_one_key() -> Result<()> {
    let ca = ca(1);
    let credentials = member(&ca, 5, Role::Manager);
    assert_eq!(credentials.identity().node_id, NodeId::from_u128(5));
    assert_eq!(credentials.identity().cluster_id, ca.cluster_id());
    let certificate = credentials.certificate();
    // An hour before it was asked for, for clocks that are behind, and 90 days after.
    let issued = certificate.not_before.after(DAY / 24);
    assert_eq!(certificate.not_after.since(issued), 90 * DAY);
    assert!(credentials.remaining(now()) <= 90 * DAY);
    assert_eq!(credentials.remaining(days_ago(0).after(91 * DAY)).as_secs(), 0);
    let (early, late) = (credentials.renew_at(0.0), credentials.renew_at(1.0));
    assert_eq!(early.since(issued), 45 * DAY);
    assert_eq!(late.since(issued), 72 * DAY);

    let key = NodeKey::generate()?;
    let pem = ca.issue(&key.request()?, NodeId::from_u128(6), Role::Worker, now(), DAY)?;
    let mixed = Credentials::new(NodeKey::generate()?, &pem, ca.certificate_pem());
    assert!(matches!(mixed, Err(CredentialsError::KeyMismatch)));
    Ok(())
}

#[test]
fn no_certificate_outlives_its_ca() -> Result<()> {
    let ca = ClusterCa::create(ClusterId::from_u128(1), days_ago(20 * 365 - 10))?;
    let credentials = member(&ca, 5, Role::Worker);
    assert!(credentials.remaining(now()) < 11 * DAY);
    Ok(())
}

#[test]
fn locked_keys_stand_in_the_place_of_the_open_ones_until_they_are_released() -> Result<()> {
    let data = tempfile::tempdir()?;
    let dir = IdentityDir::new(data.path());
    let ca = ca(1);
    let key = dir.key()?;
    let certificate = ca.issue(&key.request()?, NodeId::from_u128(2), Role::Manager, now(), DAY)?;
    let credentials = Credentials::new(key, &certificate, ca.certificate_pem())?;
    dir.store(&credentials)?;
    dir.store_data_key(&[9; 32])?;
    let keys = ManagerKeys { data_key: [9; 32], node_key: dir.key()? };
    let (first, second) = (UnlockKey::generate()?, UnlockKey::generate()?);
    for unlock in [&first, &second] {
        dir.lock(&keys.lock(unlock, now())?)?;
        assert!(matches!(dir.load(), Err(FileError::Locked)) && matches!(dir.key(), Err(FileError::Locked)));
        assert!(matches!(dir.data_key(), Err(FileError::Locked)));
        // A renewed certificate must not bring the key back in the clear.
        dir.store(&credentials)?;
        let mut names: Vec<_> = std::fs::read_dir(data.path().join("identity"))?
            .map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap()))
            .collect::<Result<_, _>>()?;
        names.sort();
        assert_eq!(names, ["certificate.pem", "locked"]);
        let opened = dir.locked()?.unwrap().unlock(unlock)?;
        assert_eq!(opened.data_key, [9; 32]);
        assert!(dir.load_with(opened.node_key)?.is_some());
    }
    assert!(dir.locked()?.unwrap().unlock(&first).is_err());
    dir.release(&keys)?;
    assert!(dir.locked()?.is_none() && dir.load()?.is_some());
    assert_eq!(dir.data_key()?, Some([9; 32]));
    dir.remove()?;
    assert!(!data.path().join("identity").exists());
    Ok(())
}

#[test]
fn a_root_that_is_given_must_be_valid_now_and_have_a_name_of_its_own() -> Result<()> {
    let (present, earlier, other) = (ca(1), ca(1), ca(2));
    let files = |ca: &ClusterCa| (ca.certificate_pem().to_owned(), ca.key_pem());
    let adopt = |ca: &ClusterCa, at| {
        let (certificate, key) = files(ca);
        skep_identity::adopt((&certificate, &key), &present, &[earlier.certificate_pem().to_owned()], at)
    };
    let taken = adopt(&other, now())?;
    assert_eq!((taken.cluster_id(), taken.digest()), (present.cluster_id(), other.digest()));
    assert!(matches!(adopt(&other, days_ago(300)), Err(GivenCaError::NotYet(_))));
    let in_thirty_years = Timestamp(now().0 + 30 * 365 * DAY.as_nanos() as u64);
    assert!(matches!(adopt(&other, in_thirty_years), Err(GivenCaError::Expired(_))));
    for known in [&present, &earlier] {
        assert!(matches!(adopt(known, now()), Err(GivenCaError::NameTaken { .. })));
    }
    let several = format!("{}{}", other.certificate_pem(), earlier.certificate_pem());
    let refused = skep_identity::adopt((&several, &other.key_pem()), &present, &[], now());
    assert!(matches!(refused, Err(GivenCaError::Several { count: 2 })));
    // One that another root signed is none itself.
    let cross = present.cross_sign(&taken, now())?;
    let refused = skep_identity::adopt((&cross, &other.key_pem()), &present, &[], now());
    assert!(matches!(refused, Err(GivenCaError::NoRoot { .. })));
    Ok(())
}
