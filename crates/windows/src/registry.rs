//! A container's registry in its two forms: hives, as images carry them, and the text files with
//! which Wine starts.
//!
//! | hive | in the base layer | in layers above | in Wine's files |
//! | --- | --- | --- | --- |
//! | `HKLM\SYSTEM` | `Windows\System32\config\SYSTEM` | `System_Delta` | `system.reg`, `System` |
//! | `HKLM\SOFTWARE` | `...\SOFTWARE` | `Software_Delta` | `system.reg`, `Software` |
//! | `HKLM\SAM` | `...\SAM` | `Sam_Delta` | `system.reg`, `SAM` |
//! | `HKLM\SECURITY` | `...\SECURITY` | `Security_Delta` | `system.reg`, `SECURITY` |
//! | `HKU\.DEFAULT` | `...\DEFAULT` | `DefaultUser_Delta` | `userdef.reg` |
//! | the account's own | `Users\<name>\NTUSER.DAT` | the file itself | `user.reg` |

use silo_hive::delta::{self, DiffOptions};
use silo_hive::wine::{self, Arch};
use silo_hive::{Error, FileTime, Hive, Key, KeyFlags, Value, WriteOptions};
pub use silo_winlayer::hives::Hive as HiveName;

/// The key of a hive in Wine's `system.reg`; none for what has a file of its own.
const fn wine_key(name: HiveName) -> Option<&'static str> {
    match name {
        HiveName::System => Some("System"),
        HiveName::Software => Some("Software"),
        HiveName::Sam => Some("SAM"),
        HiveName::Security => Some("SECURITY"),
        HiveName::DefaultUser => None,
    }
}

/// Where Wine's Linux half looks for the zone of the time in every process, instead of in the list
/// of all zones, of which it would ask the server one by one. It is in Wine's files only.
pub(crate) const ZONES: &str = "Wine\\Zones";
/// The list of all zones.
const ALL_ZONES: &str = "Microsoft\\Windows NT\\CurrentVersion\\Time Zones";
/// The zone of every container: nothing tells Wine of another one.
const ZONE: &str = "UTC";

/// Adds [`ZONES`] to `HKLM\Software`: a link to the one zone.
fn add_zones(software: &mut Key) {
    let Some(time) = software.get(&format!("{ALL_ZONES}\\{ZONE}")).map(|zone| zone.last_write)
    else {
        return;
    };
    let mut link = Key::new(ZONE);
    link.last_write = time;
    link.flags = KeyFlags::SYMLINK;
    link.set_value(Value::link(&format!("\\Registry\\Machine\\Software\\{ALL_ZONES}\\{ZONE}")));
    // It nests no deeper than the list.
    if let Ok(zones) = software.create(ZONES, time) {
        zones.set_subkeys(vec![link]);
    }
}

/// Removes [`ZONES`], and the key around it when there is nothing else in it.
fn remove_zones(software: &mut Key) {
    software.remove(ZONES);
    let is_empty = |key: &Key| key.subkeys().is_empty() && key.values().is_empty();
    if software.get("Wine").is_some_and(is_empty) {
        software.remove("Wine");
    }
}

/// Names of Wine's three files.
pub mod files {
    /// `HKLM`.
    pub const SYSTEM: &str = "system.reg";
    /// `HKCU`.
    pub const USER: &str = "user.reg";
    /// `HKU\.DEFAULT`.
    pub const DEFAULT_USER: &str = "userdef.reg";
}

/// The contents of Wine's three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WineFiles {
    /// `system.reg`.
    pub system: Vec<u8>,
    /// `user.reg`.
    pub user: Vec<u8>,
    /// `userdef.reg`.
    pub default_user: Vec<u8>,
}

/// A whole registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    hives: [Hive; 5],
    /// The account's own hive.
    pub user: Hive,
}

const fn index(name: HiveName) -> usize {
    name as usize
}

fn text(base: &str, root: Key) -> wine::Registry {
    wine::Registry { base: base.into(), arch: Some(Arch::Win64), hive: Hive::new(root) }
}

impl Registry {
    /// One of the system's hives.
    pub fn hive(&self, name: HiveName) -> &Hive {
        &self.hives[index(name)]
    }

    /// Puts a hive in place.
    pub fn set_hive(&mut self, name: HiveName, hive: Hive) {
        self.hives[index(name)] = hive;
    }

    /// Reads Wine's files.
    pub fn from_wine(files: &WineFiles) -> Result<Self, wine::Error> {
        let mut machine = wine::parse(&files.system)?;
        let mut result = Self::default();
        for name in HiveName::ALL {
            if let Some(mut hive) = wine_key(name).and_then(|key| wine::detach(&mut machine, key)) {
                if name == HiveName::Software {
                    remove_zones(&mut hive.root);
                }
                result.set_hive(name, hive);
            }
        }
        result.set_hive(HiveName::DefaultUser, wine::parse(&files.default_user)?.hive);
        result.user = wine::parse(&files.user)?.hive;
        Ok(result)
    }

    /// Makes Wine's files.
    pub fn into_wine(self) -> WineFiles {
        let [system, mut software, sam, security, default_user] = self.hives;
        add_zones(&mut software.root);
        let mut machine = text("REGISTRY\\Machine", Key::new(""));
        for (name, hive) in [
            (HiveName::System, system),
            (HiveName::Software, software),
            (HiveName::Sam, sam),
            (HiveName::Security, security),
        ] {
            if let Some(key) = wine_key(name)
                && !(hive.root.subkeys().is_empty() && hive.root.values().is_empty())
            {
                wine::attach(&mut machine, key, hive);
            }
        }
        WineFiles {
            system: wine::render(&machine),
            user: wine::render(&text("REGISTRY\\User\\S-1-5-21-0-0-0-1000", self.user.root)),
            default_user: wine::render(&text("REGISTRY\\User\\.Default", default_user.root)),
        }
    }

    /// What a container changed: `self` is its registry, `began` the one that it started with,
    /// both of Wine's files, and `base` what that was made of. No time is later than `latest`,
    /// seconds since 1970.
    pub fn changes(
        &self,
        began: &Self,
        base: &Self,
        latest: Option<i64>,
    ) -> Result<Changes, Error> {
        let write = |mut hive: Hive| {
            if let Some(latest) = latest {
                bound_times(&mut hive, FileTime::from_unix(latest));
            }
            silo_hive::write(&hive, &WriteOptions::default())
        };
        let mut deltas = Vec::new();
        for name in HiveName::ALL {
            let ignore = |path: &str, value: Option<&str>| per_run(name, path, value);
            let (began, base) = (began.hive(name), base.hive(name));
            if let Some((delta, _)) = difference(self.hive(name), began, base, &ignore) {
                deltas.push((name.delta_name(), write(delta)?));
            }
        }
        let own = difference(&self.user, &began.user, &base.user, &per_run_of_user);
        let user = own.map(|(_, whole)| write(whole)).transpose()?;
        Ok(Changes { deltas, user })
    }

    /// Puts the difference of the next layer on top.
    pub fn apply(&mut self, name: HiveName, difference: &Hive) {
        let base = std::mem::take(&mut self.hives[index(name)]);
        self.hives[index(name)] = delta::flatten(base, [difference]);
    }
}

/// What a container changed of its registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Differencing hives by the names of their files; none for hives that are equal.
    pub deltas: Vec<(&'static str, Vec<u8>)>,
    /// The account's whole hive, if it differs.
    pub user: Option<Vec<u8>>,
}

/// Sets times that are later than `latest` to it.
fn bound_times(hive: &mut Hive, latest: FileTime) {
    hive.last_written = hive.last_written.min(latest);
    let mut open = vec![&mut hive.root];
    while let Some(key) = open.pop() {
        key.last_write = key.last_write.min(latest);
        open.extend(key.subkeys_mut());
    }
}

/// What makes `ours` of `base`, and the result, where `ours` differs from `began`. Wine's files
/// do not hold all that a hive does, as who may do what with a key: that stays as it was.
fn difference(
    ours: &Hive,
    began: &Hive,
    base: &Hive,
    ignore: &delta::Ignore<'_>,
) -> Option<(Hive, Hive)> {
    let options = DiffOptions { times: false, ignore: Some(ignore) };
    let changed = delta::diff(began, ours, &options);
    let is_empty = |hive: &Hive| hive.root.subkeys().is_empty() && hive.root.values().is_empty();
    if is_empty(&changed) {
        return None;
    }
    let whole = delta::flatten(base.clone(), [&changed]);
    let delta = delta::diff(base, &whole, &DiffOptions { times: false, ignore: None });
    (!is_empty(&delta)).then_some((delta, whole))
}

/// Whether a path is one of those, or below it.
fn below(path: &str, those: &[&str]) -> bool {
    those.iter().any(|prefix| {
        path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && matches!(path.as_bytes().get(prefix.len()), None | Some(b'\\'))
    })
}

/// What shell32 makes anew of `User Shell Folders` whenever a program asks it for one.
const SHELL_FOLDERS: &str = "Software\\Microsoft\\Windows\\CurrentVersion\\Explorer\\Shell Folders";

/// What Wine writes at each start, and is nobody's change: names and devices of the host.
fn per_run(name: HiveName, path: &str, value: Option<&str>) -> bool {
    match name {
        HiveName::System => {
            let keys = [
                "ControlSet001\\Control\\ComputerName",
                // Display adapters and monitors.
                "ControlSet001\\Control\\Class\\{4D36E968-E325-11CE-BFC1-08002BE10318}",
                "ControlSet001\\Control\\Class\\{4D36E96E-E325-11CE-BFC1-08002BE10318}",
            ];
            below(path, &keys)
                || below(path, &["ControlSet001\\Services\\Tcpip\\Parameters"])
                    && value.is_some_and(|value| {
                        ["Hostname", "NV Hostname", "Domain"]
                            .iter()
                            .any(|known| known.eq_ignore_ascii_case(value))
                    })
                || below(path, &["ControlSet001\\Control\\TimeZoneInformation"])
                    && value.is_some_and(|value| {
                        ["StandardName", "TimeZoneKeyName"]
                            .iter()
                            .any(|known| known.eq_ignore_ascii_case(value))
                    })
        }
        HiveName::Software => {
            let keys = [
                "Microsoft\\Windows NT\\CurrentVersion\\NetworkCards",
                "Microsoft\\Windows\\CurrentVersion\\Explorer\\Shell Folders",
                // Serial and parallel ports.
                "Wine\\Ports",
                "Wow6432Node\\Wine\\Ports",
            ];
            below(path, &keys)
        }
        HiveName::DefaultUser => below(path, &[SHELL_FOLDERS]),
        HiveName::Sam | HiveName::Security => false,
    }
}

/// The same of the account's hive.
fn per_run_of_user(path: &str, _: Option<&str>) -> bool {
    below(path, &["Volatile Environment", SHELL_FOLDERS])
}

#[cfg(test)]
mod tests {
    use silo_hive::FileTime;

    use super::*;

    fn sample() -> WineFiles {
        let file = |base: &str, keys: &str| {
            format!(
                "WINE REGISTRY Version 2\n;; All keys relative to {base}\n\n#arch=win64\n{keys}"
            )
            .into_bytes()
        };
        WineFiles {
            system: file(
                "REGISTRY\\\\Machine",
                "\n[Software\\\\Vendor] 1\n#time=19db1ded53e8000\n\"a\"=\"1\"\n\n[System\\\\ControlSet001\\\\Control] 1\n#time=19db1ded53e8000\n\"x\"=dword:00000001\n",
            ),
            user: file(
                "REGISTRY\\\\User\\\\S-1-5-21-0-0-0-1000",
                "\n[Environment] 1\n#time=19db1ded53e8000\n\"TEMP\"=\"t\"\n",
            ),
            default_user: file("REGISTRY\\\\User\\\\.Default", ""),
        }
    }

    #[test]
    fn hives_and_text_are_the_same_registry() {
        let registry = Registry::from_wine(&sample()).unwrap();
        let value = registry.hive(HiveName::Software).get("Vendor").unwrap().value("a").unwrap();
        assert_eq!(value.text().as_deref(), Some("1"));
        assert!(registry.user.get("Environment").is_some());
        let again = Registry::from_wine(&registry.clone().into_wine()).unwrap();
        assert_eq!(again, registry);
        let system = String::from_utf8(registry.into_wine().system).unwrap();
        assert!(system.contains("[System\\\\CurrentControlSet]"), "{system}");
    }

    #[test]
    fn wine_finds_the_zone_at_once() {
        let mut registry = Registry::from_wine(&sample()).unwrap();
        let mut software = registry.hive(HiveName::Software).clone();
        for zone in ["Aleutian Standard Time", "UTC"] {
            let key = software.root.create(&format!("{ALL_ZONES}\\{zone}"), FileTime(7)).unwrap();
            key.set_value(Value::string("Std", zone));
        }
        registry.set_hive(HiveName::Software, software);
        let files = registry.clone().into_wine();
        let machine = wine::parse(&files.system).unwrap().hive;
        let zones = machine.get(&format!("Software\\{ZONES}")).unwrap();
        let names: Vec<String> = zones.subkeys().iter().map(|key| key.name().to_string()).collect();
        assert_eq!(names, ["UTC"]);
        let link = &zones.subkeys()[0];
        assert!(link.flags.contains(KeyFlags::SYMLINK));
        let target = link.value("SymbolicLinkValue").and_then(Value::text).unwrap();
        assert!(machine.get(target.trim_start_matches("\\Registry\\Machine\\")).is_some());
        // No image ever has it.
        let read = Registry::from_wine(&files).unwrap();
        assert!(read.hive(HiveName::Software).get("Wine").is_none());
        assert!(read.hive(HiveName::Software).get("Vendor").is_some());
    }

    #[test]
    fn changes_go_into_a_layer_and_come_back() {
        let base = Registry::from_wine(&sample()).unwrap();
        let mut changed = base.clone();
        let mut hive = changed.hive(HiveName::Software).clone();
        hive.root.create("Vendor\\New", FileTime(7)).unwrap().set_value(Value::dword("n", 3));
        hive.root.get_mut("Vendor").unwrap().remove_value(&"a".into());
        changed.set_hive(HiveName::Software, hive);
        let mut hive = changed.hive(HiveName::System).clone();
        let run = "ControlSet001\\Control\\ComputerName\\ActiveComputerName";
        hive.root.create(run, FileTime(7)).unwrap().set_value(Value::string("ComputerName", "X"));
        changed.set_hive(HiveName::System, hive);
        let own = &mut changed.user.root;
        own.create("Volatile Environment", FileTime(7)).unwrap().set_value(Value::dword("n", 1));
        let Changes { deltas, user } = changed.changes(&base, &base, None).unwrap();
        assert_eq!(user, None);
        assert_eq!(deltas.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["Software_Delta"]);
        let mut again = base.clone();
        again.apply(HiveName::Software, &silo_hive::read(&deltas[0].1).unwrap());
        let key = again.hive(HiveName::Software).get("Vendor").unwrap();
        assert!(key.value("a").is_none());
        assert_eq!(key.get("New").unwrap().value("n").unwrap().number(), Some(3));
        assert_eq!(base.changes(&base, &base, None).unwrap(), Changes::default());
    }

    #[test]
    fn what_each_run_writes() {
        let parameters = "ControlSet001\\Services\\Tcpip\\Parameters";
        for (name, path, value, want) in [
            (HiveName::System, "CONTROLSET001\\Control\\ComputerName\\ComputerName", None, true),
            (HiveName::System, "ControlSet001\\Control\\ComputerNames", None, false),
            (HiveName::System, parameters, None, false),
            (HiveName::System, parameters, Some("hostname"), true),
            (HiveName::System, parameters, Some("NameServer"), false),
            (HiveName::Software, "Wine\\Ports", None, true),
            (HiveName::Software, "Wine\\Drivers", None, false),
            (HiveName::DefaultUser, SHELL_FOLDERS, Some("Cache"), true),
            (HiveName::Sam, SHELL_FOLDERS, None, false),
        ] {
            assert_eq!(per_run(name, path, value), want, "{path} {value:?}");
        }
        assert!(per_run_of_user("Volatile Environment", Some("USERDOMAIN")));
        assert!(!per_run_of_user("Environment", Some("Path")));
    }

    #[test]
    fn what_wine_does_not_hold_stays() {
        let began = Registry::from_wine(&sample()).unwrap();
        let mut base = began.clone();
        let owner = b"whose it is".to_vec();
        let key = base.user.root.get_mut("Environment").unwrap();
        key.security = Some(owner.clone().into());
        let mut changed = began.clone();
        changed.user.root.get_mut("Environment").unwrap().set_value(Value::string("A", "b"));
        let changes = changed.changes(&began, &base, None).unwrap();
        assert!(changes.deltas.is_empty());
        let user = silo_hive::read(&changes.user.unwrap()).unwrap();
        let key = user.get("Environment").unwrap();
        assert_eq!(key.value("A").unwrap().text().as_deref(), Some("b"));
        assert_eq!(key.value("TEMP").unwrap().text().as_deref(), Some("t"));
        assert_eq!(key.security.as_deref(), Some(&owner[..]));
    }
}
