//! The image crate against a real registry, real archives and a real file system. Needs root and Debian's
//! docker-registry, apache2-utils (htpasswd), skopeo and busybox-static; umoci and docker.io for the comparison.

// A failed step of a test's own preparation is a failed test.
#![allow(clippy::unwrap_used)]

mod build;
mod compare;
mod docker;
mod hostile;
mod keeping;
mod layers;
mod programs;
mod protocol;
mod pull;
mod registry;
mod server;
mod tls;
