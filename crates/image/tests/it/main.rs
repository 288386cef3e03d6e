//! The image crate against a real registry, real archives and a real file system. Needs root and Debian's
//! docker-registry, skopeo and busybox-static; umoci for the comparison.

mod build;
mod compare;
mod hostile;
mod keeping;
mod layers;
mod programs;
mod protocol;
mod pull;
mod registry;
mod server;
