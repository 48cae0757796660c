//! `HKEY_LOCAL_MACHINE\System`, which in a running registry has a link that no hive has.

use super::Registry;
use crate::hive::Hive;
use crate::key::{Key, KeyFlags};
use crate::name::Name;
use crate::value::Value;

/// The link to the set of drivers and services that the system started with.
const LINK: &str = "CurrentControlSet";
const SYSTEM: &str = "System";

/// Takes a key out as a hive of its own, `Software` for `config\SOFTWARE`. The link that Windows
/// makes at each start in `System` is not a part of that.
pub fn detach(registry: &mut Registry, path: &str) -> Option<Hive> {
    let mut root = registry.hive.root.remove(path)?.renamed("ROOT");
    if path.eq_ignore_ascii_case(SYSTEM) {
        let link = Name::from(LINK);
        if root.subkey(&link).is_some_and(|key| key.flags.contains(KeyFlags::SYMLINK)) {
            root.remove_subkey(&link);
        }
    }
    let mut hive = Hive::new(root);
    hive.last_written = registry.hive.last_written;
    Some(hive)
}

/// Puts a hive's keys under a name, in place of what is there. `System` gets the link to its
/// current control set, as `Select\Current` says.
pub fn attach(registry: &mut Registry, name: &str, hive: Hive) {
    let mut root = hive.root.renamed(name);
    root.flags = KeyFlags::NONE;
    if name.eq_ignore_ascii_case(SYSTEM) && root.get(LINK).is_none() {
        let current = root.get("Select").and_then(|key| key.value("Current"));
        let number = current.and_then(Value::number).unwrap_or(1);
        let mut link = Key::new(LINK);
        link.last_write = root.last_write;
        link.flags = KeyFlags::SYMLINK;
        let target = format!("\\Registry\\Machine\\System\\ControlSet{number:03}");
        link.set_value(Value::link(&target));
        root.insert_subkey(link);
    }
    registry.hive.root.insert_subkey(root);
}
