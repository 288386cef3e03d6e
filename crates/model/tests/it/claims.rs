//! What one alone may have: ranges of networks and ports of services, whoever asks first.

use std::collections::BTreeMap;

use skep_model::*;

use crate::{AT, service_spec};

fn cluster(level: u32) -> Cluster {
    let config = ClusterConfig {
        id: Id::from_u128(1),
        meta: Meta::new(AT),
        spec: ClusterSpec::default(),
        ca_certificate: String::new(),
        ca_key: String::new(),
        join_tokens: JoinTokenHashes { worker: String::new(), manager: String::new() },
        next_raft_id: 1,
        unlock_key: None,
        level,
        trust: TrustHistory::default(),
    };
    let mut cluster = Cluster::default();
    cluster.apply(&Change::SetClusterConfig { config: Box::new(config), expected: None }, 1).unwrap();
    cluster
}

fn network(number: u128, v4: &str, v6: Option<&str>) -> Change {
    let subnet: ipnet::Ipv4Net = v4.parse().unwrap();
    let network = Network {
        id: Id::from_u128(number),
        meta: Meta::new(AT),
        spec: NetworkSpec { name: format!("n{number}"), ..NetworkSpec::default() },
        subnet,
        gateway: subnet.hosts().next().unwrap(),
        blocks: BTreeMap::new(),
        subnet_v6: v6.map(|range| range.parse().unwrap()),
    };
    Change::CreateNetwork { network: Box::new(network) }
}

fn service(number: u128, published: u16, mode: PublishMode) -> Change {
    let mut spec = service_spec(&format!("s{number}"));
    let port = PortSpec { name: None, protocol: PortProtocol::Tcp, target: 80, published, mode, host_ip: None };
    spec.endpoint.ports = vec![port];
    let service = Service::new(Id::from_u128(number), spec, AT);
    Change::CreateService { service: Box::new(service) }
}

fn taken(cluster: &mut Cluster, change: &Change) -> String {
    match cluster.apply(change, 9) {
        Err(Rejection::Taken { what, by }) => format!("{what} {by}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_range_is_given_to_one_network_alone() {
    let mut cluster = cluster(FEATURE_LEVEL);
    cluster.apply(&network(1, "10.64.0.0/18", Some("fd00:1::/64")), 2).unwrap();
    let told = taken(&mut cluster, &network(2, "10.64.0.0/18", None));
    assert_eq!(told, "a part of 10.64.0.0/18, the subnet of network n2, network n1");
    taken(&mut cluster, &network(2, "10.64.1.0/24", None));
    taken(&mut cluster, &network(2, "10.0.0.0/8", None));
    taken(&mut cluster, &network(2, "10.64.64.0/18", Some("fd00:1::/72")));
    cluster.apply(&network(2, "10.64.64.0/18", Some("fd00:2::/64")), 3).unwrap();
}

#[test]
fn a_port_of_every_node_is_given_to_one_new_service_alone() {
    let mut cluster = cluster(FEATURE_LEVEL);
    cluster.apply(&service(1, 8080, PublishMode::Ingress), 2).unwrap();
    assert_eq!(taken(&mut cluster, &service(2, 8080, PublishMode::Ingress)), "port 8080 of service s2 service s1");
    cluster.apply(&service(3, 8081, PublishMode::Ingress), 3).unwrap();
    cluster.apply(&service(4, 0, PublishMode::Ingress), 4).unwrap();
    cluster.apply(&service(5, 0, PublishMode::Ingress), 5).unwrap();
}

#[test]
fn managers_that_do_not_look_are_not_contradicted() {
    let mut cluster = cluster(FEATURE_LEVEL - 1);
    for number in [1, 2] {
        cluster.apply(&network(number, "10.64.0.0/18", None), 2).unwrap();
        cluster.apply(&service(number, 8080, PublishMode::Ingress), 3).unwrap();
    }
}
