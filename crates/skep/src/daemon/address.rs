//! The addresses that others reach this node under.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};

use super::config::PORT;

/// An address with a port, IPv6 in brackets; one that has a port already stays as it is.
pub fn host_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) if address.contains(':') => address.to_owned(),
        Err(_) => format!("{address}:{port}"),
    }
}

/// The address that others most likely reach this node under: the source address of its default route.
pub fn default_address() -> String {
    // Connecting a UDP socket sends nothing; it only chooses a route.
    let chosen = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    chosen.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

/// The address that this node reaches a manager (`host:port`) from, which is how that manager sees it too.
pub async fn address_towards(manager: &str) -> Option<String> {
    let target = tokio::net::lookup_host(manager).await.ok()?.next()?;
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // As above: nothing is sent.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Where to listen: an address or an interface, with a port or without one.
pub fn listen_address(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if text.parse::<IpAddr>().is_err() => (host, port.parse().ok()),
        _ => (text, Some(PORT)),
    };
    let ip = by_interface(host.to_owned())?.parse::<IpAddr>().ok();
    match (ip, port) {
        (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => bail!("`{text}` is no address to listen on; write ADDRESS, ADDRESS:PORT, or an interface in its place"),
    }
}

/// What others are told to reach this node under: an address or an interface, or a host name, with a port or without one.
pub fn advertise_address(text: String) -> Result<String> {
    let host = match text.rsplit_once(':') {
        Some((host, _)) if text.parse::<IpAddr>().is_err() => host.trim_matches(['[', ']']),
        _ => text.as_str(),
    };
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST => {
            bail!("`{text}` is no address that other nodes can reach this one at; give one of this machine's own")
        }
        Ok(_) => Ok(text),
        Err(_) if is_host_name(host) => by_interface(text),
        Err(_) => {
            bail!("`{text}` is no address to advertise; write ADDRESS, ADDRESS:PORT, or an interface in its place")
        }
    }
}

/// Whether it can be one at all; of numbers alone it is a misspelt IPv4 address. `_` is in names of interfaces.
fn is_host_name(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | '@');
    let numeric = |letter: char| letter.is_ascii_digit() || letter == '.';
    (1..=253).contains(&text.len()) && text.chars().all(allowed) && !text.chars().all(numeric)
}

/// Whether this machine has the address. What is no IP address is taken for a name that leads here.
pub fn is_own(address: &str) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return true };
    match UdpSocket::bind((address, 0)) {
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
        Ok(_) => true,
    }
}

/// The first address of an interface, where `text` names one; any other text is an address already.
fn by_interface(text: String) -> Result<String> {
    let is_interface = std::path::Path::new("/sys/class/net").join(&text).exists() && !text.contains('/');
    if text.is_empty() || !is_interface {
        return Ok(text);
    }
    // Linux gives a socket that is bound to an interface that interface's address; a broadcast needs no route.
    let socket = UdpSocket::bind("0.0.0.0:0").context("failed to open a socket")?;
    socket.set_broadcast(true).context("failed to prepare a socket")?;
    let bound = socket2::SockRef::from(&socket).bind_device(Some(text.as_bytes()));
    bound.with_context(|| format!("failed to look at interface {text}"))?;
    let reached = socket.connect("255.255.255.255:9");
    match reached.and_then(|()| socket.local_addr()) {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip().to_string()),
        _ => bail!("interface {text} has no IPv4 address; give the address itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_a_port_and_brackets_where_it_needs_them() {
        assert_eq!(host_port("10.0.0.1", 7377), "10.0.0.1:7377");
        assert_eq!(host_port("fd00::1", 7377), "[fd00::1]:7377");
        assert_eq!(host_port("10.0.0.1:1", 7377), "10.0.0.1:1");
        assert_eq!(host_port("", 7377), ":7377");
    }

    #[test]
    fn listening_takes_an_address_with_a_port_or_without() {
        let read =
            |text: &str| listen_address(text).map(|address| address.to_string()).map_err(|error| error.to_string());
        assert_eq!(read("10.0.0.1:99").unwrap(), "10.0.0.1:99");
        assert_eq!(read("10.0.0.1").unwrap(), "10.0.0.1:7377");
        assert_eq!(read("fd00::1").unwrap(), "[fd00::1]:7377");
        assert!(read("nowhere:99").unwrap_err().contains("nowhere:99"));
        assert!(read("10.0.0.1:x").is_err());
    }

    #[test]
    fn what_others_are_told_must_lead_somewhere() {
        let told = |text: &str| advertise_address(text.to_owned()).map_err(|error| error.to_string());
        for good in ["10.0.0.1", "10.0.0.1:99", "fd00::1", "[fd00::1]:99", "manager.example.org", "m1:7377"] {
            assert_eq!(told(good).as_deref(), Ok(good));
        }
        for wrong in
            ["", "0.0.0.0", "[::]:7377", "::", "224.0.0.1", "255.255.255.255:1", "10.0.0.256", "1.2.3", "a b", "x/y"]
        {
            assert!(told(wrong).unwrap_err().contains(&format!("`{wrong}` is no address")), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_nobody_here_is_not_its_own() {
        assert!(is_own("127.0.0.1") && is_own("::1") && is_own("manager.example.org"));
        assert!(!is_own("198.51.100.77"));
    }

    #[test]
    fn what_is_no_interface_is_an_address_already() {
        assert_eq!(by_interface("10.0.0.1".to_owned()).unwrap(), "10.0.0.1");
        assert_eq!(by_interface(String::new()).unwrap(), "");
    }
}
