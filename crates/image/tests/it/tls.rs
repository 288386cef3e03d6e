//! HTTPS, in a network namespace with an address that is not loopback: there, certificates count.

use std::fs;
use std::path::Path;

use serde_json::json;
use skep_image::{ErrorKind, ImageStore, RegistryConfig};

use crate::build::{Layer, Layout, gzipped};
use crate::programs::{program, run, scratch};
use crate::protocol::chain;
use crate::pull::{amd64, reference};
use crate::registry::Registry;

const INSIDE: &str = "SKEP_IMAGE_TEST_INSIDE";
/// TEST-NET-1 (RFC 5737).
const ADDRESS: &str = "192.0.2.10";

/// Runs the named test of this binary again, in a namespace of its own. True in that second run.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = format!("ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$@\"");
    let mut unshare = program("unshare", "util-linux");
    unshare.args(["--net", "sh", "-ec", &script, "sh"]).arg(std::env::current_exe().unwrap());
    unshare.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = run(&mut unshare);
    assert!(output.contains("1 passed"), "{output}");
    false
}

async fn pull(dir: &Path, name: &str, config: RegistryConfig) -> Result<(), (ErrorKind, String)> {
    let store = ImageStore::open(dir, config).await.unwrap();
    let outcome = store.pull(&reference(name), None, &amd64(), |_| {}).await;
    outcome.map(drop).map_err(|error| (error.kind(), chain(&error)))
}

#[tokio::test]
async fn https_wants_a_trusted_certificate() {
    if !inside("tls::https_wants_a_trusted_certificate") {
        return;
    }
    let dir = scratch();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![ADDRESS.to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (dir.path().join("registry.crt"), dir.path().join("registry.key"));
    fs::write(&cert_file, certificate.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let registry = Registry::start_tls(ADDRESS, &cert_file, &key_file);
    let mut layout = Layout::new();
    layout.image("v1", "amd64", json!({}), &[gzipped(&Layer::new().file("a", b"1"))]);
    let name = registry.name("app:v1");
    layout.push("v1", &name);

    let (kind, message) = pull(&dir.path().join("unknown"), &name, RegistryConfig::default()).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unreachable);
    assert!(message.contains("certificate"), "{message}");
    let trusting = RegistryConfig { ca_dirs: vec![dir.path().to_owned()], ..Default::default() };
    pull(&dir.path().join("trusted"), &name, trusting).await.unwrap();
    let insecure = RegistryConfig { insecure: vec![registry.address.clone()], ..Default::default() };
    pull(&dir.path().join("insecure"), &name, insecure).await.unwrap();
}

#[tokio::test]
async fn plain_http_is_only_for_those_listed() {
    if !inside("tls::plain_http_is_only_for_those_listed") {
        return;
    }
    let dir = scratch();
    let registry = Registry::start_on(ADDRESS);
    let mut layout = Layout::new();
    layout.image("v1", "amd64", json!({}), &[gzipped(&Layer::new().file("a", b"1"))]);
    let name = registry.name("app:v1");
    layout.push("v1", &name);

    let (kind, message) = pull(&dir.path().join("default"), &name, RegistryConfig::default()).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unreachable, "{message}");
    let insecure = RegistryConfig { insecure: vec![ADDRESS.to_owned()], ..Default::default() };
    pull(&dir.path().join("insecure"), &name, insecure).await.unwrap();
}
