//! Images for demo and tests: Debian's real programs under the names of the public images, in a real registry's storage.
//!
//! ```text
//! recipe -> apt's packages -> root folders -> layers and configuration (an OCI layout) -> skopeo -> docker-registry
//! ```
//! Made once and kept under `target/images`; made anew when a recipe or apt's lists change. The same packages give the same
//! bytes. The images are narrower than the public ones; a stack that runs on these runs on those.

mod layout;
mod recipe;
mod rootfs;

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use skep_lab::{Lab, Registry};

use crate::workspace::Workspace;
use crate::{packages, shell};
use recipe::Recipe;

/// Makes the images unless they are up to date; answers the registry's storage folder.
pub fn make() -> Result<PathBuf> {
    let target = Workspace::load()?.target_directory;
    let folder = target.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Two tasks at once: the second waits, and finds the images made.
    let lock = File::create(folder.join("lock")).context("cannot open the images' lock")?;
    lock.lock().context("cannot lock the images")?;
    packages::install_tools()?;
    packages::unpack_once(&["docker-registry"], &folder.join("packages"), &target.join("tools"))?;
    packages::refresh_lists()?;
    let (stamp, key) = (folder.join("stamp"), content_key()?);
    let storage = folder.join("registry");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == key) {
        return Ok(storage);
    }
    // Tests may be reading the old ones.
    let (part, old) = (folder.join("registry.part"), folder.join("registry.old"));
    build_all(&folder, &part)?;
    clear(&old)?;
    if storage.exists() {
        fs::rename(&storage, &old).context("cannot put the old images aside")?;
    }
    fs::rename(&part, &storage).context("cannot put the new images in place")?;
    clear(&old)?;
    fs::write(&stamp, key).context("cannot write the images' stamp")?;
    Ok(storage)
}

fn build_all(folder: &Path, storage: &Path) -> Result<()> {
    clear(storage)?;
    // The registry listens on the loopback of a namespace of its own; the machine's ports are not touched.
    let lab = Lab::builder().nodes(0).build()?;
    let registry = Registry::start_writable(&lab, storage)?;
    let base = rootfs::build_base(folder)?;
    for recipe in recipe::all() {
        println!("images: making {}", recipe.name);
        let image = build(&recipe, &base, folder)?;
        for tag in recipe.tags {
            push(&lab, &registry, &image, &format!("{}:{tag}", recipe.name))?;
        }
        clear(&image)?;
    }
    registry.stop()
}

/// Makes one image as an OCI layout with the one tag `image`.
fn build(recipe: &Recipe, base: &Path, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root").join(recipe.name);
    clear(&root)?;
    rootfs::build(recipe, &root, folder)?;
    let layers: &[&Path] = if recipe.on_base { &[base, &root] } else { &[&root] };
    let image = folder.join("layout").join(recipe.name);
    clear(&image)?;
    layout::write(&image, layers, &recipe.configuration(&root)?)?;
    clear(&root)?;
    Ok(image)
}

fn push(lab: &Lab, registry: &Registry, image: &Path, name: &str) -> Result<()> {
    let mut command = lab.outside_command("skopeo");
    command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
    command.arg(format!("oci:{}:image", image.display())).arg(format!("docker://{}/library/{name}", registry.name()));
    shell::run(&mut command)
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Changes with the recipes and with apt's knowledge of versions; cheap enough to ask on every run.
fn content_key() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    [include_str!("recipe.rs"), include_str!("rootfs.rs"), include_str!("layout.rs")].hash(&mut hasher);
    recipe::all().hash(&mut hasher);
    let mut lists: Vec<(String, u64, Option<SystemTime>)> = Vec::new();
    for entry in fs::read_dir("/var/lib/apt/lists").context("cannot read apt's lists")? {
        let entry = entry.context("cannot read apt's lists")?;
        let data = entry.metadata().context("cannot read apt's lists")?;
        if data.is_file() && data.len() > 0 {
            lists.push((entry.file_name().to_string_lossy().into_owned(), data.len(), data.modified().ok()));
        }
    }
    lists.sort();
    lists.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
