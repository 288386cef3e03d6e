//! Debian's docker-registry (distribution) on a loopback port of its own, ended with the test.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::programs::{Scratch, program, run, scratch};

pub struct Registry {
    child: Child,
    pub address: String,
    dir: Scratch,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::start_with("")
    }

    /// With the login `ann` / `secret`.
    pub fn start_with_login() -> Registry {
        Registry::start_with("ann:secret")
    }

    fn start_with(login: &str) -> Registry {
        let dir = scratch();
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let mut child = command(&dir, &address, login).spawn().expect("docker-registry starts");
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

fn command(dir: &Scratch, address: &str, login: &str) -> Command {
    let path = dir.path();
    let auth = match login.split_once(':') {
        None => String::new(),
        Some((user, password)) => {
            let table = path.join("htpasswd");
            let mut htpasswd = program("htpasswd", "apache2-utils");
            run(htpasswd.args(["-Bbc", table.to_str().unwrap(), user, password]));
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", table.display())
        }
    };
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}/data\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{auth}",
        path.display()
    );
    let file = path.join("config.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = program("docker-registry", "docker-registry");
    command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_clear().env("OTEL_TRACES_EXPORTER", "none");
    command
}
