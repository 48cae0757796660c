//! The options of a mount, sorted by what they act on.

use rustix::mount::MountAttrFlags as Attr;
use silo_sys::mount::{MountAttr, Propagation};

/// Options of one mount.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct MountOptions {
    /// Attributes of the mount itself.
    pub(crate) attr: MountAttr,
    /// Attributes of the mount and all mounts beneath it.
    pub(crate) recursive: MountAttr,
    /// The propagation, and whether it is for the mounts beneath too.
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// Whether an existing tree is bound, and whether with the mounts beneath.
    pub(crate) bind: Option<bool>,
    /// Whether the owners are mapped, and whether in the mounts beneath too.
    pub(crate) idmap: Option<bool>,
    /// Whether a new tmpfs begins with a copy of what it covers.
    pub(crate) copy_up: bool,
    /// Options of the file system, with their values.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// What one option does to the attributes.
enum Effect {
    Set(Attr),
    Clear(Attr),
}

fn attribute(name: &str) -> Option<Effect> {
    use Effect::{Clear, Set};
    Some(match name {
        "ro" => Set(Attr::MOUNT_ATTR_RDONLY),
        "rw" => Clear(Attr::MOUNT_ATTR_RDONLY),
        "nosuid" => Set(Attr::MOUNT_ATTR_NOSUID),
        "suid" => Clear(Attr::MOUNT_ATTR_NOSUID),
        "nodev" => Set(Attr::MOUNT_ATTR_NODEV),
        "dev" => Clear(Attr::MOUNT_ATTR_NODEV),
        "noexec" => Set(Attr::MOUNT_ATTR_NOEXEC),
        "exec" => Clear(Attr::MOUNT_ATTR_NOEXEC),
        "nosymfollow" => Set(Attr::MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => Clear(Attr::MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => Set(Attr::MOUNT_ATTR_NODIRATIME),
        "diratime" => Clear(Attr::MOUNT_ATTR_NODIRATIME),
        "noatime" => Set(Attr::MOUNT_ATTR_NOATIME),
        "strictatime" => Set(Attr::MOUNT_ATTR_STRICTATIME),
        // Relative access times are what is left when the others are not set.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => Clear(Attr::MOUNT_ATTR__ATIME),
        _ => return None,
    })
}

fn apply(effect: &Effect, attr: &mut MountAttr) {
    match *effect {
        Effect::Set(flag) => {
            if flag.intersects(Attr::MOUNT_ATTR__ATIME) {
                attr.set.remove(Attr::MOUNT_ATTR__ATIME);
            }
            attr.set.insert(flag);
            attr.clear.remove(flag);
        }
        Effect::Clear(flag) => {
            attr.clear.insert(flag);
            attr.set.remove(flag);
        }
    }
}

/// A propagation by its name, and whether it is recursive.
pub(crate) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    let (recursive, plain) = name.strip_prefix('r').map_or((false, name), |plain| (true, plain));
    let kind = match plain {
        "private" => Propagation::Private,
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, recursive))
}

impl MountOptions {
    /// Sorts the options; later ones win over earlier ones. The second value is the name of a
    /// type of file system, which may ask for a bind as well.
    pub(crate) fn parse(options: &[String], kind: Option<&str>) -> Self {
        let mut sorted = Self::default();
        if kind == Some("bind") {
            sorted.bind = Some(false);
        }
        for option in options {
            let name = option.as_str();
            if let Some(effect) = attribute(name) {
                apply(&effect, &mut sorted.attr);
            } else if let Some(found) = propagation(name) {
                sorted.propagation = Some(found);
            } else if let Some(effect) = name.strip_prefix('r').and_then(attribute) {
                apply(&effect, &mut sorted.recursive);
            } else {
                match name {
                    "bind" => sorted.bind = Some(sorted.bind.unwrap_or(false)),
                    "rbind" => sorted.bind = Some(true),
                    "idmap" => sorted.idmap = Some(false),
                    "ridmap" => sorted.idmap = Some(true),
                    "tmpcopyup" => sorted.copy_up = true,
                    // Words of fstab without a meaning here.
                    "defaults" | "remount" | "auto" | "noauto" | "nofail" | "_netdev" | ""
                    | "user" | "nouser" | "loud" | "silent" => {}
                    _ => {
                        let (key, value) = option
                            .split_once('=')
                            .map_or((name, None), |(key, value)| (key, Some(value.to_owned())));
                        sorted.data.push((key.to_owned(), value));
                    }
                }
            }
        }
        sorted
    }

    /// The value of an option of the file system.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.data.iter().rev().find(|(name, _)| name == key)?.1.as_deref()
    }

    /// Whether the mount becomes read-only.
    pub(crate) fn read_only(&self) -> bool {
        self.attr.set.contains(Attr::MOUNT_ATTR_RDONLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        MountOptions::parse(&options, None)
    }

    #[test]
    fn options_are_sorted() {
        let options = parse(&["nosuid", "rbind", "rprivate", "rro", "mode=755", "size=1k", "x"]);
        assert_eq!(options.attr.set, Attr::MOUNT_ATTR_NOSUID);
        assert_eq!(options.recursive.set, Attr::MOUNT_ATTR_RDONLY);
        assert_eq!(options.propagation, Some((Propagation::Private, true)));
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.value("mode"), Some("755"));
        assert_eq!(options.data[2], ("x".into(), None));
    }

    #[test]
    fn later_options_win() {
        assert!(!parse(&["ro", "rw"]).read_only());
        assert!(parse(&["rw", "ro"]).read_only());
        let options = parse(&["noatime", "strictatime"]);
        assert_eq!(options.attr.set, Attr::MOUNT_ATTR_STRICTATIME);
        let options = parse(&["noatime", "relatime"]);
        assert!(!options.attr.set.contains(Attr::MOUNT_ATTR_NOATIME));
        assert!(options.attr.clear.contains(Attr::MOUNT_ATTR__ATIME));
    }

    #[test]
    fn recursive_names_do_not_shadow_plain_ones() {
        // `rw` is not a recursive `w`, `relatime` not a recursive `elatime`.
        assert_eq!(parse(&["rw", "relatime"]).recursive, MountAttr::default());
        assert_eq!(parse(&["rrw"]).recursive.clear, Attr::MOUNT_ATTR_RDONLY);
        assert_eq!(parse(&["rrelatime"]).recursive.clear, Attr::MOUNT_ATTR__ATIME);
    }
}
