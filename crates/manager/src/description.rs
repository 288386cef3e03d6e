//! What a node says of its machine, as far as every manager of the cluster can keep it.

use skep_model::{Cluster, Feature, NodeDescription};

/// As it is to be written. Until every manager knows what emulators and generic resources are, the former are platforms
/// like others, as they were before, and there are none of the latter.
pub fn writable(cluster: &Cluster, said: &NodeDescription) -> NodeDescription {
    let mut description = said.clone();
    if !cluster.has(Feature::Services) {
        description.platforms.append(&mut description.emulated);
        description.generic.clear();
    }
    description
}

/// Whether more can be written now than when `said` was: the node is to say it again.
pub fn is_to_be_said_again(cluster: &Cluster, said: &NodeDescription) -> bool {
    let more = !said.emulated.is_empty() || !said.generic.is_empty();
    more && cluster.has(Feature::Services)
}

#[cfg(test)]
mod tests {
    use skep_model::{GenericResource, Platform};

    use super::*;

    #[test]
    fn a_manager_that_knows_no_emulators_is_told_of_platforms_alone() {
        let platform = |architecture: &str| Platform { architecture: architecture.to_owned(), ..Platform::default() };
        let said = NodeDescription {
            platforms: vec![platform("amd64")],
            emulated: vec![platform("arm64")],
            generic: vec![GenericResource { kind: "gpu".to_owned(), amount: 1, ids: Vec::new() }],
            ..NodeDescription::default()
        };
        let written = writable(&Cluster::default(), &said);
        assert_eq!(written.platforms, [platform("amd64"), platform("arm64")]);
        assert!(written.emulated.is_empty() && written.generic.is_empty());
        assert!(!is_to_be_said_again(&Cluster::default(), &said));
    }
}
