//! Whether a node runs images of a platform: by its processor, or by an emulator.
//!
//! A node names every variant that it runs (an ARMv7 processor also v6 and v5), so that variants need only be equal.

use std::borrow::Cow;

use skep_model::{Node, Platform, PlatformSpec};

/// Whether the node runs one of `wanted`, however slowly.
pub fn runs(node: &Node, wanted: &[PlatformSpec]) -> bool {
    wanted.is_empty() || runs_itself(node, wanted) || any(emulated(node), wanted)
}

/// Whether the node runs one of `wanted` only by an emulator.
pub fn emulates(node: &Node, wanted: &[PlatformSpec]) -> bool {
    !wanted.is_empty() && !runs_itself(node, wanted) && any(emulated(node), wanted)
}

fn runs_itself(node: &Node, wanted: &[PlatformSpec]) -> bool {
    any(node.description.as_ref().map_or(&[], |description| &description.platforms), wanted)
}

pub fn emulated(node: &Node) -> &[Platform] {
    node.description.as_ref().map_or(&[], |description| &description.emulated)
}

fn any(platforms: &[Platform], wanted: &[PlatformSpec]) -> bool {
    wanted.iter().any(|spec| platforms.iter().any(|platform| matches(platform, spec)))
}

fn matches(platform: &Platform, spec: &PlatformSpec) -> bool {
    let (architecture, variant) = normal(&spec.architecture, &spec.variant);
    let (own, own_variant) = normal(&platform.architecture, &platform.variant);
    (spec.os.is_empty() || platform.os.eq_ignore_ascii_case(&spec.os))
        && (architecture.is_empty() || own == architecture)
        // An image that does not say its variant is for all, and so is a node that knows none.
        && (spec.variant.is_empty() && implied(&spec.architecture).is_empty() || own_variant == variant)
}

/// `uname`'s words, Debian's and Go's are the same processor; the variant that all have is none.
fn normal<'a>(architecture: &'a str, variant: &'a str) -> (Cow<'a, str>, Cow<'a, str>) {
    let architecture = lower(architecture);
    let implied = implied(&architecture);
    let architecture = match architecture.as_ref() {
        "x86_64" | "x86-64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        "i386" | "i486" | "i586" | "i686" => "386".into(),
        "armv8l" | "armv7l" | "armhf" | "armv6l" | "armel" => "arm".into(),
        _ => architecture,
    };
    let variant = match lower(variant) {
        variant if variant.is_empty() => implied.into(),
        variant if variant.bytes().all(|byte| byte.is_ascii_digit()) => format!("v{variant}").into(),
        variant => variant,
    };
    let variant = match (architecture.as_ref(), variant.as_ref()) {
        ("amd64", "v1") | ("arm64", "v8") => "".into(),
        _ => variant,
    };
    (architecture, variant)
}

/// The variant that the name of an architecture says.
fn implied(architecture: &str) -> &'static str {
    match architecture {
        "armv8l" => "v8",
        "armv7l" | "armhf" => "v7",
        "armv6l" | "armel" => "v6",
        _ => "",
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(node: &str, spec: &str) -> bool {
        let mut parts = node.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let platform = Platform { os: next(), architecture: next(), variant: next() };
        let mut parts = spec.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        matches(&platform, &PlatformSpec { os: next(), architecture: next(), variant: next() })
    }

    #[test]
    fn architectures_have_many_names_and_variants_are_exact() {
        for (node, spec) in [
            ("linux/amd64", "linux/x86_64"),
            ("linux/amd64", "linux/amd64/v1"),
            ("linux/arm64", "linux/aarch64/v8"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/arm/v7", "linux/arm/7"),
            ("linux/arm/v7", "linux/armv7l"),
            ("linux/arm/v6", "linux/armel"),
            ("linux/amd64", ""),
        ] {
            assert!(fits(node, spec), "{node} {spec}");
        }
        for (node, spec) in [
            ("linux/amd64", "linux/amd64/v3"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/arm/v6", "linux/armhf"),
            ("linux/arm64", "linux/arm"),
            ("linux/amd64", "windows/amd64"),
        ] {
            assert!(!fits(node, spec), "{node} {spec}");
        }
    }
}
