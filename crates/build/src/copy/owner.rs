//! `--chown`: numbers, or names of the image's own `/etc/passwd` and `/etc/group`.

use std::os::fd::BorrowedFd;

use super::CopyError;

/// The largest account file that is read.
const LIMIT: u64 = 4 << 20;

/// The owner that a text means in a root.
pub(crate) fn parse(text: &str, root: BorrowedFd<'_>) -> Result<(u32, u32), CopyError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let fields = find(root, "etc/passwd", user, 7).ok_or_else(|| {
                // docker wording
                CopyError::Refused(format!(
                    "unable to convert uid/gid chown string to host mapping: can't find uid for user {user}: no such user: {user}"
                ))
            })?;
            (number(&fields[2])?, number(&fields[3])?)
        }
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let fields = find(root, "etc/group", group, 3).ok_or_else(|| {
                    // docker wording
                    CopyError::Refused(format!(
                        "unable to convert uid/gid chown string to host mapping: can't find gid for group {group}: no such group: {group}"
                    ))
                })?;
                number(&fields[2])?
            }
        },
    };
    Ok((uid, gid))
}

fn number(text: &str) -> Result<u32, CopyError> {
    text.parse().map_err(|_| CopyError::Refused(format!("not the number of an account: {text:?}")))
}

/// The fields of the first line of an account file that begins with a name.
fn find(root: BorrowedFd<'_>, path: &str, name: &str, fields: usize) -> Option<Vec<String>> {
    let Ok(Some(bytes)) = silo_sys::path::read_regular_file_in_root(root, path, LIMIT) else {
        return None;
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    let mut found = lines.filter(|line| line.len() >= fields && line[0] == name);
    found.next()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn names_are_the_images() {
        let temporary = tempfile::tempdir().unwrap();
        let etc = temporary.path().join("etc");
        fs_err::create_dir(&etc).unwrap();
        fs_err::write(etc.join("passwd"), "root:x:0:0::/:\nweb:x:33:34::/:/bin/sh\n").unwrap();
        fs_err::write(etc.join("group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let root = silo_sys::path::open_root(temporary.path()).unwrap();
        for (text, expected) in [
            ("1000", (1000, 1000)),
            ("1000:5", (1000, 5)),
            ("web", (33, 34)),
            ("web:staff", (33, 50)),
            ("7:staff", (7, 50)),
        ] {
            assert_eq!(parse(text, root.as_fd()).unwrap(), expected, "{text}");
        }
        for bad in ["nobody", "web:nobody", "-1"] {
            assert!(parse(bad, root.as_fd()).is_err(), "{bad}");
        }
    }
}
