//! Asks registries what a reference means, for the manager.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use skep_agent::{chain, credentials};
use skep_image::{ImageStore, Reference};
use skep_manager::{ImageResolver, ResolvedImage};
use skep_model::PlatformSpec;

/// A registry that does not answer must not hold up a deploy.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct RegistryResolver(pub ImageStore);

impl ImageResolver for RegistryResolver {
    fn resolve<'a>(&'a self, image: &'a str, auth: Option<&'a str>) -> BoxFuture<'a, Result<ResolvedImage, String>> {
        async move {
            let reference: Reference = image.parse().map_err(|error| chain(&error))?;
            let credentials = auth.map(credentials).transpose()?;
            let asked = tokio::time::timeout(PATIENCE, self.0.resolve(&reference, credentials.as_ref())).await;
            let resolved = asked.map_err(|_| format!("its registry did not answer within {} s", PATIENCE.as_secs()))?;
            let resolved = resolved.map_err(|error| chain(&error))?;
            let platforms = resolved.platforms.into_iter().map(|platform| PlatformSpec {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant.unwrap_or_default(),
            });
            Ok(ResolvedImage { digest: resolved.digest.to_string(), platforms: platforms.collect() })
        }
        .boxed()
    }
}
