//! Options of a volume, as Docker's driver `local` takes them: what is mounted where the volume's data is.

use crate::Labels;

/// `type`, `device` and `o`: the three things that mount(8) is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeSource<'o> {
    pub kind: &'o str,
    pub device: &'o str,
    /// Words between commas.
    pub options: &'o str,
}

impl<'o> VolumeSource<'o> {
    /// `None` for a volume without options: a folder. The error says what is wrong, and what would be right.
    pub fn of(options: &'o Labels) -> Result<Option<Self>, String> {
        if options.is_empty() {
            return Ok(None);
        }
        if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o")) {
            return Err(format!("the option `{unknown}` is not known; a volume takes type, device and o"));
        }
        let wanted = |key: &str, example: &str| {
            let given = options.get(key).map(String::as_str).filter(|value| !value.is_empty());
            given.ok_or_else(|| format!("the option `{key}` is missing; {example}"))
        };
        let kind = wanted("type", "write what to mount, such as type: nfs, or type: none with o: bind")?;
        let device = wanted("device", "write what is mounted, such as device: \":/export\"")?;
        let source = Self { kind, device, options: options.get("o").map_or("", String::as_str) };
        source.check()?;
        Ok(Some(source))
    }

    fn check(&self) -> Result<(), String> {
        if self.kind.starts_with("nfs") && self.option("addr").is_none() {
            return Err("nfs needs its server in the option `o`: \"addr=10.0.0.5,rw\"".to_owned());
        }
        if self.is_bind() && !self.device.starts_with('/') {
            return Err(format!("the device `{}` of a bind must be an absolute path of the node", self.device));
        }
        if self.words().any(|word| word == "loop") {
            return Err(
                "`loop` is not supported: attach the file on the node (losetup), and name the loop device".to_owned()
            );
        }
        Ok(())
    }

    pub fn words(&self) -> impl Iterator<Item = &'o str> {
        self.options.split(',').map(str::trim).filter(|word| !word.is_empty())
    }

    /// The value of `name=…`.
    pub fn option(&self, name: &str) -> Option<&'o str> {
        self.words().filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn is_bind(&self) -> bool {
        self.words().any(|word| matches!(word, "bind" | "rbind"))
    }
}
