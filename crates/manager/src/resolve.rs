//! Images are resolved once, by the leader: every replica of a service runs the same bytes.
//!
//! When the registry cannot be asked, a service that runs keeps the digest that it has.

use futures::future::BoxFuture;
use skep_model::{PlatformSpec, TaskSpec};

/// What a registry says of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of the manifest or index, `sha256:…`.
    pub digest: String,
    /// The platforms that it exists for; empty when the registry does not say.
    pub platforms: Vec<PlatformSpec>,
}

/// Asks registries; the daemon's is real, tests bring their own.
pub trait ImageResolver: Send + Sync + 'static {
    /// `auth` is the base64 that came with the service's spec; the error is for the user.
    fn resolve<'a>(&'a self, image: &'a str, auth: Option<&'a str>) -> BoxFuture<'a, Result<ResolvedImage, String>>;
}

/// Pins a task's image to a digest; returns what to warn the user of.
///
/// `running` is the pinned image that the service has now.
pub async fn pin_image(resolver: &impl ImageResolver, task: &mut TaskSpec, running: Option<&str>) -> Option<String> {
    let container = &mut task.container;
    if container.image.contains("@sha256:") {
        return None;
    }
    match resolver.resolve(&container.image, container.registry_auth.as_deref()).await {
        Ok(resolved) => {
            container.image = format!("{}@{}", container.image, resolved.digest);
            if task.placement.platforms.is_empty() {
                task.placement.platforms = resolved.platforms;
            }
            None
        }
        Err(reason) => {
            let kept =
                running.filter(|running| running.split_once('@').is_some_and(|(name, _)| name == container.image));
            match kept {
                Some(kept) => {
                    let warning =
                        format!("image {}: {reason}; the service keeps the version that it runs", container.image);
                    container.image = kept.to_owned();
                    Some(warning)
                }
                None => Some(format!("image {}: {reason}; each node will look for it by itself", container.image)),
            }
        }
    }
}
