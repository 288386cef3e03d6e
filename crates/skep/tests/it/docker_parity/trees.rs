//! One image, unpacked by both: the same tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::both;
use crate::world::World;

/// All that an archive says about one path, but for the content of files.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of files.
    size: Option<u64>,
    /// Of devices.
    numbers: Option<u64>,
    /// Of symbolic links.
    target: Option<PathBuf>,
    /// Of files with several names: the first of them.
    first_name: Option<PathBuf>,
    attributes: BTreeMap<String, Vec<u8>>,
}

type Tree = BTreeMap<PathBuf, Entry>;

#[test]
fn an_image_has_the_tree_that_docker_unpacks() {
    let (world, docker) = both();
    for name in ["busybox:1", "nginx:1", "postgres:15"] {
        let image = format!("{}/{name}", world.images());
        docker.run(world.node(), &["pull", "--quiet", &image]).unwrap().ok().unwrap();
        let format = "{{with .GraphDriver.Data}}{{.UpperDir}}:{{.LowerDir}}{{end}}";
        let layers = docker.run(world.node(), &["image", "inspect", "--format", format, &image]).unwrap().ok().unwrap();
        let layers: Vec<String> =
            layers.trim().split(':').filter(|layer| layer.starts_with('/')).map(str::to_owned).collect();
        let by_docker = merged(&world, &format!("docker-{name}"), &layers);
        let by_skep = merged(&world, &format!("skep-{name}"), &layers_of_skep(&world, name));
        let (docker_tree, skep_tree) = (read_tree(&by_docker), read_tree(&by_skep));
        compare(name, &docker_tree, &skep_tree);
        same_contents(&by_docker, &by_skep, &docker_tree);
        println!("{name}: {} layers, {} equal entries", layers.len(), docker_tree.len());
    }
}

/// The layers below a running container's root, topmost first, as its mount table names them.
fn layers_of_skep(world: &World, image: &str) -> Vec<String> {
    let name: String = image.chars().filter(char::is_ascii_alphabetic).collect();
    world.up(&name, &format!(
        "services: {{ a: {{ image: \"${{REGISTRY}}/{image}\", entrypoint: [sleep], command: [\"100000\"], stop_grace_period: 1s }} }}"
    ));
    let task = &world.running(&format!("{name}_a"))[0];
    let pid = world.processes(&task.id)[0];
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
    let options = root.rsplit(' ').next().unwrap();
    let mut layers = Vec::new();
    for option in options.split(',') {
        if let Some(layer) = option.strip_prefix("lowerdir+=") {
            layers.push(layer.to_owned());
        } else if let Some(all) = option.strip_prefix("lowerdir=") {
            layers.extend(all.split(':').map(str::to_owned));
        }
    }
    assert!(!layers.is_empty(), "{root}");
    layers
}

/// Mounts the layers over each other in the node, read-only; the path as this process reaches it.
fn merged(world: &World, name: &str, layers: &[String]) -> PathBuf {
    let node = world.node();
    let reached =
        |path: &str| Path::new(&format!("/proc/{}/root", node.holder().pid)).join(path.trim_start_matches('/'));
    assert!(!layers.is_empty());
    if let [only] = layers {
        return reached(only);
    }
    let folder = node.folder().join(name.replace(':', "-"));
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let options = format!("lowerdir={}", layers.join(":"));
    node.run("mount", &["-t", "overlay", "none", "-o", &options, folder]).unwrap().ok().unwrap();
    reached(folder)
}

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first_names = BTreeMap::new();
    read_into(root, Path::new(""), &mut tree, &mut first_names);
    tree
}

fn read_into(root: &Path, path: &Path, tree: &mut Tree, first_names: &mut BTreeMap<u64, PathBuf>) {
    let place = root.join(path);
    let data = fs::symlink_metadata(&place).unwrap();
    let kind = data.file_type();
    let is_device = kind.is_block_device() || kind.is_char_device();
    let several = kind.is_file() && data.nlink() > 1;
    let entry = Entry {
        kind: if kind.is_dir() {
            "folder"
        } else if kind.is_file() {
            "file"
        } else if kind.is_symlink() {
            "link"
        } else {
            "special"
        },
        mode: data.mode(),
        owner: (data.uid(), data.gid()),
        modified: (data.mtime(), data.mtime_nsec()),
        size: kind.is_file().then(|| data.size()),
        numbers: is_device.then(|| data.rdev()),
        target: kind.is_symlink().then(|| fs::read_link(&place).unwrap()),
        first_name: several.then(|| first_names.entry(data.ino()).or_insert_with(|| path.to_owned()).clone()),
        attributes: attributes(&place),
    };
    tree.insert(path.to_owned(), entry);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|name| read_into(root, &path.join(name), tree, first_names));
    }
}

/// But those that overlayfs keeps for itself on a layer.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let used = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..used].to_vec()).unwrap();
    let ours = names.split('\0').filter(|name| !name.is_empty() && !name.starts_with("trusted.overlay."));
    ours.map(|name| {
        let mut value = vec![0; 4096];
        let used = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(used);
        (name.to_owned(), value)
    })
    .collect()
}

fn compare(image: &str, docker: &Tree, skep: &Tree) {
    let mut differences = Vec::new();
    for path in docker.keys().chain(skep.keys().filter(|path| !docker.contains_key(*path))) {
        let (docker, skep) = (docker.get(path), skep.get(path));
        // The archive says nothing about its own root folder, so each unpacker's clock shows.
        if docker != skep && !path.as_os_str().is_empty() {
            differences.push(format!("/{}\n    docker: {docker:?}\n    skep:   {skep:?}", path.display()));
        }
    }
    let shown = differences.len().min(20);
    assert!(
        differences.is_empty(),
        "{image}: {} paths differ:\n{}",
        differences.len(),
        differences[..shown].join("\n")
    );
}

fn same_contents(docker: &Path, skep: &Path, tree: &Tree) {
    for path in tree.iter().filter(|(_, entry)| entry.kind == "file").map(|(path, _)| path) {
        let same = fs::read(docker.join(path)).unwrap() == fs::read(skep.join(path)).unwrap();
        assert!(same, "the content of /{}", path.display());
    }
}
