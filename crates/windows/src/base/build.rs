//! Which Windows a base image stands for.

use std::io::{self, Write};

use serde_json::{Value as Json, json};
use silo_hive::delta::{DiffOptions, diff};
use silo_hive::{Hive, Key, Value};
use silo_winlayer::FileAttributes;

use super::content::Layer;
use super::registry::{self, Hives};
use super::{Error, LABEL};
use crate::runtime::RECIPE;

/// A release of Windows Server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// The tag of its images.
    pub tag: &'static str,
    /// Other tags of all its images.
    pub aliases: &'static [&'static str],
    /// Another tag of its nanoserver image.
    pub nano_alias: Option<&'static str>,
    /// The build number.
    pub number: u32,
    /// An update of it, the fourth part of the version.
    pub revision: u32,
    /// The year in the product's name.
    pub year: u32,
    /// `ReleaseId` in its registry.
    pub release: &'static str,
    /// `DisplayVersion` in its registry, from 2022 on.
    pub display: Option<&'static str>,
}

impl Build {
    /// The version as in `os.version`.
    pub fn version(&self) -> String {
        format!("10.0.{}.{}", self.number, self.revision)
    }

    /// All tags of a kind's image of it, the main one first.
    pub fn tags(&self, kind: &Kind) -> Vec<&'static str> {
        let mut tags = vec![self.tag];
        tags.extend(self.aliases);
        if kind.name == "nanoserver" {
            tags.extend(self.nano_alias);
        }
        tags
    }
}

/// The releases, with updates of September 2024 or the first of all.
pub const BUILDS: [Build; 4] = [
    Build {
        tag: "ltsc2016",
        aliases: &["1607"],
        nano_alias: Some("sac2016"),
        number: 14393,
        revision: 7336,
        year: 2016,
        release: "1607",
        display: None,
    },
    Build {
        tag: "ltsc2019",
        aliases: &["1809"],
        nano_alias: None,
        number: 17763,
        revision: 6293,
        year: 2019,
        release: "1809",
        display: None,
    },
    Build {
        tag: "ltsc2022",
        aliases: &[],
        nano_alias: None,
        number: 20348,
        revision: 2700,
        year: 2022,
        release: "2009",
        display: Some("21H2"),
    },
    Build {
        tag: "ltsc2025",
        aliases: &[],
        nano_alias: None,
        number: 26100,
        revision: 1742,
        year: 2025,
        release: "2009",
        display: Some("24H2"),
    },
];

/// A kind of base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name after `silo/`.
    pub name: &'static str,
    /// `InstallationType` in its registry.
    pub installation: &'static str,
    /// `EditionID` in its registry.
    pub edition: &'static str,
    /// The user that its programs run as; empty for the administrator.
    pub user: &'static str,
    /// Where programs are looked for.
    pub path: &'static str,
}

const SYSTEM_PATH: &str = "%SystemRoot%\\system32;%SystemRoot%;%SystemRoot%\\System32\\Wbem;\
    %SystemRoot%\\System32\\WindowsPowerShell\\v1.0\\";

/// The kinds.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "nanoserver",
        installation: "Nano Server",
        edition: "ServerDatacenterNano",
        user: "ContainerUser",
        path: "%SystemRoot%\\system32;%SystemRoot%;",
    },
    Kind {
        name: "servercore",
        installation: "Server Core",
        edition: "ServerDatacenterACor",
        user: "",
        path: SYSTEM_PATH,
    },
    Kind {
        name: "server",
        installation: "Server",
        edition: "ServerDatacenter",
        user: "",
        path: SYSTEM_PATH,
    },
];

/// The small layer of a kind and build: differences of two hives.
#[derive(Debug)]
pub struct Deltas {
    software: Vec<u8>,
    system: Vec<u8>,
    time: i64,
}

/// Makes the small layer over the content's hives.
pub fn deltas(base: &Hives, kind: &Kind, build: &Build, time: i64) -> Result<Deltas, Error> {
    let mut software = base.software.clone();
    for view in ["", "Wow6432Node\\"] {
        let path = format!("{view}Microsoft\\Windows NT\\CurrentVersion");
        let Some(key) = software.root.get_mut(&path) else { continue };
        let number = build.number.to_string();
        let product = format!("Windows Server {} Datacenter", build.year);
        for (name, text) in [
            ("CurrentBuild", number.as_str()),
            ("CurrentBuildNumber", &number),
            ("EditionID", kind.edition),
            ("InstallationType", kind.installation),
            ("ProductName", &product),
            ("ReleaseId", build.release),
        ] {
            key.set_value(Value::string(name, text));
        }
        if let Some(display) = build.display {
            key.set_value(Value::string("DisplayVersion", display));
        }
        key.set_value(Value::dword("UBR", build.revision));
    }
    let mut system = base.system.clone();
    for (path, value) in [
        ("ControlSet001\\Control\\ProductOptions", Value::string("ProductType", "ServerNT")),
        (
            "ControlSet001\\Control\\Session Manager\\Environment",
            Value::expand_string("Path", kind.path),
        ),
    ] {
        let key = system.root.create(path, base.system.last_written);
        key.map_err(|source| Error::Hive { hive: "SYSTEM", source })?.set_value(value);
    }
    let delta = |name, from: &Hive, to: &Hive| {
        let options = DiffOptions { times: false, ..Default::default() };
        registry::file(name, &diff(from, to, &options))
    };
    Ok(Deltas {
        software: delta("Software_Delta", &base.software, &software)?,
        system: delta("System_Delta", &base.system, &system)?,
        time,
    })
}

impl Deltas {
    /// Writes the layer's tar.
    pub fn write_layer(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut layer = Layer::new(out, self.time);
        layer.directory("Files", FileAttributes::DIRECTORY)?;
        layer.directory("Hives", FileAttributes::DIRECTORY)?;
        for (name, bytes) in
            [("Hives/Software_Delta", &self.software), ("Hives/System_Delta", &self.system)]
        {
            let write = |out: &mut dyn Write| out.write_all(bytes);
            layer.file(name, FileAttributes::ARCHIVE, bytes.len() as u64, write)?;
        }
        layer.finish()
    }
}

/// The tar of a layer that gives a base another build and revision: for an image that was made
/// for those.
pub fn version_layer(number: u32, revision: u32) -> Result<Vec<u8>, Error> {
    // The keys are there already: what else is in them stays.
    let mut base = Hive::new(Key::new("ROOT"));
    let paths =
        ["", "Wow6432Node\\"].map(|view| format!("{view}Microsoft\\Windows NT\\CurrentVersion"));
    for path in &paths {
        let made = base.root.create(path, base.last_written);
        made.map_err(|source| Error::Hive { hive: "SOFTWARE", source })?;
    }
    let mut software = base.clone();
    for path in &paths {
        let Some(key) = software.root.get_mut(path) else { continue };
        for name in ["CurrentBuild", "CurrentBuildNumber"] {
            key.set_value(Value::string(name, &number.to_string()));
        }
        key.set_value(Value::dword("UBR", revision));
    }
    let options = DiffOptions { times: false, ..Default::default() };
    let software = registry::file("Software_Delta", &diff(&base, &software, &options))?;
    let mut tar = Vec::new();
    let mut layer = Layer::new(&mut tar, 0);
    layer.directory("Files", FileAttributes::DIRECTORY)?;
    layer.directory("Hives", FileAttributes::DIRECTORY)?;
    let write = |out: &mut dyn Write| out.write_all(&software);
    layer.file("Hives/Software_Delta", FileAttributes::ARCHIVE, software.len() as u64, write)?;
    layer.finish()?;
    Ok(tar)
}

/// The part of a base image's configuration that is not about its layers; `runtime` is the
/// version of Wine that it was made from, `recipe` the digest of all its ingredients.
pub fn config(kind: &Kind, build: &Build, runtime: &str, recipe: &str) -> Json {
    json!({
        "architecture": "amd64",
        "os": "windows",
        "os.version": build.version(),
        "config": {
            "User": kind.user,
            "Cmd": ["c:\\windows\\system32\\cmd.exe"],
            "Labels": {
                LABEL: build.version(),
                RECIPE: recipe,
                "org.opencontainers.image.title":
                    format!("Silo's base compatible with Windows {} {}", kind.name, build.tag),
                "org.opencontainers.image.description":
                    format!("Windows programs by Wine {runtime}; not made of Microsoft's files"),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use silo_hive::delta::merge;
    use silo_hive::read;
    use silo_winlayer::hives::{HiveFile, recognise};
    use silo_winlayer::{EntryKind, LayerReader};

    use super::*;

    fn base() -> Hives {
        let mut software = Key::new("ROOT");
        software
            .create("Microsoft\\Windows NT\\CurrentVersion", silo_hive::FileTime(1))
            .unwrap()
            .set_value(Value::string("CurrentBuild", "1"));
        let key = software.get_mut("Microsoft\\Windows NT\\CurrentVersion").unwrap();
        key.set_value(Value::string("Other", "stays"));
        Hives {
            software: Hive::new(software),
            system: Hive::default(),
            default: Hive::default(),
            users: Vec::new(),
        }
    }

    #[test]
    fn deltas_make_the_build_of_the_base() {
        let base = base();
        let deltas = deltas(&base, &KINDS[1], &BUILDS[2], 1_700_000_000).unwrap();
        let effective = merge(base.software, &read(&deltas.software).unwrap());
        let key = effective.get("Microsoft\\Windows NT\\CurrentVersion").unwrap();
        assert_eq!(key.value("CurrentBuild").unwrap().text().as_deref(), Some("20348"));
        assert_eq!(key.value("UBR").unwrap().number(), Some(2700));
        let effective = merge(base.system, &read(&deltas.system).unwrap());
        let options = effective.get("ControlSet001\\Control\\ProductOptions").unwrap();
        assert_eq!(options.value("ProductType").unwrap().text().as_deref(), Some("ServerNT"));
    }

    #[test]
    fn other_updates_of_a_build() {
        let tar = version_layer(17763, 3887).unwrap();
        assert_eq!(tar, version_layer(17763, 3887).unwrap());
        let at = tar.windows(4).position(|bytes| bytes == b"regf").unwrap();
        let base = base();
        let effective = merge(base.software, &read(&tar[at..]).unwrap());
        let key = effective.get("Microsoft\\Windows NT\\CurrentVersion").unwrap();
        assert_eq!(key.value("CurrentBuild").unwrap().text().as_deref(), Some("17763"));
        assert_eq!(key.value("UBR").unwrap().number(), Some(3887));
        assert_eq!(key.value("Other").unwrap().text().as_deref(), Some("stays"));
    }

    #[test]
    fn the_small_layer_is_a_windows_layer() {
        let deltas = deltas(&base(), &KINDS[0], &BUILDS[0], 1_700_000_000).unwrap();
        let mut tar = Vec::new();
        deltas.write_layer(&mut tar).unwrap();
        let mut reader = LayerReader::new(&tar[..]);
        let mut found = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            let meaning = item.record.meaning().unwrap();
            assert!(meaning.findings.is_empty());
            let entry = meaning.entry.unwrap();
            assert!(entry.descriptor.is_some() && entry.attributes.is_some());
            if entry.kind == EntryKind::File {
                found.push(matches!(recognise(&entry.path), Some(HiveFile::Delta(_))));
            }
        }
        assert_eq!(found, [true, true]);
    }

    #[test]
    fn images_say_what_they_are() {
        let config = config(&KINDS[0], &BUILDS[3], "10.0", "sha256:x");
        assert_eq!(config["os.version"], "10.0.26100.1742");
        assert_eq!(config["config"]["User"], "ContainerUser");
        assert_eq!(BUILDS[0].tags(&KINDS[0]), ["ltsc2016", "1607", "sac2016"]);
        assert_eq!(BUILDS[2].tags(&KINDS[2]), ["ltsc2022"]);
    }
}
