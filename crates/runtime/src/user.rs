//! `user: name[:group]` to numbers, from the container's own `/etc/passwd` and `/etc/group`, as Docker does.
//!
//! The rules are moby's (`GetExecUser`, `GetAdditionalGroups`); the parser is stricter: a line whose numbers do not
//! parse is skipped, where Go's falls back to 0, which is root. Ids above 2^31-1 are refused, not wrapped
//! (CVE-2024-40635). Reading the two files out of the container's root is the core's work.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Highest uid or gid accepted.
pub const MAX_ID: u32 = i32::MAX as u32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// For `setgroups(2)`: the primary group first, then the supplementary and the added ones, each once.
    pub groups: Vec<u32>,
    /// Home directory; `/` for a user without a passwd line, or with an empty field.
    pub home: String,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("uids and gids must be in range 0-2147483647, but `{0}` is not")]
    OutOfRange(String),
}

/// How one half of `user:group` was written.
enum Written<'a> {
    Absent,
    Id(u32),
    Name(&'a str),
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `user` (`""`, `u`, `u:g`, `:g`; names or numbers) against the container's files.
///
/// A number needs no entry; a number with an entry takes that entry's primary group and home. Without a group, the
/// supplementary groups are those that list the user; with one, only it. `extra_groups` is `group_add`.
///
/// # Errors
/// A name without an entry, or a number above 2^31-1.
pub fn resolve(user: &str, passwd: &[u8], group: &[u8], extra_groups: &[String]) -> Result<ResolvedUser, UserError> {
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let wanted = Written::parse(user_part)?;
    let entry = passwd_lines(passwd).find(|line| match wanted {
        Written::Absent => line.uid == 0,
        Written::Id(uid) => line.uid == uid,
        Written::Name(name) => line.name == name,
    });
    let (uid, mut gid, home) = match (&entry, &wanted) {
        (Some(line), _) => (line.uid, line.gid, line.home),
        (None, Written::Absent) => (0, 0, ""),
        (None, Written::Id(uid)) => (*uid, 0, ""),
        (None, Written::Name(name)) => return Err(UserError::NoUser((*name).to_owned())),
    };
    let mut groups = Vec::new();
    match (group_part, &entry) {
        ("", Some(line)) => {
            groups.extend(group_lines(group).filter(|g| g.lists(line.name)).map(|g| g.gid));
        }
        ("", None) => {}
        (name, _) => gid = find_group(name, group)?,
    }
    for name in extra_groups {
        groups.push(find_group(name, group)?);
    }
    groups.insert(0, gid);
    let home = if home.is_empty() { "/" } else { home };
    Ok(ResolvedUser { uid, gid, groups: each_once(groups), home: home.to_owned() })
}

impl<'a> Written<'a> {
    /// Digits are an id; a signed number is out of range, as Docker says of it; everything else is a name.
    fn parse(text: &'a str) -> Result<Self, UserError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::Absent);
        }
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        match text.parse::<u32>() {
            Ok(id) if id <= MAX_ID => Ok(Self::Id(id)),
            Ok(_) | Err(_) => Err(UserError::OutOfRange(text.to_owned())),
        }
    }
}

fn find_group(written: &str, group: &[u8]) -> Result<u32, UserError> {
    match Written::parse(written)? {
        Written::Id(gid) => Ok(gid),
        Written::Absent => Err(UserError::NoGroup(String::new())),
        Written::Name(name) => group_lines(group)
            .find(|line| line.name == name)
            .map(|line| line.gid)
            .ok_or_else(|| UserError::NoGroup(name.to_owned())),
    }
}

fn each_once(groups: Vec<u32>) -> Vec<u32> {
    let mut once = Vec::with_capacity(groups.len());
    for gid in groups {
        if !once.contains(&gid) {
            once.push(gid);
        }
    }
    once
}

impl GroupLine<'_> {
    fn lists(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == user)
    }
}

/// `name:password:uid:gid:gecos:home:shell`; trailing fields may be missing.
fn passwd_lines(file: &[u8]) -> impl Iterator<Item = PasswdLine<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = strict_id(fields.nth(1)?)?;
        let gid = strict_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdLine { name, uid, gid, home })
    })
}

/// `name:password:gid:member,member`.
fn group_lines(file: &[u8]) -> impl Iterator<Item = GroupLine<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = strict_id(fields.nth(1)?)?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// Lines that are UTF-8, trimmed; comments and empty ones left out.
fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn strict_id(field: &str) -> Option<u32> {
    let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| field.parse().ok()).flatten().filter(|id| *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
# comment:x:7:7::/:
bin:x:1:1:bin:/bin:/sbin/nologin
broken:x:zero:0::/:
huge:x:4294967296:0::/:
signed:x:+5:0::/:
web:x:33:33::/var/www:
1234:x:99:99:a name of digits:/n:
nohome:x:44:44:::/bin/sh
short:x:45:46
";
    const GROUP: &str = "\
root:x:0:
bin:x:1:web
web:x:33:
audio:x:63:root,web,web
docker:x:999:web
broken:x:nan:web
";

    fn check(user: &str, extra: &[&str], expected: Expect) {
        let extra: Vec<_> = extra.iter().map(|s| (*s).to_owned()).collect();
        let text = match resolve(user, PASSWD.as_bytes(), GROUP.as_bytes(), &extra) {
            Ok(user) => format!("{}:{} {:?} {}", user.uid, user.gid, user.groups, user.home),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn names_and_numbers_resolve_as_in_docker() {
        check("", &[], expect!["0:0 [0, 63] /root"]);
        check("root", &[], expect!["0:0 [0, 63] /root"]);
        check("web", &[], expect!["33:33 [33, 1, 63, 999] /var/www"]);
        check("33", &[], expect!["33:33 [33, 1, 63, 999] /var/www"]);
        check("5000", &[], expect!["5000:0 [0] /"]);
        check("nohome", &[], expect!["44:44 [44] /"]);
        check("short", &[], expect!["45:46 [46] /"]);
    }

    #[test]
    fn a_group_replaces_the_supplementary_ones() {
        check("web:audio", &[], expect!["33:63 [63] /var/www"]);
        check("web:5", &[], expect!["33:5 [5] /var/www"]);
        check(":audio", &[], expect!["0:63 [63] /root"]);
        check("5000:web", &[], expect!["5000:33 [33] /"]);
    }

    #[test]
    fn added_groups_come_on_top_once() {
        check("web", &["audio", "7", "docker"], expect!["33:33 [33, 1, 63, 999, 7] /var/www"]);
        check("web:bin", &["33"], expect!["33:1 [1, 33] /var/www"]);
        check("web", &["nope"], expect!["unable to find group nope: no matching entries in group file"]);
    }

    #[test]
    fn unknown_names_and_wild_numbers_are_refused() {
        check("nope", &[], expect!["unable to find user nope: no matching entries in passwd file"]);
        check("web:nope", &[], expect!["unable to find group nope: no matching entries in group file"]);
        check("4294967296", &[], expect!["uids and gids must be in range 0-2147483647, but `4294967296` is not"]);
        check("2147483648", &[], expect!["uids and gids must be in range 0-2147483647, but `2147483648` is not"]);
        check("2147483647", &[], expect!["2147483647:0 [0] /"]);
        check("-1", &[], expect!["uids and gids must be in range 0-2147483647, but `-1` is not"]);
        check("0:-1", &[], expect!["uids and gids must be in range 0-2147483647, but `-1` is not"]);
    }

    #[test]
    fn lines_whose_numbers_do_not_parse_are_nobody() {
        for name in ["broken", "huge", "signed", "# comment", "1234x"] {
            let error = resolve(name, PASSWD.as_bytes(), GROUP.as_bytes(), &[]).unwrap_err();
            assert_eq!(error, UserError::NoUser(name.to_owned()));
        }
        check("1234", &[], expect!["1234:0 [0] /"]);
    }

    proptest! {
        #[test]
        fn only_an_entry_or_a_number_makes_a_user(user in ".{0,20}", passwd in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(resolved) = resolve(&user, &passwd, b"", &[]) {
                prop_assert!(resolved.uid <= MAX_ID && resolved.groups.iter().all(|gid| *gid <= MAX_ID));
            }
        }
    }
}
