//! What registries do beside answering: authentication, redirects, interruptions, limits, lies.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use skep_image::{Credentials, ErrorKind, ImageStore, RegistryConfig};

use crate::build::{Layer, Layout, digest, gzipped, plain};
use crate::programs::{leftovers, scratch, skopeo_copy};
use crate::pull::{amd64, open, reference};
use crate::registry::Registry;
use crate::server::{Content, Reply, Request, Server};

fn login(username: &str, password: &str) -> Credentials {
    Credentials { username: username.into(), password: password.into(), identity_token: None }
}

/// A layer that does not compress and takes more than one read.
fn noise(bytes: usize) -> Layer {
    let mut state = 0x9e3779b97f4a7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let content: Vec<u8> = (0..bytes).map(|_| next()).collect();
    Layer::new().file("noise", &content)
}

/// The error with everything that caused it, as `service ps` shows it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

#[tokio::test]
async fn basic_authentication_with_a_real_registry() {
    let registry = Registry::start_with_login();
    let mut layout = Layout::new();
    layout.image("v1", "amd64", json!({}), &[gzipped(&Layer::new().file("a", b"1"))]);
    let name = registry.name("private:v1");
    let from = format!("oci:{}:v1", layout.path().display());
    skopeo_copy(&["--dest-creds=ann:secret", &from, &format!("docker://{name}")]);
    let dir = scratch();
    let store = open(dir.path()).await;
    let pull = async |credentials: Option<Credentials>| {
        store.pull(&reference(&name), credentials.as_ref(), &amd64(), |_| {}).await
    };

    let anonymous = pull(None).await.unwrap_err();
    assert_eq!(anonymous.kind(), ErrorKind::Unauthorized);
    assert!(anonymous.to_string().contains("docker login"), "{anonymous}");
    let wrong = pull(Some(login("ann", "guess"))).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unauthorized);
    assert!(wrong.to_string().contains("`ann`") && !wrong.to_string().contains("guess"), "{wrong}");
    pull(Some(login("ann", "secret"))).await.unwrap();
}

/// A registry that wants a token from `realm`, and sends blobs to `cdn`.
fn token_registry(content: Content, realm: String, cdn: String) -> Server {
    Server::start(move |request| {
        if request.header("authorization") != Some("Bearer t0ken") {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:app:pull\"");
            return Reply::status(401).header("WWW-Authenticate", challenge);
        }
        match request.path.contains("/blobs/") {
            true => Reply::status(307).header("Location", format!("http://{cdn}/storage{}", request.path)),
            false => content.answer(request),
        }
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_goes_only_to_its_registry() {
    let content = Content::new(gzipped(&Layer::new().file("a", b"1")));
    let served = content.clone();
    let cdn = Server::start(move |request| served.answer(request));
    let realm = Server::start(|request| match request.header("authorization") {
        // ann:secret
        Some("Basic YW5uOnNlY3JldA==") => Reply::ok(r#"{"access_token":"t0ken","expires_in":300}"#),
        _ => Reply::status(401),
    });
    let registry = token_registry(content, format!("http://{}/token", realm.address), cdn.address.clone());
    let dir = scratch();
    let store = open(dir.path()).await;
    let name = reference(&format!("{}/app:v1", registry.address));

    let refused = store.pull(&name, Some(&login("ann", "guess")), &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused}");
    let before = realm.requests().len();
    store.pull(&name, Some(&login("ann", "secret")), &amd64(), |_| {}).await.unwrap();

    let asked = realm.requests();
    assert_eq!(asked.len() - before, 1, "one token for manifest, configuration and layer");
    assert_eq!(asked[before].path, "/token?service=test&scope=repository%3Aapp%3Apull");
    assert_eq!(cdn.requests().len(), 2);
    assert!(cdn.requests().iter().all(|request| request.header("authorization").is_none()), "the CDN gets no token");
    let stranger = store.pull(&name, None, &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Unauthorized, "another asker does not get the token");
}

#[tokio::test]
async fn a_refresh_token_is_posted() {
    let content = Content::new(gzipped(&Layer::new().file("a", b"1")));
    let served = content.clone();
    let cdn = Server::start(move |request| served.answer(request));
    let realm = Server::start(|request| {
        let right = request.method == "POST"
            && request.body.contains("refresh_token=r%2Ft")
            && request.body.contains("grant_type=refresh_token");
        if right { Reply::ok(r#"{"token":"t0ken"}"#) } else { Reply::status(401) }
    });
    let registry = token_registry(content, format!("http://{}/token", realm.address), cdn.address.clone());
    let dir = scratch();
    let credentials = Credentials { identity_token: Some("r/t".into()), ..login("ann", "") };
    let name = reference(&format!("{}/app:v1", registry.address));
    open(dir.path()).await.pull(&name, Some(&credentials), &amd64(), |_| {}).await.unwrap();
}

/// Hangs up in the middle of the layer, `cuts` times; honours Range or not.
fn interrupting(content: Content, cuts: usize, ranges: bool) -> Server {
    let left = AtomicUsize::new(cuts);
    Server::start(move |request| {
        let reply = content.answer(request);
        if !request.path.ends_with(&content.layer_digest()) {
            return reply;
        }
        let from =
            request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.filter(|_| ranges).unwrap_or(0);
        let cut = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let body = content.layer[from..].to_vec();
        let cut_after = cut.then_some(body.len() / 2);
        let status = if from > 0 { 206 } else { 200 };
        let range = format!("bytes {from}-{}/{}", content.layer.len() - 1, content.layer.len());
        Reply { status, body, cut_after, ..Reply::default() }.header("Content-Range", range)
    })
}

#[tokio::test]
async fn an_interrupted_layer_goes_on_where_it_broke_off() {
    let content = Content::new(gzipped(&noise(3_000_000)));
    let registry = interrupting(content.clone(), 6, true);
    let dir = scratch();
    let store = open(dir.path()).await;
    let image = store.pull(&reference(&format!("{}/app:v1", registry.address)), None, &amd64(), |_| {}).await.unwrap();
    assert_eq!(fs::metadata(image.layers[0].join("noise")).unwrap().len(), 3_000_000);
    let asked = registry.requests_for(&content.layer_digest());
    assert_eq!(asked.len(), 7);
    assert!(asked[1..].iter().all(|request| request.header("range").is_some()));
}

#[tokio::test]
async fn a_server_without_ranges_is_resumed_too() {
    let content = Content::new(plain(&noise(500_000)));
    let registry = interrupting(content, 2, false);
    let dir = scratch();
    let name = reference(&format!("{}/app:v1", registry.address));
    open(dir.path()).await.pull(&name, None, &amd64(), |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_never_arrives_leaves_nothing() {
    let content = Content::new(gzipped(&noise(200_000)));
    let digest = content.layer_digest();
    let registry = Server::start(move |request| {
        let reply = content.answer(request);
        let cut_after = request.path.ends_with(&digest).then_some(0);
        Reply { cut_after, ..reply }
    });
    let dir = scratch();
    let store = open(dir.path()).await;
    let name = reference(&format!("{}/app:v1", registry.address));
    let error = store.pull(&name, None, &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", chain(&error));
    assert_eq!(leftovers(dir.path()), [""; 0]);
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
    assert!(store.find(&name).unwrap().is_none());
}

#[tokio::test]
async fn bytes_with_another_digest_are_refused_and_leave_nothing() {
    // Damaged in the registry's own storage: in the middle of the deflate stream, and in a plain tar.
    for blob in [gzipped(&noise(300_000)), plain(&noise(300_000))] {
        let registry = Registry::start();
        let mut layout = Layout::new();
        let mut bytes = blob.bytes.clone();
        let layer = digest(&bytes);
        layout.image("v1", "amd64", json!({}), &[blob]);
        let name = registry.name("demo:v1");
        layout.push("v1", &name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(registry.blob_file(&layer), &bytes).unwrap();

        let dir = scratch();
        let store = open(dir.path()).await;
        let error = store.pull(&reference(&name), None, &amd64(), |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
        assert!(error.to_string().contains(&layer) && error.to_string().contains(&digest(&bytes)), "{error}");
        assert_eq!(leftovers(dir.path()), [""; 0]);
        assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
        assert!(store.find(&reference(&name)).unwrap().is_none());
    }
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let content = Content::new(gzipped(&Layer::new().file("a", b"1")));
    let registry = Server::start(move |request| content.answer(request));
    let dir = scratch();
    let other = digest(b"another manifest");
    let name = reference(&format!("{}/app@{other}", registry.address));
    let error = open(dir.path()).await.pull(&name, None, &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(&other), "{error}");
}

#[tokio::test]
async fn a_configuration_that_promises_other_content_is_refused() {
    let mut blob = gzipped(&Layer::new().file("a", b"1"));
    blob.diff_id = digest(b"something else");
    let registry = Server::start({
        let content = Content::new(blob);
        move |request| content.answer(request)
    });
    let dir = scratch();
    let error =
        open(dir.path()).await.pull(&reference(&format!("{}/a:1", registry.address)), None, &amd64(), |_| {}).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(chain(&error).contains("configuration promises"), "{}", chain(&error));
    assert_eq!(leftovers(dir.path()), [""; 0]);
}

#[tokio::test]
async fn limits_and_failures_that_pass_are_waited_for() {
    let content = Content::new(gzipped(&Layer::new().file("a", b"1")));
    let seen: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let registry = Server::start(move |request: &Request| {
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(request.path.clone()).or_default();
        *times += 1;
        match *times {
            1 => Reply::status(429).header("Retry-After", "0"),
            2 => Reply::status(503),
            _ => content.answer(request),
        }
    });
    let dir = scratch();
    open(dir.path())
        .await
        .pull(&reference(&format!("{}/app:v1", registry.address)), None, &amd64(), |_| {})
        .await
        .unwrap();

    let always = Server::start(|_| Reply::status(429).header("Retry-After", "3600"));
    let error = open(dir.path().join("other").as_path()).await;
    let error = error.resolve(&reference(&format!("{}/app:v1", always.address)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("429"), "{error}");
}

#[tokio::test]
async fn mirrors_are_asked_first_without_the_login_and_may_fail() {
    let content = Content::new(gzipped(&Layer::new().file("a", b"1")));
    let (one, two) = (content.clone(), content.clone());
    let origin = Server::start(move |request| one.answer(request));
    let broken = Server::start(|_| Reply::status(404));
    let partial =
        Server::start(
            move |request| {
                if request.path.contains("/manifests/") { two.answer(request) } else { Reply::status(404) }
            },
        );
    let mirrors = vec![format!("http://{}", broken.address), format!("http://{}/", partial.address)];
    let config = RegistryConfig { mirrors: BTreeMap::from([(origin.address.clone(), mirrors)]), ..Default::default() };
    let dir = scratch();
    let store = ImageStore::open(dir.path(), config).await.unwrap();
    let name = reference(&format!("{}/app:v1", origin.address));
    store.pull(&name, Some(&login("ann", "secret")), &amd64(), |_| {}).await.unwrap();

    assert_eq!(origin.requests_for("/manifests/").len(), 0);
    assert_eq!(origin.requests_for("/blobs/").len(), 2);
    let manifests = partial.requests_for("/manifests/");
    assert_eq!(manifests[0].path, format!("/v2/app/manifests/v1?ns={}", origin.address));
    let asked = [broken.requests(), partial.requests()].concat();
    assert!(asked.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn concurrent_pulls_of_one_image_join() {
    let content = Content::new(gzipped(&noise(2_000_000)));
    let served = content.clone();
    let registry = Server::start(move |request| served.answer(request));
    let dir = scratch();
    let store = open(dir.path()).await;
    let pinned = reference(&format!("{}/app@{}", registry.address, digest(&content.manifest)));
    let tagged = reference(&format!("{}/app:v1", registry.address));
    let pulls = (0..20).map(|i| {
        let name = if i % 2 == 0 { &pinned } else { &tagged };
        store.pull(name, None, const { &[] }, |_| {})
    });
    // Without platforms nothing fits: nobody may have fetched a layer.
    assert!(futures::future::join_all(pulls).await.iter().all(Result::is_err));
    assert_eq!(registry.requests_for(&content.layer_digest()).len(), 0);

    let platforms = amd64();
    let pulls = (0..20).map(|i| store.pull(if i % 2 == 0 { &pinned } else { &tagged }, None, &platforms, |_| {}));
    for outcome in futures::future::join_all(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(registry.requests_for(&content.layer_digest()).len(), 1, "one download of the layer");
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let content = Content::new(gzipped(&noise(2_000_000)));
    let served = content.clone();
    let registry = Server::start(move |request| served.answer(request));
    let dir = scratch();
    let store = open(dir.path()).await;
    let name = reference(&format!("{}/app:v1", registry.address));
    let (started, mut start) = tokio::sync::mpsc::unbounded_channel();
    {
        let platforms = amd64();
        let pull = store.pull(&name, None, &platforms, move |_| started.send(()).unwrap_or(()));
        tokio::select! {
            _ = pull => panic!("the layer cannot be complete at the first report"),
            _ = start.recv() => {}
        }
    }
    // The thread that unpacks sees the end of the stream and cleans up; another pull waits for nothing of it.
    store.pull(&name, None, &amd64(), |_| {}).await.unwrap();
    while !leftovers(dir.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}
