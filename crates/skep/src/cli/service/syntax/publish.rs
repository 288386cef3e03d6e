//! `--publish 8080:80`, `--publish 8000-8010:80-90/udp`, `--publish published=8080,target=80,mode=host`.

use std::net::IpAddr;
use std::str::FromStr;

use skep_model::{PortProtocol, PortSpec, PublishMode};

use super::fields::{fields, unknown, value};

/// One port, or those of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishFlag {
    pub ports: Vec<PortSpec>,
    /// As written: what is to be removed may leave it open.
    pub mode: Option<PublishMode>,
}

type Range = (u16, u16);

/// A range larger than this is a mistake, or would be a service for its own sake.
const RANGE_MAX: usize = 1000;

impl FromStr for PublishFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains('=') {
            true => long(text),
            false => short(text),
        }
    }
}

fn short(text: &str) -> Result<PublishFlag, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    // The last two parts are ports; what stands before them is an address, colons of IPv6 included.
    let parts: Vec<&str> = rest.rsplitn(3, ':').collect();
    let (target, published, address) = match parts.as_slice() {
        [target] => (*target, "", ""),
        [target, published] => (*target, *published, ""),
        [target, published, address] => (*target, *published, *address),
        _ => unreachable!("rsplitn(3) gives one to three parts"),
    };
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let host_ip = match address {
        "" => None,
        address => Some(address.parse().map_err(|_| format!("`{address}` is not an IP address"))?),
    };
    let published = if published.is_empty() { None } else { Some(range(published)?) };
    ports(range(target)?, published, self::protocol(protocol)?, None, host_ip)
}

fn long(text: &str) -> Result<PublishFlag, String> {
    let (mut target, mut published, mut protocol, mut mode) = (None, None, PortProtocol::Tcp, None);
    let mut host_ip = None;
    for (key, given) in fields(text)? {
        match key.as_str() {
            "target" => target = Some(range(&value(&key, given)?)?),
            "published" => published = Some(range(&value(&key, given)?)?),
            "protocol" => protocol = self::protocol(&value(&key, given)?)?,
            "mode" => {
                mode = Some(match value(&key, given)?.as_str() {
                    "ingress" => PublishMode::Ingress,
                    "host" => PublishMode::Host,
                    other => return Err(format!("`{other}` is not a way to publish; use ingress or host")),
                });
            }
            "host_ip" | "host-ip" => {
                let address = value(&key, given)?;
                host_ip = Some(address.parse().map_err(|_| format!("`{address}` is not an IP address"))?);
            }
            _ => return Err(unknown(&key, "target, published, protocol, mode or host_ip")),
        }
    }
    let target = target.ok_or("the container's port is missing: target=80")?;
    ports(target, published, protocol, mode, host_ip)
}

fn ports(
    target: Range,
    published: Option<Range>,
    protocol: PortProtocol,
    mode: Option<PublishMode>,
    host_ip: Option<IpAddr>,
) -> Result<PublishFlag, String> {
    let count = usize::from(target.1 - target.0) + 1;
    // Zero asks for any free port, as leaving it out does.
    let published = published.filter(|published| *published != (0, 0));
    if target.0 == 0 || published.is_some_and(|(first, _)| first == 0) {
        return Err("ports are 1 to 65535".to_owned());
    }
    let outer = published.map_or(count, |(first, last)| usize::from(last - first) + 1);
    if count.max(outer) > RANGE_MAX {
        return Err(format!("{} are more than {RANGE_MAX} ports; publish those that are used", count.max(outer)));
    }
    // Several of the node's ports may lead to one of the container's, as in Docker.
    if count > 1 && outer != count {
        return Err(format!(
            "{outer} ports are published for {count} of the container: the ranges must be equally long"
        ));
    }
    let offset = |first: u16, index: usize| first + u16::try_from(index).expect("an index within a range of ports");
    let one = |index: usize| PortSpec {
        name: None,
        protocol,
        target: if count > 1 { offset(target.0, index) } else { target.0 },
        published: published.map_or(0, |(first, _)| offset(first, index)),
        mode: mode.unwrap_or_default(),
        host_ip,
    };
    Ok(PublishFlag { ports: (0..outer).map(one).collect(), mode })
}

fn protocol(text: &str) -> Result<PortProtocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Err("ports of sctp are not supported; use tcp or udp".to_owned()),
        other => Err(format!("`{other}` is not a protocol; use tcp or udp")),
    }
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<Range, String> {
    let number = |part: &str| part.parse::<u16>().map_err(|_| format!("`{part}` is not a port: ports are 1 to 65535"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    match first > last {
        true => Err(format!("the range {text} is backwards")),
        false => Ok((first, last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tasks;

    #[test]
    fn both_forms_and_ranges_are_read() {
        for (text, shown) in [
            ("80", "*:0->80/tcp"),
            ("8080:80", "*:8080->80/tcp"),
            ("53:53/udp", "*:53->53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("[::1]:8080:80", "[::1]:8080->80/tcp"),
            ("8000-8002:80-82", "*:8000->80/tcp, *:8001->81/tcp, *:8002->82/tcp"),
            ("8000-8001:80", "*:8000->80/tcp, *:8001->80/tcp"),
            ("published=8080,target=80,protocol=udp", "*:8080->80/udp"),
            ("target=80-81", "*:0->80/tcp, *:0->81/tcp"),
        ] {
            let ports = text.parse::<PublishFlag>().unwrap_or_else(|problem| panic!("{text}: {problem}")).ports;
            let each: Vec<String> = ports.iter().map(|port| tasks::ports(std::slice::from_ref(port))).collect();
            assert_eq!(each.join(", "), shown, "{text}");
        }
        let host: PublishFlag = "target=80,mode=host".parse().unwrap();
        assert_eq!((host.mode, host.ports[0].mode), (Some(PublishMode::Host), PublishMode::Host));
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, word) in [
            ("", "not a port"),
            ("80000", "1 to 65535"),
            ("0", "1 to 65535"),
            ("90-80", "backwards"),
            ("8000-8010:80-82", "equally long"),
            ("80/sctp", "sctp"),
            ("x:80", "not a port"),
            ("1.2.3:80:80", "not an IP address"),
            ("published=80", "target=80"),
            ("target=80,mode=nat", "ingress or host"),
            ("target=80,to=90", "`to` is not known"),
            ("1-2000:1-2000", "more than 1000"),
        ] {
            let problem = text.parse::<PublishFlag>().unwrap_err();
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }
}
