//! Compose project to service, network, secret and config specs; the plan of a deploy.
