//! Which images a node can run, best first, and which entry of a multi-platform index that picks.
//!
//! Decided by the kernel and the CPU, not by how this binary was compiled: 32-bit Raspberry Pi OS runs on a
//! 64-bit kernel, and an ARMv6 Pi must never get an ARMv7 image.

use std::fmt;
use std::fs;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::manifest::{Descriptor, Index, RawPlatform};

/// `linux/arm/v7`. A missing variant means v8 on arm64, v1 on amd64, and on arm whatever the place says where it
/// is missing: v7 in an index, unknown in an image's own configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: write os/architecture or os/architecture/variant, as in linux/arm64")]
pub struct PlatformError(String);

impl Platform {
    pub fn linux(architecture: &str, variant: Option<&str>) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
            .normalized()
    }

    /// What this machine runs, best first: its own kernel and CPU, then what binfmt handlers emulate.
    pub fn host() -> Vec<Platform> {
        let mut accepted = Platform::native();
        accepted.extend(Platform::emulated());
        accepted
    }

    /// What this machine's own kernel and CPU run, best first.
    pub fn native() -> Vec<Platform> {
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        accepted_by(&machine, &cpuinfo)
    }

    /// What its binfmt handlers run besides.
    pub fn emulated() -> Vec<Platform> {
        let native = Platform::native();
        let foreign = |platform: &Platform| native.iter().all(|own| own.architecture != platform.architecture);
        emulated().into_iter().filter(foreign).collect()
    }

    /// Spells architecture and variant as OCI does (`aarch64` → `arm64`) and drops variants that are the default.
    #[must_use]
    pub fn normalized(mut self) -> Platform {
        self.os = self.os.to_ascii_lowercase();
        self.architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.take().map(|v| v.to_ascii_lowercase()).filter(|v| !v.is_empty());
        let numbered = variant.map(|v| if v.bytes().all(|b| b.is_ascii_digit()) { format!("v{v}") } else { v });
        let (architecture, implied) = match self.architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "i386" | "i486" | "i586" | "i686" => ("386", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        let variant = numbered.or(implied.map(str::to_owned));
        let variant = variant.filter(|v| default_variant(architecture) != Some(v));
        self.architecture = architecture.to_owned();
        self.variant = variant;
        self
    }
}

fn default_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm64" => Some("v8"),
        _ => None,
    }
}

/// As written in an index or on a command line, where `linux/arm` means ARMv7 (image-spec image-index.md).
fn with_arm_variant(mut platform: Platform) -> Platform {
    if platform.architecture == "arm" && platform.variant.is_none() {
        platform.variant = Some("v7".to_owned());
    }
    platform
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Platform { os: os.into(), architecture: architecture.into(), variant }.normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// Picks the entry for the best accepted platform; of equals the first wins (image-spec image-index.md).
/// Attestations (`unknown/unknown`) and entries of unknown kinds are passed over.
pub(crate) fn select<'i>(index: &'i Index, accepted: &[Platform]) -> Option<&'i Descriptor> {
    let offers: Vec<_> = index.images().collect();
    let wanted = |platform: &Platform| {
        let platform = with_arm_variant(platform.clone());
        let fits = |offered: RawPlatform| with_arm_variant(offered.normalized()) == platform;
        offers.iter().find(|offer| offer.platform.clone().is_some_and(fits))
    };
    let found = accepted.iter().find_map(wanted);
    // An index of one image that does not say its platform: the image's own configuration is checked later.
    found.or_else(|| offers.first().filter(|only| offers.len() == 1 && only.platform.is_none())).copied()
}

/// Whether an image outside an index may run here. A configuration without a variant fits every variant of its
/// architecture: single images for ARMv6 were long published without one.
pub(crate) fn accepts(accepted: &[Platform], image: &Platform) -> bool {
    let unsaid = image.architecture.is_empty() && image.os.is_empty();
    unsaid
        || accepted.iter().any(|platform| {
            platform.os == image.os
                && platform.architecture == image.architecture
                && (image.variant.is_none() || image.variant == platform.variant)
        })
}

fn accepted_by(machine: &str, cpuinfo: &str) -> Vec<Platform> {
    let arm = |variants: &[&str]| variants.iter().map(|v| Platform::linux("arm", Some(v))).collect::<Vec<_>>();
    match machine {
        "x86_64" => {
            let level = amd64_level(cpuinfo);
            let levels = (1..=level).rev().map(|n| Platform::linux("amd64", Some(&format!("v{n}"))));
            levels.chain([Platform::linux("386", None)]).collect()
        }
        "i386" | "i486" | "i586" | "i686" => vec![Platform::linux("386", None)],
        "aarch64" | "arm64" => {
            let mut accepted = vec![Platform::linux("arm64", Some("v8"))];
            if runs_aarch32(cpuinfo) {
                accepted.extend(arm(&["v8", "v7", "v6", "v5"]));
            }
            accepted
        }
        "armv8l" | "armv8b" => arm(&["v8", "v7", "v6", "v5"]),
        "armv7l" | "armv7b" => arm(&["v7", "v6", "v5"]),
        "armv6l" => arm(&["v6", "v5"]),
        other if other.starts_with("armv5") => arm(&["v5"]),
        "loongarch64" => vec![Platform::linux("loong64", None)],
        other => vec![Platform::linux(other, None)],
    }
}

/// The x86-64 psABI level, from the CPU flags that each level adds.
fn amd64_level(cpuinfo: &str) -> u8 {
    const LEVELS: [&[&str]; 3] = [
        &["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"],
        &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"],
        &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
    ];
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags: Vec<&str> = line.map(|line| line.split_whitespace().collect()).unwrap_or_default();
    let has_all = |level: &&&[&str]| level.iter().all(|flag| flags.contains(flag));
    1 + LEVELS.iter().take_while(has_all).count() as u8
}

/// 32-bit ARM programs run on a 64-bit kernel only if every core can. The kernel does not say so, therefore the
/// Arm Ltd. cores that can are listed (Arm's technical reference manuals); others are taken as 64-bit only.
fn runs_aarch32(cpuinfo: &str) -> bool {
    const ARM_LTD: &str = "0x41";
    const CAPABLE: [&str; 16] = [
        "0xd01", "0xd03", "0xd04", "0xd05", "0xd07", "0xd08", "0xd09", "0xd0a", "0xd0b", "0xd0c", "0xd0d", "0xd0e",
        "0xd41", "0xd42", "0xd44", "0xd4b",
    ];
    let values = |key: &'static str| {
        let lines = cpuinfo.lines().filter(move |line| line.starts_with(key));
        lines.filter_map(|line| line.split(':').nth(1)).map(str::trim)
    };
    let mut parts = values("CPU part").peekable();
    parts.peek().is_some()
        && values("CPU implementer").all(|implementer| implementer == ARM_LTD)
        && parts.all(|part| CAPABLE.contains(&part))
}

/// Architectures with an enabled binfmt handler that keeps working inside a container (flag F: the interpreter
/// is opened at registration, kernel Documentation/admin-guide/binfmt-misc.rst).
fn emulated() -> Vec<Platform> {
    const HANDLERS: [(&str, &str, Option<&str>); 10] = [
        ("qemu-aarch64", "arm64", None),
        ("qemu-arm", "arm", Some("v7")),
        ("qemu-arm", "arm", Some("v6")),
        ("qemu-arm", "arm", Some("v5")),
        ("qemu-x86_64", "amd64", None),
        ("qemu-i386", "386", None),
        ("qemu-riscv64", "riscv64", None),
        ("qemu-ppc64le", "ppc64le", None),
        ("qemu-s390x", "s390x", None),
        ("qemu-loongarch64", "loong64", None),
    ];
    let usable = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/{name}")).unwrap_or_default();
        let fixed = text.lines().any(|line| line.strip_prefix("flags:").is_some_and(|flags| flags.contains('F')));
        text.starts_with("enabled") && fixed
    };
    HANDLERS
        .iter()
        .filter(|(name, _, _)| usable(name))
        .map(|(_, arch, variant)| Platform::linux(arch, *variant))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(machine: &str, cpuinfo: &str, offered: &[&str]) -> Option<String> {
        let manifests: Vec<_> = offered
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let mut parts = text.splitn(3, '/');
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
                    "digest": crate::Digest::of(&[i as u8]).to_string(),
                    "platform": {"os": parts.next(), "architecture": parts.next(), "variant": parts.next()},
                })
            })
            .collect();
        let index = Index::parse(serde_json::json!({ "manifests": manifests }).to_string().as_bytes()).unwrap();
        let chosen = select(&index, &accepted_by(machine, cpuinfo))?;
        let at = (0..offered.len()).find(|i| crate::Digest::of(&[*i as u8]) == chosen.digest);
        Some(offered[at.unwrap()].to_owned())
    }

    const A72: &str = "CPU implementer\t: 0x41\nCPU part\t: 0xd08\n";
    const APPLE: &str = "CPU implementer\t: 0x61\nCPU part\t: 0x022\n";

    #[test]
    fn the_best_platform_of_the_host_is_chosen() {
        let all = ["linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64", "unknown/unknown"];
        assert_eq!(pick("aarch64", A72, &all).as_deref(), Some("linux/arm64/v8"));
        assert_eq!(pick("aarch64", A72, &all[..2]).as_deref(), Some("linux/arm/v7"));
        assert_eq!(pick("aarch64", APPLE, &all[..2]), None);
        assert_eq!(pick("armv7l", "", &all).as_deref(), Some("linux/arm/v7"));
        assert_eq!(pick("armv6l", "", &all).as_deref(), Some("linux/arm/v6"));
        assert_eq!(pick("armv6l", "", &all[1..]), None);
        assert_eq!(pick("x86_64", "", &all).as_deref(), Some("linux/amd64"));
        assert_eq!(pick("x86_64", "", &["windows/amd64", "linux/386"]).as_deref(), Some("linux/386"));
    }

    #[test]
    fn a_missing_variant_is_the_default_one() {
        assert_eq!(pick("aarch64", "", &["linux/arm64"]).as_deref(), Some("linux/arm64"));
        assert_eq!(pick("armv7l", "", &["linux/arm/v5", "linux/arm"]).as_deref(), Some("linux/arm"));
        assert_eq!(pick("armv6l", "", &["linux/arm"]), None);
    }

    #[test]
    fn higher_amd64_levels_are_taken_only_by_cpus_that_have_them() {
        let v3 = "flags\t: cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave\n";
        let offered = ["linux/amd64", "linux/amd64/v3", "linux/amd64/v4"];
        assert_eq!(pick("x86_64", v3, &offered).as_deref(), Some("linux/amd64/v3"));
        assert_eq!(pick("x86_64", "", &offered).as_deref(), Some("linux/amd64"));
    }

    #[test]
    fn a_single_image_must_fit_but_may_omit_its_variant() {
        let pi1 = accepted_by("armv6l", "");
        assert!(accepts(&pi1, &Platform::linux("arm", None)));
        assert!(!accepts(&pi1, &Platform::linux("arm", Some("v7"))));
        assert!(!accepts(&pi1, &Platform::linux("amd64", None)));
        assert_eq!("Linux/AARCH64/8".parse::<Platform>().unwrap(), Platform::linux("arm64", None));
        assert!("linux".parse::<Platform>().is_err());
    }
}
