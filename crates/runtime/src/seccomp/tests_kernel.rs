//! The compiled default filter in the running kernel, in a thread of its own, where it ends with the thread.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Arch, Instruction, compile, default_profile};
use crate::caps;

fn default_filter() -> Vec<Instruction> {
    compile(&default_profile(), Arch::host(), caps::DOCKER_DEFAULT).unwrap()
}

fn install(program: &[Instruction]) {
    let filter: Vec<_> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    rustix::thread::set_no_new_privs(true).unwrap();
    crate::sys::seccomp::install(&filter).unwrap();
}

#[test]
fn the_kernel_takes_the_filter_and_does_what_it_says() {
    let filtered = std::thread::spawn(|| {
        install(&default_filter());
        // Without the filter, root would be told ENOENT.
        let mounted = rustix::mount::mount("none", "/nonexistent", "tmpfs", rustix::mount::MountFlags::empty(), None);
        let socket = |family| rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).map(drop);
        let inet = socket(rustix::net::AddressFamily::INET);
        let alg = socket(rustix::net::AddressFamily::from_raw(38));
        (mounted, inet, alg, std::fs::read_to_string("/proc/self/comm").is_ok())
    });
    let (mounted, inet, alg, reads) = filtered.join().unwrap();
    assert_eq!(mounted, Err(Errno::PERM));
    assert_eq!(alg, Err(Errno::PERM));
    assert_eq!(inet, Ok(()));
    assert!(reads);
}

/// Prints what budgets are compared with: `cargo test -p skep-runtime --lib filter_cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn filter_cost() {
    let program = default_filter();
    let compile_time = fastest(|| drop(default_filter()));
    let load_time = (0..200).map(|_| timed_load(program.clone())).min();
    println!("{} instructions, compiled in {compile_time:?}, loaded in {load_time:?}", program.len());
}

fn timed_load(program: Vec<Instruction>) -> Duration {
    let load = move || {
        let before = Instant::now();
        install(&program);
        before.elapsed()
    };
    std::thread::spawn(load).join().unwrap()
}

fn fastest(mut action: impl FnMut()) -> Duration {
    let time = |_| {
        let before = Instant::now();
        action();
        before.elapsed()
    };
    (0..200).map(time).min().unwrap()
}
