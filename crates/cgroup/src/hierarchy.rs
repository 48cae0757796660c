//! Which hierarchies there are, read from mountinfo(5) and cgroups(7)' /proc/self/cgroup.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};

use crate::controller::{Controller, Controllers};
use crate::error::Error;
use crate::files;

/// How a hierarchy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where a hierarchy is mounted, before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: Version,
    /// Of version 1, those mounted together. Version 2's are in a file of its root.
    pub(crate) controllers: Controllers,
    pub(crate) mount: PathBuf,
    /// The group of this process below the mount, without a leading `/`.
    pub(crate) own: String,
}

/// A mounted hierarchy, held open.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    pub(crate) controllers: Controllers,
    pub(crate) mount: PathBuf,
    pub(crate) own: String,
    root: OwnedFd,
}

impl Hierarchy {
    /// Opens the mount. `alone` says that there is no version 1 beside, so that a hierarchy of
    /// version 2 also has what needs no controller there.
    pub(crate) fn open(found: Found, alone: bool) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&found.mount, flags, FileMode::empty())
            .map_err(|error| Error::Open { path: found.mount.clone(), source: error.into() })?;
        let mut controllers = found.controllers;
        if found.version == Version::V2 {
            let name = "cgroup.controllers";
            let text = files::read(root.as_fd(), name)
                .map_err(|source| Error::Read { path: found.mount.join(name), source })?;
            controllers = v2_controllers(&text);
            if alone {
                controllers = controllers.union(Controllers::of(&[
                    Controller::Cpuacct,
                    Controller::Devices,
                    Controller::Freezer,
                ]));
            }
        }
        let Found { version, mount, own, .. } = found;
        Ok(Self { version, controllers, mount, own, root })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The controllers of a list as in `cgroup.controllers`; those without a name here are left out.
pub(crate) fn v2_controllers(text: &str) -> Controllers {
    let mut set = Controllers::default();
    for word in text.split_whitespace() {
        for controller in Controller::ALL {
            if controller.v2_name() == Some(word) {
                set.insert(controller);
            }
        }
    }
    set
}

/// The hierarchies that are mounted, from the texts of /proc/self/mountinfo and
/// /proc/self/cgroup. Named hierarchies without controllers (systemd's) are left out, and so is
/// every mount after the first of the same hierarchy.
pub(crate) fn parse(mountinfo: &[u8], own: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let Some(mount) = parse_mount(line) else { continue };
        let path = match mount.version {
            Version::V2 => own_path(own, str::is_empty),
            Version::V1 => own_path(own, |list| {
                list.split(',').any(|name| {
                    mount.controllers.iter().any(|controller| controller.v1_name() == name)
                })
            }),
        };
        let known = found.iter().any(|known| {
            known.version == mount.version
                && (mount.version == Version::V2 || known.controllers.meets(mount.controllers))
        });
        if !known {
            found.push(Found {
                version: mount.version,
                controllers: mount.controllers,
                own: below(&path, &mount.root),
                mount: mount.point,
            });
        }
    }
    found
}

struct MountLine {
    version: Version,
    controllers: Controllers,
    /// The directory of the hierarchy that the mount shows.
    root: String,
    point: PathBuf,
}

/// One line of mountinfo, if it is a hierarchy with a use.
fn parse_mount(line: &[u8]) -> Option<MountLine> {
    let at = line.windows(3).position(|window| window == b" - ")?;
    let tail = std::str::from_utf8(&line[at + 3..]).ok()?;
    let mut tail = tail.split(' ');
    let version = match tail.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = tail.nth(1).unwrap_or_default();
    let mut controllers = Controllers::default();
    if version == Version::V1 {
        for controller in Controller::ALL {
            if options.split(',').any(|option| option == controller.v1_name()) {
                controllers.insert(controller);
            }
        }
        if controllers.is_empty() {
            return None;
        }
    }
    let mut fields = line[..at].split(|&byte| byte == b' ').skip(3);
    let root = String::from_utf8(unescape(fields.next()?)).ok()?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    Some(MountLine { version, controllers, root, point })
}

/// Undoes mountinfo's octal escapes (`\040` for a blank).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let Some((digits, tail)) = tail.split_first_chunk::<3>()
            && let Ok(digits) = std::str::from_utf8(digits)
            && let Ok(value) = u8::from_str_radix(digits, 8)
        {
            plain.push(value);
            rest = tail;
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

/// The path in the line of /proc/self/cgroup whose list of controllers is the one wanted.
fn own_path(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
        .find(|(list, _)| wanted(list))
        .map_or_else(String::new, |(_, path)| path.to_owned())
}

/// A path of a hierarchy as seen below a mount that shows only `root` of it; the mount itself
/// if the path is outside.
fn below(path: &str, root: &str) -> String {
    let relative = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    relative.to_string_lossy().trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machine() {
        let mountinfo = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/a /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /other rw,relatime - cgroup2 cgroup2 rw
";
        let own = "4:memory:/docker/a/b\n1:cpu,cpuacct:/x/y\n0::/z\n";
        let found = parse(mountinfo, own);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].own, "x/y");
        assert_eq!(found[0].controllers, Controllers::of(&[Controller::Cpu, Controller::Cpuacct]));
        assert_eq!(found[1].mount, Path::new("/sys/fs/cgroup/mem ory"));
        assert_eq!(found[1].own, "b");
        assert_eq!(found[2].version, Version::V2);
        assert_eq!(found[2].mount, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found[2].own, "z");
    }

    #[test]
    fn unified_machine() {
        let found = parse(
            b"30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/user.slice/user-0.slice\n",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].own, "user.slice/user-0.slice");
        assert_eq!(found[0].controllers, Controllers::default());
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        assert_eq!(parse(b"\n - \n - cgroup\n1 2 3 - cgroup2 x rw\n\xff\xff - cgroup2\n", ""), []);
    }

    #[test]
    fn lists_of_version_2() {
        let set = v2_controllers("cpuset cpu io memory hugetlb pids rdma misc\n");
        assert!(set.contains(Controller::Blkio));
        assert!(set.contains(Controller::Rdma));
        assert!(!set.contains(Controller::Devices));
    }
}
