//! What a service refers to: `--secret source=db,target=/run/db,mode=0400`, `--config`, `--network name=back,alias=db`.

use std::str::FromStr;

use skep_model::{ConfigRef, FileTarget, NetworkAttachment, SecretRef};

use super::fields::{fields, unknown, value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFlag(pub SecretRef);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFlag(pub ConfigRef);

/// None for `--network none`: no network at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFlag(pub Option<NetworkAttachment>);

impl FromStr for SecretFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (secret, file) = file("secret", text)?;
        Ok(Self(SecretRef { secret, digest: None, file }))
    }
}

impl FromStr for ConfigFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (config, file) = file("config", text)?;
        Ok(Self(ConfigRef { config, digest: None, file }))
    }
}

/// The name alone, or fields; without a target the file has the name.
fn file(kind: &str, text: &str) -> Result<(String, FileTarget), String> {
    let plain = FileTarget { path: text.to_owned(), uid: 0, gid: 0, mode: 0o444 };
    if !text.contains([',', '=']) {
        return match text {
            "" => Err(format!("the {kind}'s name is missing")),
            name => Ok((name.to_owned(), plain)),
        };
    }
    let (mut source, mut target) = (None, None);
    let mut file = plain;
    for (key, given) in fields(text)? {
        match key.as_str() {
            "source" | "src" => source = Some(value(&key, given)?),
            "target" => target = Some(value(&key, given)?).filter(|target| !target.is_empty()),
            "uid" => file.uid = number(&key, &value(&key, given)?)?,
            "gid" => file.gid = number(&key, &value(&key, given)?)?,
            "mode" => file.mode = mode(&value(&key, given)?)?,
            _ => return Err(unknown(&key, "source, target, uid, gid or mode")),
        }
    }
    let source = source.filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| format!("the {kind} is missing: source=NAME"))?;
    file.path = target.unwrap_or_else(|| source.clone());
    if file.path.split('/').any(|part| part == "..") {
        return Err(format!("target `{}` must not contain `..`; write an absolute path, or a file's name", file.path));
    }
    Ok((source, file))
}

/// Names of users are the container's own, and not known here.
fn number(key: &str, text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{key}` is a number, not `{text}`"))
}

/// Docker takes `400` for a decimal number, which is nobody's wish: it must be written as what it is.
fn mode(text: &str) -> Result<u32, String> {
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let mode = octal.and_then(|digits| u32::from_str_radix(digits, 8).ok()).filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("`{text}` is not a mode; write it in octal, with a zero before it: mode=0400"))
}

impl FromStr for NetworkFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut network, mut aliases) = (None, Vec::new());
        match text.contains([',', '=']) {
            false => network = Some(text.to_owned()),
            true => {
                for (key, given) in fields(text)? {
                    match key.as_str() {
                        "name" => network = Some(value(&key, given)?),
                        "alias" => aliases.push(value(&key, given)?),
                        "driver-opt" => return Err("driver-opt is not supported".to_owned()),
                        _ => return Err(unknown(&key, "name or alias")),
                    }
                }
            }
        }
        match network.as_deref() {
            None | Some("") => Err("the network's name is missing: name=NAME".to_owned()),
            Some("none") => Ok(Self(None)),
            Some(mode @ ("bridge" | "ingress")) => Err(format!(
                "network {mode} is not for services; leave it out, and publish ports with mode=host where a task is to be reached at its own node"
            )),
            Some("host") if !aliases.is_empty() => Err("in the network of the node there are no aliases".to_owned()),
            Some(_) => {
                let network = network.unwrap_or_default();
                Ok(Self(Some(NetworkAttachment { network, aliases, address: None, address_v6: None })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_their_source_unless_told_otherwise() {
        for (text, source, path, uid, gid, mode) in [
            ("db", "db", "db", 0, 0, 0o444),
            ("source=db", "db", "db", 0, 0, 0o444),
            ("src=db,target=/etc/db,uid=33,gid=34,mode=0400", "db", "/etc/db", 33, 34, 0o400),
            ("source=db,mode=0o640", "db", "db", 0, 0, 0o640),
        ] {
            let SecretFlag(secret) = text.parse().unwrap_or_else(|problem| panic!("{text}: {problem}"));
            let file = FileTarget { path: path.to_owned(), uid, gid, mode };
            assert_eq!((secret.secret.as_str(), secret.file), (source, file), "{text}");
            let ConfigFlag(config) = text.parse().unwrap();
            assert_eq!(config.config, source, "{text}");
        }
    }

    #[test]
    fn mistakes_in_references_are_refused() {
        for (text, word) in [
            ("", "missing"),
            ("target=x", "source=NAME"),
            ("source=a,mode=400", "octal"),
            ("source=a,uid=root", "number"),
            ("source=a,target=../b", "`..`"),
            ("source=a,owner=1", "`owner` is not known"),
        ] {
            let problem = text.parse::<SecretFlag>().unwrap_err();
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }

    #[test]
    fn networks_may_have_further_names() {
        let network = |text: &str| text.parse::<NetworkFlag>();
        let NetworkFlag(back) = network("name=back,alias=db,alias=store").unwrap();
        let back = back.unwrap();
        assert_eq!((back.network.as_str(), back.aliases), ("back", vec!["db".to_owned(), "store".to_owned()]));
        assert_eq!(network("none").unwrap(), NetworkFlag(None));
        assert_eq!(network("host").unwrap().0.unwrap().network, "host");
        for wrong in ["bridge", "name=host,alias=x", "name=ingress", "alias=x", "name=a,driver-opt=b=c", ""] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
