//! Builds the keeper, a static executable of its own, and tells the crate where it is: `include_bytes!(env!("KEEPER_PATH"))`.
//!
//! A binary dependency would be built with this crate's target features and linked dynamically; hence a nested cargo
//! with its own flags and its own target folder. `SKEP_KEEPER_ELF` names a ready one instead (packagers, quick checks).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Position-dependent code is smaller and needs no relocation at start, so wardens share more pages.
const KEEPER_RUSTFLAGS: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];
const KEEPER_BYTES_MAX: u64 = 1_500_000;

fn main() {
    println!("cargo::rerun-if-env-changed=SKEP_KEEPER_ELF");
    let runtime = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../runtime");
    for input in ["src", "Cargo.toml", "../../Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", runtime.join(input).display());
    }
    let keeper = match env::var_os("SKEP_KEEPER_ELF") {
        Some(path) => PathBuf::from(path),
        None => build_keeper(&runtime),
    };
    let size = std::fs::metadata(&keeper)
        .unwrap_or_else(|error| panic!("the keeper `{}` cannot be read: {error}", keeper.display()))
        .len();
    assert!(size < KEEPER_BYTES_MAX, "the keeper has {size} bytes, its budget is {KEEPER_BYTES_MAX}");
    println!("cargo::rustc-env=KEEPER_PATH={}", keeper.display());
}

fn build_keeper(runtime: &Path) -> PathBuf {
    let target = variable("TARGET");
    let folder = PathBuf::from(variable("OUT_DIR")).join("keeper");
    let status = Command::new(variable("CARGO"))
        .current_dir(runtime)
        .args(["build", "--quiet", "--offline", "--package", "skep-runtime", "--bin", "skep-keeper"])
        .args(["--profile", "keeper", "--target", &target])
        .arg("--target-dir")
        .arg(&folder)
        // The outer build's flags come encoded and would win over RUSTFLAGS.
        .env("CARGO_ENCODED_RUSTFLAGS", KEEPER_RUSTFLAGS.join("\x1f"))
        // Under `cargo clippy` the wrapper would check the keeper instead of building it.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "building the keeper failed; its errors are above");
    folder.join(target).join("keeper/skep-keeper")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
