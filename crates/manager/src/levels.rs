//! Feature levels: when the cluster's rises, and who is too old for it.
//!
//! Pure. What a level is, and which one this build has: [`skep_model::FEATURE_LEVEL`].

use skep_model::{Change, Cluster, ClusterConfig};

/// What the leader writes once every manager has told a level above the cluster's.
///
/// A manager that has not told one yet (its agent never connected) counts as one that has none.
pub fn level_change(cluster: &Cluster) -> Option<Change> {
    let config = cluster.config.as_ref()?;
    let managers = cluster.nodes.values().filter(|node| node.manager.is_some());
    let told = managers.map(|node| node.description.as_ref().map_or(0, |description| description.level));
    let level = told.min().filter(|level| *level > config.level)?;
    let config = ClusterConfig { level, ..(**config).clone() };
    let expected = Some(config.meta.version);
    Some(Change::SetClusterConfig { config: Box::new(config), expected })
}

/// Why a manager of level `own` cannot be one in this cluster; the words name the version that it needs.
pub fn refuse_older(cluster: &Cluster, own: u32, own_version: &str) -> Result<(), String> {
    let level = cluster.level();
    if own >= level {
        return Ok(());
    }
    let described = cluster.nodes.values().filter(|node| node.manager.is_some());
    let described = described.filter_map(|node| node.description.as_ref());
    let fitting = described.filter(|description| description.level >= level);
    let version = fitting.map(|description| description.engine_version.as_str()).min_by_key(|version| numbers(version));
    let needed = match version {
        Some(version) => format!("install skep {version} or newer on this node"),
        None => "install the version that the other managers run on this node".to_owned(),
    };
    Err(format!(
        "this skep ({own_version}, feature level {own}) is too old to be a manager of this cluster, which uses feature \
         level {level}; {needed}"
    ))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_model::{
        ClusterSpec, ContentKind, Feature, Hook, Id, IdSource, JoinTokenHashes, ManagerStatus, Meta, Mount, MountKind,
        Node, NodeDescription, NodeSpec, NodeStatus, ServiceSpec, Timestamp,
    };

    use super::*;
    use crate::admission::{self, NewContent};

    /// Managers with their levels and versions, and a worker of level 0.
    fn cluster(level: u32, managers: &[(Option<u32>, &str)]) -> Cluster {
        let config = ClusterConfig {
            id: Id::from_u128(1),
            meta: Meta::new(Timestamp(1)),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            join_tokens: JoinTokenHashes::default(),
            next_raft_id: 9,
            unlock_key: None,
            level,
            trust: Default::default(),
        };
        let mut cluster = Cluster::default();
        cluster.config = Some(Arc::new(config));
        for (number, (level, version)) in managers.iter().chain(&[(Some(0), "0.0.1")]).enumerate() {
            let id = Id::from_u128(number as u128 + 1);
            let status = ManagerStatus { raft_id: number as u64, address: "m:7377".to_owned() };
            let description = level.map(|level| NodeDescription {
                level,
                engine_version: (*version).to_owned(),
                ..NodeDescription::default()
            });
            let node = Node {
                id,
                meta: Meta::new(Timestamp(1)),
                spec: NodeSpec::default(),
                description,
                status: NodeStatus::default(),
                manager: (number < managers.len()).then_some(status),
                certificate: Default::default(),
                tunnel: None,
            };
            cluster.nodes.insert(id, Arc::new(node));
        }
        cluster
    }

    #[test]
    fn the_level_rises_when_the_last_manager_has_it_and_only_once() {
        assert_eq!(level_change(&cluster(1, &[(Some(2), "0.2.0"), (Some(1), "0.1.0")])), None);
        assert_eq!(level_change(&cluster(1, &[(Some(2), "0.2.0"), (None, "")])), None, "one has not told");
        assert_eq!(level_change(&cluster(3, &[(Some(2), "0.2.0")])), None, "it never falls");
        assert_eq!(level_change(&cluster(0, &[])), None);
        let mut cluster = cluster(0, &[(Some(2), "0.2.0"), (Some(3), "0.3.0")]);
        assert!(!cluster.has(Feature::Autolock));
        let change = level_change(&cluster).unwrap();
        cluster.apply(&change, 5).unwrap();
        assert_eq!(cluster.level(), 2);
        assert!(cluster.has(Feature::Autolock));
        assert_eq!(level_change(&cluster), None);
    }

    #[test]
    fn an_older_manager_is_told_which_version_it_needs() {
        let cluster = cluster(2, &[(Some(2), "0.10.0"), (Some(2), "0.9.1"), (Some(1), "0.1.0")]);
        assert_eq!(refuse_older(&cluster, 2, "0.9.1"), Ok(()));
        let refused = refuse_older(&cluster, 1, "0.1.0").unwrap_err();
        assert!(
            refused.contains("0.1.0, feature level 1") && refused.contains("install skep 0.9.1 or newer"),
            "{refused}"
        );
    }

    #[test]
    fn what_an_older_manager_would_lose_waits_for_it_by_its_name() {
        let hook = Hook { command: vec!["true".to_owned()], ..Hook::default() };
        let options = [("type", "tmpfs"), ("device", "tmpfs")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kind = MountKind::Volume {
            name: Some("v".to_owned()),
            no_copy: false,
            subpath: None,
            driver: None,
            options: options.into(),
            labels: Default::default(),
        };
        let mut spec = ServiceSpec::new("web", "nginx:1");
        let container = &mut spec.task.container;
        (container.post_start, container.pre_stop) = (vec![hook.clone()], vec![hook]);
        container.mounts = vec![Mount { target: "/v".to_owned(), read_only: false, kind }];
        let template = || NewContent {
            name: "page".to_owned(),
            labels: Default::default(),
            data: b"{{.Task.Slot}}".to_vec(),
            kind: ContentKind::Template,
        };
        let ask = |level: u32| {
            let (cluster, mut ids) = (cluster(level, &[(Some(level), "0.1.0")]), IdSource::from_seed(1));
            let service = admission::service(&cluster, spec.clone(), Timestamp(2), &mut ids);
            let config = admission::config(&cluster, template(), Timestamp(2), &mut ids);
            (service.map_err(|refused| refused.to_string()), config.map_err(|refused| refused.to_string()))
        };
        let (service, config) = ask(3);
        let (service, config) = (service.unwrap_err(), config.unwrap_err());
        assert!(service.contains("post_start, pre_stop, volumes: driver_opts is known to newer managers"), "{service}");
        assert!(config.contains("templates are known to newer managers"), "{config}");
        let (service, config) = ask(4);
        assert!(service.is_ok(), "{service:?}");
        assert_eq!(config.unwrap().contents.current.kind(), ContentKind::Template);
    }
}
