//! What a node says of its machine.

use skep_image::Platform;
use skep_model::{GenericResource, MemoryBytes, NanoCpus, NodeDescription, NodeResources};

/// The machine as the scheduler and listings know it. `warnings` are limits that its kernel cannot hold, `generic` what
/// its operator says that it has besides.
pub fn describe(warnings: &[String], generic: &[GenericResource]) -> NodeDescription {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = rustix::system::sysinfo();
    NodeDescription {
        hostname: text(uname.nodename()),
        platforms: Platform::native().into_iter().map(told).collect(),
        resources: NodeResources {
            nano_cpus: NanoCpus(cpus as u64 * 1_000_000_000),
            memory: MemoryBytes(memory.totalram as u64 * u64::from(memory.mem_unit.max(1))),
        },
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_labels: Default::default(),
        kernel: text(uname.release()),
        missing_features: warnings.to_vec(),
        level: own_level(),
        emulated: Platform::emulated().into_iter().map(told).collect(),
        generic: generic.to_vec(),
    }
}

fn told(platform: Platform) -> skep_model::Platform {
    let Platform { os, architecture, variant } = platform;
    skep_model::Platform { os, architecture, variant: variant.unwrap_or_default() }
}

/// The feature level of this build. `SKEP_LEVEL` lets a debug build stand for a neighbouring version in tests.
pub fn own_level() -> u32 {
    let pretended = std::env::var("SKEP_LEVEL").ok().filter(|_| cfg!(debug_assertions));
    pretended.and_then(|level| level.parse().ok()).unwrap_or(skep_model::FEATURE_LEVEL)
}
