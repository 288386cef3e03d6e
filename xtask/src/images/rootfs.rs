//! An image's files: packages unpacked side by side, cut down, with files of our own on top.
//!
//! No package script runs, so that nothing is configured by chance; what the programs need, the recipes say.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::recipe::{Recipe, USERS};
use crate::packages::{self, Package};
use crate::shell;

/// Of the layer that all images but busybox share.
const BASE_PACKAGES: &[&str] = &["libc6", "libgcc-s1", "busybox-static"];

/// Packages that a resolved program drags in but does not need to run as one process in a container.
const NEVER: &[&str] =
    &["libllvm", "libz3", "libperl", "libpam-modules", "libsemanage", "libsepol", "libdb5", "libgdbm"];

/// Folders that only a person reads.
const NOT_FOR_PROGRAMS: &[&str] =
    &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/info"];

/// The base layer: the C library, busybox for `sh`, users, and the usual empty folders.
pub fn build_base(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root/base");
    super::clear(&root)?;
    let resolved = packages::resolve(BASE_PACKAGES, &folder.join("packages"))?;
    let chosen: Vec<Package> =
        resolved.into_iter().filter(|package| BASE_PACKAGES.contains(&package.name.as_str())).collect();
    for archive in packages::download(&chosen, &folder.join("packages"))? {
        packages::unpack(&archive, &root)?;
    }
    cut_down(&root)?;
    system_folders(&root)?;
    for applet in applets(&root)? {
        let link = root.join("bin").join(&applet);
        if !link.exists() {
            symlink("busybox", &link).with_context(|| format!("cannot link {applet}"))?;
        }
    }
    Ok(root)
}

/// What the image `recipe` adds to the base, or all of it.
pub fn build(recipe: &Recipe, root: &Path, folder: &Path) -> Result<()> {
    let cache = folder.join("packages");
    let resolved = packages::resolve(recipe.packages, &cache)?;
    let chosen: Vec<Package> = resolved.into_iter().filter(|package| wants(recipe, &package.name)).collect();
    for archive in packages::download(&chosen, &cache)? {
        packages::unpack(&archive, root)?;
    }
    cut_down(root)?;
    if !recipe.on_base {
        system_folders(root)?;
        hard_link_applets(root)?;
    }
    for (path, mode, content) in recipe.files {
        put(root, path, *mode, content)?;
    }
    for (link, target) in recipe.links {
        let link = parent_made(root, link)?;
        symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    for (path, owner, mode) in recipe.folders {
        let path = root.join(path);
        make_folder(&path, *mode)?;
        chown(&path, Some(*owner), Some(*owner)).with_context(|| format!("cannot own {}", path.display()))?;
    }
    Ok(())
}

fn wants(recipe: &Recipe, package: &str) -> bool {
    let starts = |list: &[&str]| list.iter().any(|start| package.starts_with(start));
    let in_base = recipe.on_base && BASE_PACKAGES.contains(&package);
    let library = package.starts_with("lib") && !package.ends_with("-perl");
    !in_base && !starts(NEVER) && (starts(recipe.keep) || (recipe.on_base && (library || package == "zlib1g")))
}

fn cut_down(root: &Path) -> Result<()> {
    for path in NOT_FOR_PROGRAMS {
        super::clear(&root.join(path))?;
    }
    Ok(())
}

fn system_folders(root: &Path) -> Result<()> {
    for (path, mode) in
        [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755)]
    {
        make_folder(&root.join(path), mode)?;
    }
    symlink("../run", root.join("var/run")).context("cannot link var/run")?;
    let users = USERS.iter().map(|(name, id)| format!("{name}:x:{id}:{id}::/:/bin/sh\n"));
    let groups = USERS.iter().map(|(name, id)| format!("{name}:x:{id}:\n"));
    put(root, "etc/passwd", 0o644, &format!("root:x:0:0:root:/root:/bin/sh\n{}", users.collect::<String>()))?;
    put(root, "etc/group", 0o644, &format!("root:x:0:\n{}", groups.collect::<String>()))?;
    put(root, "etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
}

/// The public busybox image is one file under some four hundred names.
fn hard_link_applets(root: &Path) -> Result<()> {
    for applet in applets(root)? {
        let name = root.join("bin").join(&applet);
        if applet != "busybox" {
            fs::hard_link(root.join("bin/busybox"), &name).with_context(|| format!("cannot link {applet}"))?;
        }
    }
    fs::hard_link(root.join("bin/busybox"), parent_made(root, "usr/bin/env")?).context("cannot link env")
}

fn applets(root: &Path) -> Result<Vec<String>> {
    // Where /usr is merged, the package has its program under usr/bin.
    let (merged, plain) = (root.join("usr/bin/busybox"), root.join("bin/busybox"));
    if merged.exists() {
        fs::rename(&merged, &plain).context("cannot move busybox")?;
    }
    Ok(shell::read(Command::new(plain).arg("--list"))?.lines().map(str::to_owned).collect())
}

fn put(root: &Path, path: &str, mode: u32, content: &str) -> Result<()> {
    let path = parent_made(root, path)?;
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    set_mode(&path, mode)
}

fn parent_made(root: &Path, path: &str) -> Result<PathBuf> {
    let path = root.join(path);
    let parent = path.parent().context("a path in an image has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    Ok(path)
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
