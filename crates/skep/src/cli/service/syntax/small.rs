//! The smallest ones: words, amounts, names with values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use skep_compose_spec::{SplitError, bytes, nano_cpus, split};
use skep_model::{Constraint, GenericRequest, MemoryBytes, NanoCpus, Preference, Ulimit};
use skep_runtime::caps;
use skep_runtime::plan::Resource;

/// `gpu=2`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenericFlag(pub GenericRequest);

impl FromStr for GenericFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.split_once('=').filter(|(kind, _)| !kind.is_empty());
        let parsed = split.and_then(|(kind, number)| Some((kind, number.parse().ok().filter(|amount| *amount > 0)?)));
        match parsed {
            Some((kind, amount)) => Ok(Self(GenericRequest { kind: kind.to_owned(), amount })),
            None => Err(format!("`{text}` is not KIND=NUMBER, such as gpu=2")),
        }
    }
}

/// `name=value`, or `name` alone for an empty value, as Docker reads labels and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue(pub String, pub String);

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name.trim().is_empty() {
            true => Err("write it as name=value".to_owned()),
            false => Ok(Self(name.to_owned(), value.to_owned())),
        }
    }
}

/// `512m`; zero is Docker's word for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesFlag(pub Option<MemoryBytes>);

impl FromStr for BytesFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes(text).map(|bytes| Self((bytes > 0).then_some(MemoryBytes(bytes))))
    }
}

/// `0.5` of a core; zero is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpusFlag(pub Option<NanoCpus>);

impl FromStr for CpusFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        nano_cpus(text).map(|cpus| Self((cpus > 0).then_some(NanoCpus(cpus))))
    }
}

/// `CAP_NET_ADMIN`, in any case and with or without its first part; `ALL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilityFlag(pub String);

impl FromStr for CapabilityFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.trim().to_ascii_uppercase();
        match upper.as_str() {
            "" => Err("the capability's name is missing".to_owned()),
            "ALL" => Ok(Self(upper)),
            name => {
                caps::parse(name).map_err(|problem| problem.to_string())?;
                Ok(Self(format!("CAP_{}", name.strip_prefix("CAP_").unwrap_or(name))))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintFlag(pub Constraint);

impl FromStr for ConstraintFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|problem: skep_model::ParseConstraintError| problem.to_string())
    }
}

/// `spread=node.labels.zone`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceFlag(pub Preference);

impl FromStr for PreferenceFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spread = match text.split_once('=') {
            Some(("spread", label)) => label,
            _ => return Err(format!("`{text}` is not a preference; write it as spread=node.labels.zone")),
        };
        let label = ["node.labels.", "engine.labels."].iter().any(|p| spread.len() > p.len() && spread.starts_with(p));
        match label {
            true => Ok(Self(Preference { spread: spread.to_owned() })),
            false => Err(format!("cannot spread over `{spread}`; use node.labels.NAME or engine.labels.NAME")),
        }
    }
}

/// `nofile=1024:2048`, `nofile=1024`; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UlimitFlag(pub Ulimit);

impl FromStr for UlimitFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a limit; write it as nofile=1024:2048, or nofile=1024 for both");
        let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
        if Resource::parse(name).is_none() {
            return Err(format!("`{name}` is not a limit; use names such as nofile, nproc, memlock or core"));
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            text => text.parse::<u64>().map_err(|_| wrong()),
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (number(soft)?, number(hard)?);
        match soft > hard {
            true => Err(format!("the soft limit of {name} is above the hard one")),
            false => Ok(Self(Ulimit { name: name.to_owned(), soft, hard })),
        }
    }
}

/// `name:address`; the address may be `host-gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFlag(pub String, pub String);

impl FromStr for HostFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once([':', '=']).unwrap_or((text, ""));
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        if name.is_empty() || !(address == "host-gateway" || address.parse::<IpAddr>().is_ok()) {
            return Err(format!("`{text}` is not a host; write it as name:10.0.0.1"));
        }
        Ok(Self(name.to_owned(), address.to_owned()))
    }
}

/// A command given as one word of the command line, split as a shell would.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    match split(text) {
        Ok(split) => Ok(split.words),
        Err(SplitError::OpenQuote(quote)) => Err(format!("`{text}` has a {quote} that does not end")),
        Err(SplitError::TrailingBackslash) => Err(format!("`{text}` ends in a backslash")),
    }
}

/// `NAME=value`; a name alone takes the value that the command has it with, and means nothing when it has none.
pub fn environment(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("`{text}` has no name; write it as NAME=value")),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err("a variable needs a name: NAME=value".to_owned()),
        None => Ok(own(text).map(|value| format!("{text}={value}"))),
    }
}

/// A file of variables as `docker run --env-file` reads it: a line each, everything after the first `=` literally.
pub fn environment_file(file: &str, text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default().trim_end();
        let place = format!("{file}:{}", number + 1);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("{place}: `{name}` is not a variable's name; write NAME=value"));
        }
        if let Some(variable) = environment(line, &own).map_err(|problem| format!("{place}: {problem}"))? {
            variables.insert(name.to_owned(), variable);
        }
    }
    Ok(variables.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = String>>(wrong: &[&str]) {
        for text in wrong {
            assert!(text.parse::<T>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_and_names_are_read() {
        assert_eq!("64m".parse(), Ok(BytesFlag(Some(MemoryBytes(64 << 20)))));
        assert_eq!("0".parse(), Ok(BytesFlag(None)));
        assert_eq!("1.5".parse(), Ok(CpusFlag(Some(NanoCpus(1_500_000_000)))));
        assert_eq!("net_admin".parse(), Ok(CapabilityFlag("CAP_NET_ADMIN".to_owned())));
        assert_eq!("all".parse(), Ok(CapabilityFlag("ALL".to_owned())));
        assert_eq!("a=b=c".parse(), Ok(KeyValue("a".to_owned(), "b=c".to_owned())));
        assert_eq!("a".parse(), Ok(KeyValue("a".to_owned(), String::new())));
        assert_eq!("db:10.0.0.1".parse(), Ok(HostFlag("db".to_owned(), "10.0.0.1".to_owned())));
        assert_eq!("db:::1".parse(), Ok(HostFlag("db".to_owned(), "::1".to_owned())));
        assert_eq!("out:host-gateway".parse(), Ok(HostFlag("out".to_owned(), "host-gateway".to_owned())));
        refused::<BytesFlag>(&["", "x", "-1"]);
        refused::<CpusFlag>(&["", "half"]);
        refused::<CapabilityFlag>(&["", "net_admn"]);
        refused::<KeyValue>(&["", "=a"]);
        refused::<HostFlag>(&["db", "db:", ":1.2.3.4", "db:10.0.0"]);
    }

    #[test]
    fn limits_constraints_and_preferences_are_read() {
        let ulimit = |name: &str, soft, hard| UlimitFlag(Ulimit { name: name.to_owned(), soft, hard });
        assert_eq!("nofile=10:20".parse(), Ok(ulimit("nofile", 10, 20)));
        assert_eq!("core=-1".parse(), Ok(ulimit("core", u64::MAX, u64::MAX)));
        assert_eq!(
            "spread=node.labels.zone".parse(),
            Ok(PreferenceFlag(Preference { spread: "node.labels.zone".to_owned() }))
        );
        assert!("node.role==manager".parse::<ConstraintFlag>().is_ok());
        refused::<UlimitFlag>(&["nofile", "files=1", "nofile=2:1", "nofile=x"]);
        refused::<PreferenceFlag>(&["node.labels.zone", "binpack=node.labels.a", "spread=node.id"]);
        refused::<ConstraintFlag>(&["node.role", "role==manager"]);
    }

    #[test]
    fn commands_are_split_as_by_a_shell() {
        assert_eq!(words("sh -c 'echo a b'").unwrap(), ["sh", "-c", "echo a b"]);
        assert_eq!(words("").unwrap(), [""; 0]);
        assert!(words("echo 'a").is_err());
    }

    #[test]
    fn variables_come_from_the_line_the_file_and_the_commands_own() {
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(environment("A=b c", own), Ok(Some("A=b c".to_owned())));
        assert_eq!(environment("A=", own), Ok(Some("A=".to_owned())));
        assert_eq!(environment("HOME", own), Ok(Some("HOME=/root".to_owned())));
        assert_eq!(environment("NONE", own), Ok(None));
        assert!(environment("=a", own).is_err());
        let text = "# a comment\n\nA=\"quoted\" # not one\n  B=2\nHOME\nNONE\nA=later\n";
        assert_eq!(environment_file("f", text, own).unwrap(), ["A=later", "B=2", "HOME=/root"]);
        let problem = environment_file("f.env", "A=1\nB C=2\n", own).unwrap_err();
        assert_eq!(problem, "f.env:2: `B C` is not a variable's name; write NAME=value");
    }
}
