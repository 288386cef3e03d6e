//! The small languages of `service create` and `service update`: a type for each, read from what Docker takes.
//!
//! Nothing here knows a cluster or a file; each type holds the part of a spec that it stands for.

mod fields;
mod mount;
mod publish;
mod reference;
mod small;

pub use mount::MountFlag;
pub use publish::PublishFlag;
pub use reference::{ConfigFlag, NetworkFlag, SecretFlag};
pub use small::{
    BytesFlag, CapabilityFlag, ConstraintFlag, CpusFlag, GenericFlag, HostFlag, KeyValue, PreferenceFlag, UlimitFlag,
    environment, environment_file, words,
};
