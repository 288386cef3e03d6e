//! `ports`: `[address:][published[-last]:]target[-last][/protocol]` to the long form.

use crate::diagnostic::Report;
use crate::source::Span;
use crate::value::{Map, Node, Value};

const HELP: &str = "write \"8080:80\", \"127.0.0.1:8080:80\", \"8000-8005:8000-8005/udp\", or target: and published:";

pub(super) fn canonicalize(service: &mut Map, report: &mut Report) {
    let Some(Node { value: Value::List(items), .. }) = service.get_mut("ports") else { return };
    let mut long = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let text = match &item.value {
            Value::Str(text) => text.clone(),
            Value::Int(number, _) => number.to_string(),
            _ => {
                long.push(item);
                continue;
            }
        };
        match short(&text, item.span) {
            Ok(ports) => long.extend(ports),
            Err(problem) => {
                report.error(item.span, format!("invalid port `{text}`: {problem}")).with_help(HELP);
            }
        }
    }
    *items = long;
}

fn short(text: &str, span: Span) -> Result<Vec<Node>, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("the protocol must be tcp, udp or sctp, not `{protocol}`"));
    }
    // The last two parts are ports; what stands before them is an address, colons of IPv6 included.
    let parts: Vec<&str> = rest.rsplitn(3, ':').collect();
    let (target, published, address) = match parts.as_slice() {
        [target] => (*target, "", ""),
        [target, published] => (*target, *published, ""),
        [target, published, address] => (*target, *published, *address),
        _ => unreachable!("rsplitn(3) gives one to three parts"),
    };
    if target.is_empty() {
        return Err("the container's port is missing".to_owned());
    }
    let targets = port_range(target)?;
    // Zero asks for any free port, as leaving it out does.
    let published = if matches!(published, "" | "0") { None } else { Some(port_range(published)?) };
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("`{address}` is not an IP address"));
    }
    let count = targets.1 - targets.0;
    if let Some((first, last)) = published
        && count > 0
        && last - first != count
    {
        return Err(format!(
            "{published_text} and {target} are ranges of different lengths",
            published_text = parts[1]
        ));
    }
    let one = |offset: u16| {
        let mut map = Map::default();
        if !address.is_empty() {
            map.imply("host_ip", span, Value::Str(address.to_owned()));
        }
        map.imply("target", span, Value::Int(i128::from(targets.0 + offset), String::new()));
        if let Some((first, last)) = published {
            let text = match count {
                // Several host ports for one container's: one of them is chosen.
                0 if last > first => format!("{first}-{last}"),
                _ => (first + offset).to_string(),
            };
            map.imply("published", span, Value::Str(text));
        }
        map.imply("protocol", span, Value::Str(protocol.clone()));
        Node::new(span, Value::Map(map))
    };
    Ok((0..=count).map(one).collect())
}

/// `80` or `80-90`.
pub(crate) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let number = |part: &str| match part.parse::<u32>() {
        Ok(port @ 1..=65535) => Ok(port as u16),
        Ok(_) => Err(format!("`{part}` is not a port: ports are 1 to 65535")),
        Err(_) => Err(format!("`{part}` is not a port")),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("the range {text} is backwards"));
    }
    Ok((first, last))
}
