//! What a node says of its machine.

use skep_image::Platform;
use skep_model::{MemoryBytes, NanoCpus, NodeDescription, NodeResources};

/// The machine as the scheduler and listings know it. `warnings` are limits that its kernel cannot hold.
pub fn describe(warnings: &[String]) -> NodeDescription {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = rustix::system::sysinfo();
    let platforms = Platform::host().into_iter().map(|platform| skep_model::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant.unwrap_or_default(),
    });
    NodeDescription {
        hostname: text(uname.nodename()),
        platforms: platforms.collect(),
        resources: NodeResources {
            nano_cpus: NanoCpus(cpus as u64 * 1_000_000_000),
            memory: MemoryBytes(memory.totalram as u64 * u64::from(memory.mem_unit.max(1))),
        },
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_labels: Default::default(),
        kernel: text(uname.release()),
        missing_features: warnings.to_vec(),
        level: own_level(),
    }
}

/// The feature level of this build. `SKEP_LEVEL` lets a debug build stand for a neighbouring version in tests.
pub fn own_level() -> u32 {
    let pretended = std::env::var("SKEP_LEVEL").ok().filter(|_| cfg!(debug_assertions));
    pretended.and_then(|level| level.parse().ok()).unwrap_or(skep_model::FEATURE_LEVEL)
}
