//! Contents of secrets and configs: which revisions are kept, and what a task that lives on may be given.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::*;

use crate::{AT, cluster, cluster_config, service, service_spec};

fn digest(text: &str) -> ContentDigest {
    ContentDigest(text.to_owned())
}

/// A cluster with the secret `password` of content `one`, and with the service `db` that uses it.
fn with_secret(level: u32) -> (Cluster, SecretId, ServiceId) {
    let (mut cluster, ..) = cluster();
    let mut ids = IdSource::from_seed(9);
    let config = ClusterConfig { level, ..cluster_config() };
    cluster.apply(&Change::SetClusterConfig { config: Box::new(config), expected: None }, 5).unwrap();
    let secret = Secret {
        id: ids.next_id(),
        meta: Meta::new(AT),
        name: "password".to_owned(),
        labels: Labels::new(),
        contents: Contents::new(digest("one"), Arc::from(&b"one"[..]), AT),
    };
    let secret_id = secret.id;
    let mut user = service(&mut ids, "db");
    user.spec = Arc::new(using("one"));
    let service_id = user.id;
    cluster.apply(&Change::CreateSecret { secret: Box::new(secret) }, 6).unwrap();
    cluster.apply(&Change::CreateService { service: Box::new(user) }, 7).unwrap();
    (cluster, secret_id, service_id)
}

fn using(content: &str) -> ServiceSpec {
    let mut spec = service_spec("db");
    let file = FileTarget { path: "password".to_owned(), uid: 0, gid: 0, mode: 0o444 };
    let reference = SecretRef { secret: "password".to_owned(), digest: Some(digest(content)), file };
    spec.task.container.secrets.push(reference);
    spec
}

fn rewrite(cluster: &mut Cluster, secret: SecretId, content: &str) {
    let change = Change::UpdateSecret {
        secret,
        expected: cluster.secrets[&secret].meta.version,
        labels: Labels::new(),
        digest: digest(content),
        data: Arc::from(content.as_bytes()),
        at: AT,
    };
    cluster.apply(&change, cluster.version.0 + 1).unwrap();
}

fn redeploy(cluster: &mut Cluster, service: ServiceId, content: &str) {
    let expected = cluster.services[&service].meta.version;
    let change = Change::UpdateService { service, expected, spec: Arc::new(using(content)), at: AT };
    cluster.apply(&change, cluster.version.0 + 1).unwrap();
}

fn kept(cluster: &Cluster, secret: SecretId) -> BTreeSet<String> {
    cluster.secrets[&secret].contents.revisions.keys().map(ToString::to_string).collect()
}

#[test]
fn a_content_is_kept_while_a_service_could_be_rolled_back_to_it_and_not_longer() {
    let (mut cluster, secret, service) = with_secret(FEATURE_LEVEL);
    for number in 0..Service::REVISIONS_KEPT + 3 {
        let content = format!("c{number:02}");
        rewrite(&mut cluster, secret, &content);
        redeploy(&mut cluster, service, &content);
    }
    // The one that runs, ten to go back to, and the one that went out of reach with the last deploy.
    let first = format!("c{:02}", 1);
    let kept = kept(&cluster, secret);
    assert_eq!((kept.len(), kept.first()), (Service::REVISIONS_KEPT + 2, Some(&first)));
    let referred: Vec<_> =
        cluster.services[&service].revisions.iter().map(|old| &old.spec.task.container.secrets).collect();
    for reference in referred.into_iter().flatten() {
        assert!(kept.contains(&reference.digest.as_ref().unwrap().to_string()), "{reference:?}");
    }
    // Nobody ever ran with it.
    rewrite(&mut cluster, secret, "unused");
    rewrite(&mut cluster, secret, "last");
    assert!(!self::kept(&cluster, secret).contains("unused"));
    assert_eq!(cluster.check(), []);
}

#[test]
fn contents_are_kept_while_a_manager_may_not_know_that_they_go() {
    let (mut cluster, secret, _) = with_secret(Feature::Services.level() - 1);
    rewrite(&mut cluster, secret, "unused");
    rewrite(&mut cluster, secret, "last");
    assert_eq!(kept(&cluster, secret).len(), 3);
}

#[test]
fn a_task_is_refreshed_with_other_contents_and_with_nothing_else() {
    let (mut cluster, _, _, task) = cluster();
    let old = Arc::clone(&cluster.tasks[&task].spec);
    let refresh = |spec: TaskSpec| Change::RefreshTask { task, spec: Arc::new(spec), spec_version: Version(9) };
    let mut other_image = (*old).clone();
    other_image.container.image = "another".to_owned();
    assert!(matches!(cluster.apply(&refresh(other_image), 9), Err(Rejection::Backwards { .. })));
    assert!(matches!(cluster.apply(&refresh((*old).clone()), 9), Err(Rejection::Backwards { .. })), "nothing is new");
    assert_eq!(cluster.tasks[&task].spec, old);
}
