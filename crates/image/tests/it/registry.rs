//! Debian's docker-registry (distribution) on a loopback port of its own, ended with the test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::programs::{Scratch, program, run, scratch};

pub struct Registry {
    child: Child,
    pub address: String,
    dir: Scratch,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::start_on("127.0.0.1")
    }

    /// On another address than loopback, in a network namespace that has it.
    pub fn start_on(address: &str) -> Registry {
        Registry::start_with(address, |_| String::new(), "")
    }

    /// With the login `ann` / `secret`.
    pub fn start_with_login() -> Registry {
        Registry::start_with("127.0.0.1", login, "")
    }

    pub fn start_tls(address: &str, certificate: &Path, key: &Path) -> Registry {
        let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        Registry::start_with(address, |_| String::new(), &tls)
    }

    fn start_with(address: &str, auth: impl Fn(&Path) -> String, http: &str) -> Registry {
        let dir = scratch();
        let auth = auth(dir.path());
        for _ in 0..20 {
            let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
            let address = format!("{address}:{port}");
            let mut child = command(dir.path(), &address, http, &auth).spawn().expect("docker-registry starts");
            // Ready when it accepts; another test may have taken the port meanwhile, then it exits.
            loop {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(&address).is_ok() {
                    return Registry { child, address, dir };
                }
                std::thread::yield_now();
            }
        }
        panic!("docker-registry found no free port in 20 attempts");
    }

    /// `127.0.0.1:port/name`
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The file that holds a blob, to damage it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    pub fn stop(&mut self) {
        // Fails only if it has ended.
        let _ended_already = self.child.kill();
        self.child.wait().expect("our own child");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn login(dir: &Path) -> String {
    let table = dir.join("htpasswd");
    run(program("htpasswd", "apache2-utils").arg("-Bbc").arg(&table).args(["ann", "secret"]));
    format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", table.display())
}

fn command(dir: &Path, address: &str, http: &str, auth: &str) -> Command {
    let data = dir.join("data");
    let storage = format!("storage:\n  filesystem:\n    rootdirectory: {}\n", data.display());
    let config = format!("version: 0.1\nlog:\n  level: error\n{storage}http:\n  addr: {address}\n{http}{auth}");
    let file = dir.join("config.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = program("docker-registry", "docker-registry");
    command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_clear().env("OTEL_TRACES_EXPORTER", "none");
    command
}
