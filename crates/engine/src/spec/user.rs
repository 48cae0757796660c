//! Who a process runs as: `USER` and `--user` resolved by the container's own account files.
//!
//! The files are the container's, hence hostile: they come in as bytes whose length the caller
//! has bounded, every number is read with an explicit range, and a text that looks like a number
//! is never taken for a name.

use silo_types::Error;

/// The greatest id that a process may have: ids above it are reserved or read as negative.
const MAX_ID: u32 = i32::MAX as u32;

/// More supplementary groups than this (`NGROUPS_MAX`) cannot be set.
const MAX_GROUPS: usize = 65_536;

/// Contents of `/etc/passwd` and `/etc/group`; empty where a file does not exist.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: Vec<u8>,
    /// `/etc/group`.
    pub group: Vec<u8>,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The supplementary groups: the primary one, those that list the user, those asked for.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the account has none.
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn id(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse::<u32>().ok())
        .flatten()
        .filter(|&id| id <= MAX_ID)
}

fn lines(file: &[u8]) -> impl Iterator<Item = &str> {
    file.split(|&b| b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn passwd(file: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn groups(file: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// A user or group as a person wrote it.
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
    /// A number that no id can be.
    OutOfRange,
}

fn wanted(text: &str) -> Wanted<'_> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Wanted::Name(text);
    }
    if text.starts_with('-') {
        return Wanted::OutOfRange;
    }
    id(digits).map_or(Wanted::OutOfRange, Wanted::Id)
}

// docker wording
fn out_of_range() -> Error {
    Error::invalid("uids and gids must be in range 0-2147483647")
}

/// Resolves `user[:group]` and the further groups of `--group-add`.
///
/// Without a user it is id 0. A numeric user needs no entry in the account files; a named one
/// does. Without a group, the user's own and every group that lists the user by name are taken.
pub fn resolve(spec: &str, add: &[String], accounts: &Accounts) -> Result<Resolved, Error> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let wanted_user = if user.is_empty() { Wanted::Id(0) } else { wanted(user) };
    let entry = match wanted_user {
        Wanted::OutOfRange => return Err(out_of_range()),
        Wanted::Id(uid) => passwd(&accounts.passwd).find(|entry| entry.uid == uid),
        Wanted::Name(name) => passwd(&accounts.passwd).find(|entry| entry.name == name),
    };
    let mut resolved = Resolved { home: "/".into(), ..Resolved::default() };
    match (&entry, &wanted_user) {
        (Some(entry), _) => {
            (resolved.uid, resolved.gid) = (entry.uid, entry.gid);
            if !entry.home.is_empty() {
                entry.home.clone_into(&mut resolved.home);
            }
        }
        (None, Wanted::Id(uid)) => resolved.uid = *uid,
        (None, _) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    }
    let mut more = Vec::new();
    if !group.is_empty() {
        resolved.gid = find_group(group, accounts)?.ok_or_else(|| {
            Error::invalid(format!(
                "unable to find group {group}: no matching entries in group file"
            ))
        })?;
    } else if let Some(entry) = &entry {
        more.extend(
            groups(&accounts.group)
                .filter(|g| g.members.split(',').any(|member| member.trim() == entry.name))
                .map(|g| g.gid),
        );
    }
    for name in add {
        more.push(find_group(name, accounts)?.ok_or_else(|| {
            Error::invalid(format!(
                "Unable to find group {name}: no matching entries in group file"
            ))
        })?);
    }
    resolved.groups.push(resolved.gid);
    for gid in more {
        if !resolved.groups.contains(&gid) && resolved.groups.len() < MAX_GROUPS {
            resolved.groups.push(gid);
        }
    }
    Ok(resolved)
}

fn find_group(text: &str, accounts: &Accounts) -> Result<Option<u32>, Error> {
    match wanted(text) {
        Wanted::OutOfRange => Err(out_of_range()),
        Wanted::Id(gid) => Ok(Some(gid)),
        Wanted::Name(name) => {
            Ok(groups(&accounts.group).find(|entry| entry.name == name).map(|entry| entry.gid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\n\
                www:x:33:34::/var/www:/bin/false\n\
                bad:x:4294967296:0::/:\n\
                neg:x:-1:0::/:\n\
                2147483648:x:0:0::/:\n\
                nohome:x:7:7\n"
                .to_vec(),
            group:
                b"root:x:0:\nweb:x:34:\nmail:x:8:root,www\nlog:x:9:www\nhuge:x:99999999999:www\n"
                    .to_vec(),
        }
    }

    #[test]
    fn users_and_groups() {
        let accounts = accounts();
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, vec![0, 8], "/root"),
            ("root", 0, 0, vec![0, 8], "/root"),
            ("www", 33, 34, vec![34, 8, 9], "/var/www"),
            ("33", 33, 34, vec![34, 8, 9], "/var/www"),
            ("www:0", 33, 0, vec![0], "/var/www"),
            ("www:mail", 33, 8, vec![8], "/var/www"),
            ("1000", 1000, 0, vec![0], "/"),
            ("1000:1001", 1000, 1001, vec![1001], "/"),
            ("1000:", 1000, 0, vec![0], "/"),
            (":9", 0, 9, vec![9], "/root"),
            ("nohome", 7, 7, vec![7], "/"),
            ("2147483647", 2_147_483_647, 0, vec![0], "/"),
        ] {
            let resolved = resolve(spec, &[], &accounts).unwrap();
            let expected = Resolved { uid, gid, groups, home: home.into() };
            assert_eq!(resolved, expected, "{spec}");
        }
        let added = resolve("www", &["8".into(), "77".into(), "root".into()], &accounts).unwrap();
        assert_eq!(added.groups, [34, 8, 9, 77, 0]);
    }

    #[test]
    fn nothing_odd_becomes_root() {
        let accounts = accounts();
        for spec in [
            "2147483648",
            "4294967296",
            "-1",
            "+4294967296",
            "99999999999999999999",
            "0x0",
            "0 ",
            " 0",
            "bad",
            "neg",
            "nobody",
            "0:99999999999",
            "0:nogroup",
            "0:huge",
            &"9".repeat(10_000),
            &"a".repeat(10_000),
        ] {
            assert!(resolve(spec, &[], &accounts).is_err(), "{spec}");
        }
        assert!(resolve("0", &["-5".into()], &accounts).is_err());
        assert!(resolve("0", &["nope".into()], &accounts).is_err());
        // An image without account files still runs numeric users.
        assert_eq!(resolve("5:6", &[], &Accounts::default()).unwrap().uid, 5);
        assert!(resolve("www", &[], &Accounts::default()).is_err());
    }
}
