//! From a prefix's registry to hives: normalised, and set for containers.

use silo_hive::wine::{self, Registry};
use silo_hive::{FileTime, Hive, Key, KeyFlags, Name, Value, WriteOptions};

use super::{Error, SETUP_HOST, SETUP_USER};

/// The profile directory that the prefix has, as its registry spells it.
const PROFILE: &str = "C:\\users\\ContainerAdministrator";
/// Accounts with a profile of their own, and the pattern for others.
pub const PROFILES: [&str; 3] = ["ContainerAdministrator", "ContainerUser", "Default"];
/// Services that would start with every container and serve nothing there.
const ON_DEMAND: [&str; 2] = ["Eventlog", "PlugPlay"];
/// Drivers that our `wineboot.exe` loads, faster than Wine's services would.
const BOOTED: [&str; 3] = ["MountMgr", "NDIS", "nsiproxy"];
const SERVICES: &str = "ControlSet001\\Services";
/// What `Start` says of a service that starts when it is asked for.
const START_ON_DEMAND: u32 = 3;
/// Stands for the random identifier of the one display.
const VIDEO: &str = "{5110a1b2-0000-4000-8000-000000000001}";

/// The hives of the content layer.
#[derive(Debug, Clone)]
pub struct Hives {
    /// `HKLM\SOFTWARE`.
    pub software: Hive,
    /// `HKLM\SYSTEM`.
    pub system: Hive,
    /// `HKU\.DEFAULT`, the registry of services.
    pub default: Hive,
    /// `HKCU` of each of [`PROFILES`].
    pub users: Vec<(&'static str, Hive)>,
}

/// Makes the hives; every key is from `time` (seconds since 1970).
pub fn hives(system: &[u8], user: &[u8], default: &[u8], time: i64) -> Result<Hives, Error> {
    let time = FileTime::from_unix(time);
    let mut machine = parse("system.reg", system)?;
    let absent = |key: &str| Error::Unsound(format!("its registry has no HKLM\\{key}"));
    let mut software = wine::detach(&mut machine, "Software").ok_or_else(|| absent("Software"))?;
    let mut system = wine::detach(&mut machine, "System").ok_or_else(|| absent("System"))?;
    normalise_software(&mut software.root);
    normalise_system(&mut system.root, time)?;
    let mut user = parse("user.reg", user)?.hive;
    user.root.remove("Volatile Environment");
    let mut default = parse("userdef.reg", default)?.hive;
    replace(&mut default.root, PROFILE, "C:\\Windows\\system32\\config\\systemprofile");
    for hive in [&mut software, &mut system, &mut user, &mut default] {
        remove_host(&mut hive.root);
        settle(&mut hive.root, time);
        hive.last_written = time;
    }
    let users = PROFILES.map(|account| {
        let mut hive = user.clone();
        replace(&mut hive.root, PROFILE, &format!("C:\\Users\\{account}"));
        (account, hive)
    });
    replace(&mut software.root, PROFILE, &format!("C:\\Users\\{SETUP_USER}"));
    Ok(Hives { software, system, default, users: users.into() })
}

/// A hive as a file.
pub fn file(name: &'static str, hive: &Hive) -> Result<Vec<u8>, Error> {
    silo_hive::write(hive, &WriteOptions::default())
        .map_err(|source| Error::Hive { hive: name, source })
}

fn parse(file: &'static str, text: &[u8]) -> Result<Registry, Error> {
    wine::parse(text).map_err(|source| Error::Registry { file, source })
}

fn normalise_software(root: &mut Key) {
    // Made when it is asked for, different in every container.
    if let Some(key) = root.get_mut("Microsoft\\Cryptography") {
        key.remove_value(&Name::from("MachineGuid"));
    }
    // It would start a desktop to build menus in.
    for view in ["", "Wow6432Node\\"] {
        let path = format!("{view}Microsoft\\Windows\\CurrentVersion\\RunServices");
        if let Some(key) = root.get_mut(&path) {
            key.remove_value(&Name::from("winemenubuilder"));
        }
        // Serial ports of the host, made anew at each start.
        root.remove(&format!("{view}Wine\\Ports"));
    }
    // Where its names are for every language, for which each process that starts opens a library.
    // Without, the English ones beside them count.
    if let Some(zone) = root.get_mut("Microsoft\\Windows NT\\CurrentVersion\\Time Zones\\UTC") {
        for name in ["MUI_Std", "MUI_Dlt"] {
            zone.remove_value(&Name::from(name));
        }
    }
    share_interfaces(root);
}

/// Interfaces, as 64-bit programs see them and as 32-bit ones do.
const INTERFACE: &str = "Interface";
const INTERFACES: &str = "Classes\\Interface";
const NARROW_CLASSES: &str = "Classes\\Wow6432Node";

/// Makes one list of interfaces of the two that say the same, a fifth of the whole registry that
/// each container keeps: an interface is whatever its programs are, and the classes that handle
/// it are looked up among those for the program.
fn share_interfaces(root: &mut Key) {
    let narrow = format!("{NARROW_CLASSES}\\{INTERFACE}");
    let (Some(wide), Some(narrow)) = (root.get(INTERFACES), root.get(&narrow)) else { return };
    let time = wide.last_write;
    if narrow.subkeys().iter().all(|key| wide.subkey(key.name()).is_some())
        && let Some(classes) = root.get_mut(NARROW_CLASSES)
    {
        let mut link = Key::new(INTERFACE);
        link.last_write = time;
        link.flags = KeyFlags::SYMLINK;
        link.set_value(Value::link(&format!("\\Registry\\Machine\\Software\\{INTERFACES}")));
        classes.insert_subkey(link);
    }
}

fn normalise_system(root: &mut Key, time: FileTime) -> Result<(), Error> {
    for service in ON_DEMAND.into_iter().chain(BOOTED) {
        if let Some(key) = root.get_mut(&format!("{SERVICES}\\{service}")) {
            key.set_value(Value::dword("Start", START_ON_DEMAND));
        }
    }
    // The machine's processor is told to programs by their environment, and Windows has no
    // `winsysdir`.
    if let Some(key) = root.get_mut("ControlSet001\\Control\\Session Manager\\Environment") {
        for name in [
            "NUMBER_OF_PROCESSORS",
            "PROCESSOR_IDENTIFIER",
            "PROCESSOR_LEVEL",
            "PROCESSOR_REVISION",
            "winsysdir",
        ] {
            key.remove_value(&Name::from(name));
        }
    }
    // The set-up ran with Wine's files as they are, which take the first zone with that time.
    if let Some(key) = root.get_mut("ControlSet001\\Control\\TimeZoneInformation") {
        key.set_value(Value::string("StandardName", "Coordinated Universal Time"));
        key.set_value(Value::string("TimeZoneKeyName", "UTC"));
    }
    // Buses whose drivers are not in the runtime.
    for bus in ["WINEBTH", "WINEBUS", "WINEUSB"] {
        root.remove(&format!("ControlSet001\\Enum\\ROOT\\WINE\\{bus}"));
    }
    each(root, &mut |key| {
        if key.value("VideoID").is_some() {
            key.set_value(Value::string("VideoID", VIDEO));
        }
        if key.value("DriverDateData").is_some() {
            key.set_value(Value::binary("DriverDateData", time.0.to_le_bytes().to_vec()));
        }
    });
    let select =
        root.create("Select", time).map_err(|source| Error::Hive { hive: "SYSTEM", source })?;
    for (name, number) in [("Current", 1), ("Default", 1), ("Failed", 0), ("LastKnownGood", 1)] {
        select.set_value(Value::dword(name, number));
    }
    Ok(())
}

/// Removes values that are the name of the host where the prefix was made.
fn remove_host(root: &mut Key) {
    let unc = format!("\\\\{SETUP_HOST}");
    each(root, &mut |key| {
        key.retain_values(|value| {
            let text = value.text().unwrap_or_default();
            !text.eq_ignore_ascii_case(SETUP_HOST) && !text.eq_ignore_ascii_case(&unc)
        });
    });
}

/// Replaces a text in all values that begin with it.
fn replace(root: &mut Key, from: &str, to: &str) {
    each(root, &mut |key| {
        let mut changed = Vec::new();
        for value in key.values() {
            let Some(text) = value.text() else { continue };
            if let Some(rest) = text.strip_prefix(from) {
                let new = Value::string(value.name.clone(), &format!("{to}{rest}"));
                changed.push(Value { kind: value.kind, ..new });
            }
        }
        for value in changed {
            key.set_value(value);
        }
    });
}

/// Gives all keys one time.
fn settle(root: &mut Key, time: FileTime) {
    each(root, &mut |key| key.last_write = time);
}

fn each(key: &mut Key, change: &mut dyn FnMut(&mut Key)) {
    change(key);
    for subkey in key.subkeys_mut() {
        each(subkey, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = r#"WINE REGISTRY Version 2
;; All keys relative to REGISTRY\\Machine

#arch=win64

[Software\\Classes\\Interface\\{a}] 1795324864
@="IOne"

[Software\\Classes\\Wow6432Node\\Interface\\{A}] 1795324864
@="IOne"

[Software\\Microsoft\\Cryptography] 1795324864
#time=1dd7a414550f912
"MachineGuid"="934433a6-c2ea-4c24-91a2-3a50bc8172f5"
"Other"="stays"

[Software\\Microsoft\\Windows\\CurrentVersion\\RunServices] 1795324864
"winemenubuilder"="C:\\windows\\system32\\winemenubuilder.exe -a -r"

[Software\\Microsoft\\Windows NT\\CurrentVersion\\Time Zones\\UTC] 1795324864
"MUI_Std"="@tzres.dll,-22000"
"Std"="Coordinated Universal Time"

[Software\\Profiles] 1795324864
"ProfileImagePath"="C:\\users\\ContainerAdministrator"

[System\\ControlSet001\\Control\\ComputerName\\ComputerName] 1795324864
"ComputerName"="SILO-SETUP"

[System\\ControlSet001\\Control\\Session Manager\\Environment] 1795324864
"NUMBER_OF_PROCESSORS"="2"
"OS"="Windows_NT"

[System\\ControlSet001\\Control\\TimeZoneInformation] 1795324864
"TimeZoneKeyName"="Greenwich Standard Time"

[System\\ControlSet001\\Services\\Eventlog] 1795324864
"Start"=dword:00000002

[System\\ControlSet001\\Services\\nsiproxy] 1795324864
"Start"=dword:00000002

[System\\CurrentControlSet] 1795324864
#link
"SymbolicLinkValue"=hex(6):5c,00
"#;
    const USER: &str = r#"WINE REGISTRY Version 2
;; All keys relative to REGISTRY\\User\\S-1-5-21-0-0-0-1000

[Environment] 1795324864
"TEMP"="C:\\users\\ContainerAdministrator\\AppData\\Local\\Temp"

[Volatile Environment] 1795324864
"LOGONSERVER"="\\\\SILO-SETUP"
"#;

    fn sample() -> Hives {
        hives(SYSTEM.as_bytes(), USER.as_bytes(), USER.as_bytes(), 1_700_000_000).unwrap()
    }

    #[test]
    fn nothing_of_the_machine_is_left() {
        let hives = sample();
        let software = |path: &str, value: &str| {
            hives.software.get(path).and_then(|key| key.value(value)).map(Value::text)
        };
        assert_eq!(software("Microsoft\\Cryptography", "MachineGuid"), None);
        assert_eq!(software("Microsoft\\Cryptography", "Other"), Some(Some("stays".into())));
        assert_eq!(
            software("Microsoft\\Windows\\CurrentVersion\\RunServices", "winemenubuilder"),
            None
        );
        let path = Some(Some("C:\\Users\\ContainerAdministrator".to_owned()));
        assert_eq!(software("Profiles", "ProfileImagePath"), path);
        let control = hives.system.get("ControlSet001\\Control").unwrap();
        assert!(control.get("ComputerName\\ComputerName").unwrap().values().is_empty());
        assert_eq!(control.get("Session Manager\\Environment").unwrap().values().len(), 1);
        assert_eq!(hives.system.get("CurrentControlSet"), None);
        assert_eq!(hives.software.root.last_write.unix(), 1_700_000_000);
    }

    #[test]
    fn the_time_is_utc() {
        let hives = sample();
        let zone = "Microsoft\\Windows NT\\CurrentVersion\\Time Zones\\UTC";
        let names: Vec<String> =
            hives.software.get(zone).unwrap().values().iter().map(|v| v.name.to_string()).collect();
        assert_eq!(names, ["Std"]);
        let current = hives.system.get("ControlSet001\\Control\\TimeZoneInformation").unwrap();
        let text = |name: &str| current.value(name).and_then(Value::text);
        assert_eq!(text("TimeZoneKeyName").as_deref(), Some("UTC"));
        assert_eq!(text("StandardName").as_deref(), Some("Coordinated Universal Time"));
    }

    #[test]
    fn interfaces_are_listed_once() {
        let hives = sample();
        let narrow = hives.software.get("Classes\\Wow6432Node\\Interface").unwrap();
        assert!(narrow.flags.contains(KeyFlags::SYMLINK) && narrow.subkeys().is_empty());
        assert!(hives.software.get("Classes\\Interface\\{a}").is_some());
        // One that only 32-bit programs have.
        let mut root = hives.software.root;
        root.remove("Classes\\Wow6432Node\\Interface");
        root.create("Classes\\Wow6432Node\\Interface\\{b}", FileTime(1)).unwrap();
        share_interfaces(&mut root);
        assert!(root.get("Classes\\Wow6432Node\\Interface\\{b}").is_some());
    }

    #[test]
    fn services_start_as_containers_need_them() {
        let hives = sample();
        let start = |name: &str| {
            let key = hives.system.get(&format!("{SERVICES}\\{name}")).unwrap();
            key.value("Start").and_then(Value::number)
        };
        assert_eq!(start("Eventlog"), Some(3));
        // The session's start program is its host.
        assert_eq!(start("nsiproxy"), Some(3));
        let select = hives.system.get("Select").unwrap();
        assert_eq!(select.value("Current").and_then(Value::number), Some(1));
    }

    #[test]
    fn every_account_has_its_own_profile() {
        let hives = sample();
        for (account, hive) in &hives.users {
            let temp = hive.get("Environment").unwrap().value("TEMP").unwrap().text().unwrap();
            assert_eq!(temp, format!("C:\\Users\\{account}\\AppData\\Local\\Temp"));
            assert_eq!(hive.get("Volatile Environment"), None);
        }
        let services = hives.default.get("Environment").unwrap().value("TEMP").unwrap().text();
        let expected = "C:\\Windows\\system32\\config\\systemprofile\\AppData\\Local\\Temp";
        assert_eq!(services.as_deref(), Some(expected));
    }

    #[test]
    fn the_same_registry_gives_the_same_files() {
        let first = file("SOFTWARE", &sample().software).unwrap();
        assert_eq!(first, file("SOFTWARE", &sample().software).unwrap());
        assert!(first.starts_with(b"regf"));
    }
}
