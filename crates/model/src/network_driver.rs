//! What makes a network: its driver, and the options that go with it.
//!
//! The spec keeps the user's words; this file says what they mean, or what is wrong with them.

use crate::{Labels, NetworkSpec};

/// How a network's containers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkDriver {
    /// Over all nodes, through the tunnel between them.
    Overlay,
    /// On each node one of its own: only tasks of the same node meet.
    Bridge,
    /// Each container is a station on the local network behind an interface of its node.
    Macvlan,
}

/// The interface of the node that a `macvlan` network's containers are behind.
pub const PARENT: &str = "parent";
const MODE: &str = "macvlan_mode";
/// Says of an overlay that it is encrypted; all of them are.
const ENCRYPTED: &str = "encrypted";
/// Longer names the kernel does not have.
const INTERFACE_BYTES_MAX: usize = 15;
/// Docker's names for what every node has there; none of them is a network of the cluster.
const OF_NODES: [&str; 5] = ["host", "none", "bridge", "ingress", "docker_gwbridge"];

impl NetworkDriver {
    pub const ALL: [Self; 3] = [Self::Overlay, Self::Bridge, Self::Macvlan];

    /// By Docker's word for it; none: there is no such driver.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "" => Some(Self::Overlay),
            _ => Self::ALL.into_iter().find(|driver| driver.word() == word),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
        }
    }
}

impl NetworkSpec {
    /// A stored spec has a known driver; one of a newer manager is never told to an older one.
    pub fn driver(&self) -> NetworkDriver {
        NetworkDriver::named(&self.driver).unwrap_or(NetworkDriver::Overlay)
    }

    /// What it asks for that came with [`crate::Feature::Drivers`], by the names in a compose file.
    pub fn needs_drivers(&self) -> Option<&'static str> {
        match self.driver() {
            NetworkDriver::Overlay if self.ip_range.is_some() => Some("ip_range"),
            NetworkDriver::Overlay if !self.aux_addresses.is_empty() => Some("aux_addresses"),
            NetworkDriver::Overlay => None,
            NetworkDriver::Bridge => Some("driver: bridge"),
            NetworkDriver::Macvlan => Some("driver: macvlan"),
        }
    }

    pub(crate) fn validate_driver(&self) -> Result<(), String> {
        if OF_NODES.contains(&self.name.as_str()) {
            return Err(format!(
                "`{}` is not a network of the cluster: Docker has one of that name on each node",
                self.name
            ));
        }
        let Some(driver) = NetworkDriver::named(&self.driver) else {
            return Err(format!("driver `{}` is not supported; use overlay, bridge or macvlan", self.driver));
        };
        let options = &self.driver_options;
        match driver {
            // Docker's other options of an overlay concern a VXLAN that there is none of.
            NetworkDriver::Overlay => match [PARENT, MODE].into_iter().find(|option| options.contains_key(*option)) {
                Some(option) => {
                    Err(format!("option `{option}` belongs to driver macvlan, and this network is an overlay"))
                }
                None => Ok(()),
            },
            NetworkDriver::Bridge => match options.keys().next() {
                Some(option) if option == ENCRYPTED => {
                    Err("option `encrypted` belongs to driver overlay: a bridge network does not leave its node"
                        .to_owned())
                }
                Some(option) => Err(format!("option `{option}` is not supported by driver bridge; remove it")),
                None => Ok(()),
            },
            NetworkDriver::Macvlan => self.validate_macvlan(options),
        }
    }

    fn validate_macvlan(&self, options: &Labels) -> Result<(), String> {
        let parent = options.get(PARENT).map(String::as_str).unwrap_or_default();
        if parent.is_empty() {
            return Err(
                "driver macvlan needs the option `parent`: the nodes' interface on the local network, such as eth0 or \
                 eth0.10"
                    .to_owned(),
            );
        }
        if parent.len() > INTERFACE_BYTES_MAX || parent.contains(['/', ' ', ':']) {
            return Err(format!(
                "`{parent}` cannot be an interface: `parent` is a name of 1 to 15 letters, such as eth0"
            ));
        }
        if let Some(mode) = options.get(MODE).filter(|mode| *mode != "bridge") {
            return Err(format!("macvlan_mode `{mode}` is not supported; use bridge, which is the default"));
        }
        if let Some(option) = options.keys().find(|option| ![PARENT, MODE].contains(&option.as_str())) {
            return Err(match option.as_str() {
                ENCRYPTED => {
                    "option `encrypted` belongs to driver overlay: on the local network nothing is encrypted".to_owned()
                }
                _ => format!("option `{option}` is not supported by driver macvlan; it knows parent and macvlan_mode"),
            });
        }
        if self.subnet.is_none() {
            return Err(
                "driver macvlan needs the subnet of the local network, and its gateway if that is not the first \
                        address"
                    .to_owned(),
            );
        }
        match self.ipv6 == Some(true) || self.subnet_v6.is_some() {
            true => {
                Err("networks of driver macvlan have no IPv6 yet; remove enable_ipv6 and the IPv6 subnet".to_owned())
            }
            false => Ok(()),
        }
    }

    pub(crate) fn validate_ranges(&self) -> Result<(), String> {
        let Some(subnet) = self.subnet else {
            let unbounded = [("ip_range", self.ip_range.is_some()), ("aux_addresses", !self.aux_addresses.is_empty())];
            return match unbounded.into_iter().find(|(_, given)| *given) {
                Some((what, _)) => Err(format!("{what} needs a subnet")),
                None => Ok(()),
            };
        };
        if let Some((name, address)) = self.aux_addresses.iter().find(|(_, address)| !subnet.contains(*address)) {
            return Err(format!("the auxiliary address {name}={address} lies outside the subnet {subnet}"));
        }
        let Some(range) = self.ip_range else { return Ok(()) };
        if range.trunc() != range {
            return Err(format!("ip_range {range} has host bits set; did you mean {}?", range.trunc()));
        }
        if !subnet.contains(&range) {
            return Err(format!("ip_range {range} lies outside the subnet {subnet}"));
        }
        if self.driver() != NetworkDriver::Macvlan && range.prefix_len() > 28 {
            return Err(format!("ip_range {range} is too small: /28 is the smallest that can be shared by nodes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(driver: &str, options: &[(&str, &str)], subnet: Option<&str>) -> String {
        let spec = NetworkSpec {
            name: "lan".to_owned(),
            driver: driver.to_owned(),
            driver_options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            ..NetworkSpec::default()
        };
        spec.validate().map_or_else(|invalid| invalid.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn each_driver_takes_its_own_options_and_says_what_it_lacks() {
        let lan = Some("192.168.1.0/24");
        let eth0 = ("parent", "eth0");
        assert_eq!(problem("", &[("encrypted", "")], None), "fine");
        assert_eq!(problem("bridge", &[], None), "fine");
        assert_eq!(problem("macvlan", &[eth0, ("macvlan_mode", "bridge")], lan), "fine");
        let refusals = [
            (problem("weave", &[], None), "use overlay, bridge or macvlan"),
            (problem("macvlan", &[], lan), "needs the option `parent`"),
            (problem("macvlan", &[eth0], None), "needs the subnet"),
            (problem("macvlan", &[eth0, ("macvlan_mode", "vepa")], lan), "use bridge"),
            (problem("macvlan", &[eth0, ("encrypted", "")], lan), "belongs to driver overlay"),
            (problem("macvlan", &[("parent", "a-name-that-is-too-long")], lan), "1 to 15 letters"),
            (problem("bridge", &[("encrypted", "")], None), "belongs to driver overlay"),
            (problem("overlay", &[eth0], None), "belongs to driver macvlan"),
        ];
        for (said, part) in refusals {
            assert!(said.starts_with("network lan: ") && said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn ranges_lie_within_the_subnet_and_names_of_docker_are_not_taken() {
        let spec = |range: &str, aux: &str| NetworkSpec {
            name: "lan".to_owned(),
            subnet: Some("192.168.1.0/24".parse().unwrap()),
            ip_range: Some(range.parse().unwrap()),
            aux_addresses: [("printer".to_owned(), aux.parse().unwrap())].into(),
            ..NetworkSpec::default()
        };
        assert!(spec("192.168.1.64/26", "192.168.1.9").validate().is_ok());
        let said = |range, aux| spec(range, aux).validate().unwrap_err().problem;
        assert!(said("192.168.2.0/26", "192.168.1.9").contains("outside the subnet"));
        assert!(said("192.168.1.1/26", "192.168.1.9").contains("did you mean 192.168.1.0/26"));
        assert!(said("192.168.1.0/26", "10.0.0.9").contains("printer=10.0.0.9"));
        assert!(said("192.168.1.0/30", "192.168.1.9").contains("too small"));
        let host = NetworkSpec { name: "host".to_owned(), ..NetworkSpec::default() };
        assert!(host.validate().unwrap_err().problem.contains("on each node"));
    }
}
