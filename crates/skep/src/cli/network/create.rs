//! `network create`, with Docker's flags: each works, or says why it does not.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::bail;
use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_api::{ControlClient, CreateRequest};
use skep_model::{NetworkSpec, Twins};

use crate::cli::Result;
use crate::cli::node::label;
use crate::cli::output;

#[derive(Debug, Args)]
pub struct Options {
    /// overlay (over all nodes), bridge (on each node one of its own) or macvlan (the local network)
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// The range of its addresses, one of the cluster's pool by default; one more may be of IPv6
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// The address of its way out; the first of the range by default
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// The part of the subnet that tasks get their addresses of; the whole of it by default
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<IpNet>,
    /// An address that somebody else has, and no task gets: name=address; may be given several times
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS")]
    aux_addresses: Vec<AuxAddress>,
    /// IPv6 addresses for its containers too; so it is where an IPv6 --subnet is given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// IPv4 addresses for its containers; always
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// No way out of it
    #[arg(long)]
    internal: bool,
    /// Containers outside services may attach
    #[arg(long)]
    attachable: bool,
    /// A label: name=value; may be given several times
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A driver option: name=value; may be given several times
    #[arg(short, long = "opt", value_name = "OPTION", value_parser = label)]
    options: Vec<(String, String)>,
    /// swarm is the only one
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// default is the only one
    #[arg(long, value_name = "DRIVER")]
    ipam_driver: Option<String>,
    /// Not supported
    #[arg(long, value_name = "OPTION", hide = true)]
    ipam_opt: Vec<String>,
    /// Not supported: the routing mesh needs no network
    #[arg(long, hide = true)]
    ingress: bool,
    /// Not supported
    #[arg(long, hide = true)]
    config_only: bool,
    /// Not supported
    #[arg(long, value_name = "NETWORK", hide = true)]
    config_from: Option<String>,
    name: String,
}

#[derive(Debug, Clone)]
struct AuxAddress {
    name: String,
    address: Ipv4Addr,
}

impl FromStr for AuxAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("write it as name=address")?;
        let address = address.parse().map_err(|_| format!("`{address}` is not an IPv4 address"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

pub async fn run(options: Options, control: &ControlClient) -> Result {
    let written = control.create(CreateRequest::Network(options.spec()?)).await?;
    written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    output::line(written.id)?;
    Ok(())
}

impl Options {
    fn spec(self) -> Result<NetworkSpec> {
        self.refuse_what_there_is_not()?;
        let (subnet, subnet_v6) = one_of_each("--subnet", &self.subnet)?;
        let (ip_range, ip_range_v6) = one_of_each("--ip-range", &self.ip_range)?;
        if let Some(range) = ip_range_v6 {
            bail!(
                "--ip-range {range}: IPv6 addresses have the places of the IPv4 ones; give a range of the IPv4 subnet"
            );
        }
        let spec = NetworkSpec {
            gateway: gateway(&self.gateway, subnet, subnet_v6)?,
            name: self.name,
            labels: self.labels.into_iter().collect(),
            driver: self.driver,
            driver_options: self.options.into_iter().collect(),
            internal: self.internal,
            attachable: self.attachable,
            subnet,
            ipv6: self.ipv6,
            subnet_v6,
            ip_range,
            aux_addresses: self.aux_addresses.into_iter().map(|aux| (aux.name, aux.address)).collect(),
        };
        spec.validate()?;
        Ok(spec)
    }

    fn refuse_what_there_is_not(&self) -> Result {
        if let Some(scope) = self.scope.as_deref().filter(|scope| *scope != "swarm") {
            bail!(
                "--scope {scope}: every network is known to the whole cluster (swarm); --driver bridge makes one of which each \
                 node has its own"
            );
        }
        if let Some(driver) = self.ipam_driver.as_deref().filter(|driver| *driver != "default") {
            bail!("--ipam-driver {driver}: the managers give addresses out; leave it out");
        }
        if let Some(option) = self.ipam_opt.first() {
            bail!("--ipam-opt {option}: there is nothing to set; leave it out");
        }
        if self.ipv4 == Some(false) {
            bail!("--ipv4=false: every network has IPv4, and may have IPv6 beside it (--ipv6)");
        }
        if self.ingress {
            bail!("--ingress: the routing mesh is there by itself and needs no network of its own; leave it out");
        }
        if self.config_only || self.config_from.is_some() {
            bail!(
                "--config-only and --config-from are not supported: a network is the whole cluster's, with its subnet and \
                 options given at once; a macvlan's tasks get addresses of its --ip-range, whichever node they are on"
            );
        }
        Ok(())
    }
}

/// At most one of each family.
fn one_of_each(flag: &str, ranges: &[IpNet]) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>)> {
    let (mut v4, mut v6) = (None, None);
    for range in ranges {
        let is_second = match range {
            IpNet::V4(range) => v4.replace(*range).is_some(),
            IpNet::V6(range) => v6.replace(*range).is_some(),
        };
        if is_second {
            bail!("{flag} {range}: a network has one of each family, and this is the second");
        }
    }
    Ok((v4, v6))
}

/// The IPv4 gateway; that of IPv6 follows from it, and may be said if it is that.
fn gateway(given: &[IpAddr], v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Result<Option<Ipv4Addr>> {
    let (mut gateway, mut gateway_v6) = (None, None);
    for address in given {
        let is_second = match address {
            IpAddr::V4(address) => gateway.replace(*address).is_some(),
            IpAddr::V6(address) => gateway_v6.replace(*address).is_some(),
        };
        if is_second {
            bail!("--gateway {address}: a network has one of each family, and this is the second");
        }
    }
    let Some(said) = gateway_v6 else { return Ok(gateway) };
    let Some(v6) = v6 else { bail!("--gateway {said}: give the IPv6 --subnet that it lies in") };
    // Of any IPv4 subnet that may be chosen the first address is the gateway.
    let v4 = v4.unwrap_or(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 18));
    let first = Ipv4Addr::from_bits(v4.network().to_bits() + 1);
    match (Twins { v4, v6 }).of(gateway.unwrap_or(first)) {
        Some(right) if right != said => {
            bail!("--gateway {said}: the IPv6 gateway of this network is {right}; leave it out")
        }
        _ => Ok(gateway),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn spec(line: &str) -> Result<NetworkSpec> {
        Line::try_parse_from(["create"].into_iter().chain(line.split(' ')))?.options.spec()
    }

    #[test]
    fn dockers_flags_say_what_the_network_is() {
        let lan = spec(
            "-d macvlan -o parent=eth0 --subnet 192.168.1.0/24 --gateway 192.168.1.1 --ip-range 192.168.1.64/27 \
             --aux-address printer=192.168.1.70 --scope swarm --label a=b lan",
        )
        .unwrap();
        assert_eq!((lan.driver.as_str(), lan.driver_options["parent"].as_str()), ("macvlan", "eth0"));
        assert_eq!(lan.ip_range, "192.168.1.64/27".parse().ok());
        assert_eq!(lan.aux_addresses["printer"], Ipv4Addr::new(192, 168, 1, 70));
        let both = spec("--subnet 10.1.0.0/24 --subnet fd00:1::/64 --gateway fd00:1::1 both").unwrap();
        assert_eq!((both.gateway, both.subnet_v6), (None, "fd00:1::/64".parse().ok()));
    }

    #[test]
    fn what_there_is_not_is_refused_with_the_way_on() {
        let said = |line: &str| spec(line).unwrap_err().to_string();
        let refusals = [
            ("--ingress x", "needs no network"),
            ("--scope local x", "--driver bridge"),
            ("--config-only x", "--ip-range"),
            ("--ipam-driver dhcp x", "managers give addresses"),
            ("--ipv4=false x", "has IPv4"),
            ("--subnet 10.1.0.0/24 --subnet 10.2.0.0/24 x", "the second"),
            ("--subnet 10.1.0.0/24 --subnet fd00:1::/64 --gateway fd00:1::9 x", "is fd00:1::1"),
            ("-d weave x", "use overlay, bridge or macvlan"),
            ("-d macvlan --subnet 10.1.0.0/24 x", "needs the option `parent`"),
            ("--aux-address printer x", "name=address"),
        ];
        for (line, part) in refusals {
            assert!(said(line).contains(part), "{line}: {}", said(line));
        }
    }
}
