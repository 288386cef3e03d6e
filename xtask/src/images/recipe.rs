//! What each image is: packages, files of our own, and the configuration that its public namesake has.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One image.
#[derive(Hash)]
pub struct Recipe {
    pub name: &'static str,
    /// The tags of the public image that stacks use.
    pub tags: &'static [&'static str],
    /// Packages to resolve; only those whose name starts with one of `keep`, or that are libraries, are unpacked.
    pub packages: &'static [&'static str],
    pub keep: &'static [&'static str],
    /// Whether the image stands on the shared base layer.
    pub on_base: bool,
    /// Path, mode and content.
    pub files: &'static [(&'static str, u32, &'static str)],
    /// Link and target.
    pub links: &'static [(&'static str, &'static str)],
    /// Path, owner and group, mode.
    pub folders: &'static [(&'static str, u32, u32)],
    pub entrypoint: &'static [&'static str],
    pub command: &'static [&'static str],
    pub environment: &'static [&'static str],
    pub ports: &'static [&'static str],
    pub volumes: &'static [&'static str],
    pub working_dir: &'static str,
    pub stop_signal: &'static str,
}

/// The numbers that the public images use for their users.
pub const USERS: &[(&str, u32)] = &[("nginx", 101), ("postgres", 999), ("redis", 998), ("nobody", 65534)];

const EMPTY: Recipe = Recipe {
    name: "",
    tags: &[],
    packages: &[],
    keep: &[],
    on_base: true,
    files: &[],
    links: &[],
    folders: &[],
    entrypoint: &[],
    command: &[],
    environment: &[],
    ports: &[],
    volumes: &[],
    working_dir: "/",
    stop_signal: "",
};

const ENTRYPOINT: &str = "usr/local/bin/docker-entrypoint.sh";

pub fn all() -> Vec<Recipe> {
    vec![busybox(), nginx(), redis(), python(), postgres(), dig()]
}

fn busybox() -> Recipe {
    Recipe {
        name: "busybox",
        tags: &["1", "latest"],
        packages: &["busybox-static"],
        keep: &["busybox-static"],
        on_base: false,
        command: &["sh"],
        ..EMPTY
    }
}

fn nginx() -> Recipe {
    Recipe {
        name: "nginx",
        tags: &["1", "latest"],
        packages: &["nginx"],
        keep: &["nginx"],
        files: &[
            ("etc/nginx/nginx.conf", 0o644, include_str!("nginx.conf")),
            ("etc/nginx/conf.d/default.conf", 0o644, include_str!("nginx-default.conf")),
            ("usr/share/nginx/html/index.html", 0o644, "<h1>Welcome to nginx!</h1>\n"),
        ],
        links: &[("var/log/nginx/access.log", "/dev/stdout"), ("var/log/nginx/error.log", "/dev/stderr")],
        folders: &[("var/cache/nginx", 101, 0o755), ("var/lib/nginx", 101, 0o755)],
        command: &["nginx", "-g", "daemon off;"],
        ports: &["80/tcp"],
        stop_signal: "SIGQUIT",
        ..EMPTY
    }
}

fn redis() -> Recipe {
    Recipe {
        name: "redis",
        tags: &["7", "latest"],
        packages: &["redis-server"],
        keep: &["redis-"],
        files: &[(ENTRYPOINT, 0o755, include_str!("redis-entrypoint.sh"))],
        folders: &[("data", 998, 0o755)],
        entrypoint: &["docker-entrypoint.sh"],
        command: &["redis-server"],
        ports: &["6379/tcp"],
        volumes: &["/data"],
        working_dir: "/data",
        ..EMPTY
    }
}

fn python() -> Recipe {
    Recipe {
        name: "python",
        tags: &["3-slim", "3"],
        packages: &["python3"],
        keep: &["python3", "media-types"],
        links: &[("usr/local/bin/python", "/usr/bin/python3"), ("usr/local/bin/python3", "/usr/bin/python3")],
        command: &["python3"],
        environment: &["LANG=C.UTF-8"],
        ..EMPTY
    }
}

/// There is no public image of this name: it is what tests ask resolvers with.
fn dig() -> Recipe {
    Recipe { name: "dig", tags: &["1"], packages: &["bind9-dnsutils"], keep: &["bind9-"], command: &["dig"], ..EMPTY }
}

/// The tag says 15, Debian 12's version; a newer Debian puts its own under it.
fn postgres() -> Recipe {
    Recipe {
        name: "postgres",
        tags: &["15", "latest"],
        packages: &["postgresql"],
        keep: &["postgresql-1", "postgresql-client-1", "tzdata"],
        files: &[(ENTRYPOINT, 0o755, include_str!("postgres-entrypoint.sh"))],
        folders: &[("var/lib/postgresql/data", 999, 0o700), ("run/postgresql", 999, 0o3777)],
        entrypoint: &["docker-entrypoint.sh"],
        command: &["postgres"],
        environment: &["LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"],
        ports: &["5432/tcp"],
        volumes: &["/var/lib/postgresql/data"],
        stop_signal: "SIGINT",
        ..EMPTY
    }
}

impl Recipe {
    /// The `config` object of the image (OCI image-spec, config.md), for a root folder that is laid out already.
    pub fn configuration(&self, root: &Path) -> Result<Value> {
        let mut path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        for version in versions(&root.join("usr/lib/postgresql"))? {
            path = format!("/usr/lib/postgresql/{version}/bin:{path}");
        }
        let mut environment = vec![format!("PATH={path}")];
        environment.extend(self.environment.iter().map(|line| (*line).to_owned()));
        let set = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>()
        };
        let mut config = json!({ "Env": environment, "Cmd": self.command, "WorkingDir": self.working_dir });
        let optional = [
            ("Entrypoint", json!(self.entrypoint), self.entrypoint.is_empty()),
            ("ExposedPorts", json!(set(self.ports)), self.ports.is_empty()),
            ("Volumes", json!(set(self.volumes)), self.volumes.is_empty()),
            ("StopSignal", json!(self.stop_signal), self.stop_signal.is_empty()),
        ];
        for (key, value, absent) in optional {
            if !absent {
                config[key] = value;
            }
        }
        Ok(config)
    }
}

/// The names in a folder; none when it is not there.
fn versions(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
