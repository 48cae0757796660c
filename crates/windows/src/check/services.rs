//! Services and drivers in an image's registry.

use serde::{Deserialize, Serialize};
use silo_hive::{Hive, Key};

use super::command::{expand, split};
use super::{Grade, Reason};

const SERVICES: &str = "ControlSet001\\Services";
/// Most services that are looked at.
const MAX_SERVICES: usize = 5000;

/// A service of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How it starts: `boot`, `system`, `auto`, `demand`, `disabled`.
    pub start: String,
    /// What runs it: `driver`, `program`, `svchost`.
    pub kind: String,
    /// Its program, as the registry has it.
    pub program: String,
    /// Its grade.
    pub grade: Grade,
    /// What speaks against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

impl Service {
    /// Whether it starts by itself.
    pub fn is_automatic(&self) -> bool {
        matches!(self.start.as_str(), "boot" | "system" | "auto")
    }

    /// The path of its program on drive C:, if it has one of its own.
    pub fn file(&self) -> Option<Vec<String>> {
        program_path(&self.program)
    }
}

/// Parts of Windows that an installer put in, by their keys in `SOFTWARE`.
const FEATURES: &[(&str, &str)] = &[
    (
        "Microsoft\\InetStp",
        "IIS is installed, which needs the HTTP.sys driver of the Windows kernel",
    ),
    (
        "Microsoft\\NET Framework Setup\\NDP\\v4\\Full",
        ".NET Framework is installed, which does not run with Wine",
    ),
    ("Microsoft\\PowerShell\\3", "Windows PowerShell is installed, which needs .NET Framework"),
    ("Microsoft\\Microsoft SQL Server", "SQL Server is installed, which does not run with Wine"),
    ("Microsoft\\MSMQ", "Message Queuing is installed, which Wine does not have"),
];

/// What of Windows' features an image has beside its base's, and Wine has not.
pub fn features(software: &Hive, base: Option<&Hive>) -> Vec<Reason> {
    FEATURES
        .iter()
        .filter(|(key, _)| {
            software.get(key).is_some() && base.is_none_or(|base| base.get(key).is_none())
        })
        .map(|(_, text)| Reason::new(Grade::Likely, *text, ""))
        .collect()
}

fn text(key: &Key, name: &str) -> Option<String> {
    let text = key.value(name)?.text()?;
    Some(text.chars().filter(|character| !character.is_control()).take(1024).collect())
}

/// The services of a `SYSTEM` hive that the base's hive has not, or has otherwise.
pub fn services(system: &Hive, base: Option<&Hive>) -> Vec<Service> {
    let Some(all) = system.get(SERVICES) else { return Vec::new() };
    let known = base.and_then(|base| base.get(SERVICES));
    let mut services = Vec::new();
    for key in all.subkeys().iter().take(MAX_SERVICES) {
        let same = known.and_then(|known| known.subkey(key.name())).is_some_and(|old| {
            ["Type", "Start", "ImagePath"]
                .iter()
                .all(|name| old.value(name).map(|v| &v.data) == key.value(name).map(|v| &v.data))
        });
        if same {
            continue;
        }
        // Keys without a type are of something else: settings of event logs, for one.
        let Some(kind) = key.value("Type").and_then(silo_hive::Value::number) else { continue };
        let start = key.value("Start").and_then(silo_hive::Value::number).unwrap_or(3);
        let program = text(key, "ImagePath").unwrap_or_default();
        let is_driver = kind & 0x0b != 0;
        let is_shared = program.to_ascii_lowercase().contains("svchost");
        let mut reasons = Vec::new();
        if is_driver {
            reasons.push(Reason::new(
                Grade::No,
                "it is a driver of the Windows kernel, which is not there",
                "",
            ));
        } else if key.name().to_string().eq_ignore_ascii_case("w3svc") {
            reasons.push(Reason::new(
                Grade::No,
                "IIS needs the HTTP.sys driver of the Windows kernel",
                "serve by another program, such as nginx, or by Kestrel of .NET 8 and later",
            ));
        } else if is_shared {
            reasons.push(Reason::new(
                Grade::Likely,
                "it is a library in a process of Windows', of which few were tried with Wine",
                "",
            ));
        }
        services.push(Service {
            name: key.name().to_string(),
            start: match start {
                0 => "boot",
                1 => "system",
                2 => "auto",
                4 => "disabled",
                _ => "demand",
            }
            .to_owned(),
            kind: match (is_driver, is_shared) {
                (true, _) => "driver",
                (_, true) => "svchost",
                _ => "program",
            }
            .to_owned(),
            program,
            grade: super::worst(reasons.iter().map(|reason| reason.grade)),
            reasons,
        });
    }
    services
}

/// The file of an `ImagePath`, in its many forms.
fn program_path(path: &str) -> Option<Vec<String>> {
    let path = path.trim();
    let path = path.strip_prefix("\\??\\").unwrap_or(path);
    let path = match path.get(..12) {
        Some(start) if start.eq_ignore_ascii_case("\\systemroot\\") => {
            format!("C:\\Windows\\{}", &path[12..])
        }
        _ => expand(path),
    };
    let whole = if path.starts_with('"') {
        split(&path).into_iter().next()?
    } else {
        // Without quotes, everything up to the ending may be the name.
        let lower = path.to_ascii_lowercase();
        match [".exe", ".sys"].iter().filter_map(|ending| lower.find(ending)).min() {
            Some(at) => path.get(..at + 4)?.to_owned(),
            None => path.split(' ').next()?.to_owned(),
        }
    };
    let whole = if whole.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("system32")) {
        format!("C:\\Windows\\{whole}")
    } else {
        whole
    };
    let parsed = crate::path::WindowsPath::parse(&whole).ok()?;
    (parsed.drive == 'C' && !parsed.names.is_empty()).then_some(parsed.names)
}

#[cfg(test)]
mod tests {
    use silo_hive::{FileTime, Value};

    use super::*;

    fn hive(services: &[(&str, u32, u32, &str)]) -> Hive {
        let mut hive = Hive::default();
        for (name, kind, start, program) in services {
            let path = format!("{SERVICES}\\{name}");
            let key = hive.root.create(&path, FileTime(1)).unwrap();
            key.set_value(Value::dword("Type", *kind));
            key.set_value(Value::dword("Start", *start));
            key.set_value(Value::expand_string("ImagePath", program));
        }
        hive
    }

    #[test]
    fn what_the_base_has_is_left_out() {
        let base =
            hive(&[("Tcpip", 1, 0, "System32\\drivers\\tcpip.sys"), ("Old", 16, 3, "a.exe")]);
        let image = hive(&[
            ("Tcpip", 1, 0, "System32\\drivers\\tcpip.sys"),
            ("Old", 16, 2, "a.exe"),
            ("Filter", 2, 1, "\\SystemRoot\\drivers\\f.sys"),
            ("W3SVC", 32, 2, "%windir%\\system32\\svchost.exe -k iissvcs"),
            ("Mine", 16, 4, "\"C:\\my app\\x.exe\" -run"),
        ]);
        let found = services(&image, Some(&base));
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.name.as_str(), s.kind.as_str(), s.start.as_str(), s.grade))
            .collect();
        assert_eq!(
            shown,
            [
                ("Filter", "driver", "system", Grade::No),
                ("Mine", "program", "disabled", Grade::Good),
                ("Old", "program", "auto", Grade::Good),
                ("W3SVC", "svchost", "auto", Grade::No),
            ]
        );
        assert_eq!(services(&image, None).len(), 5);
    }

    #[test]
    fn features_of_the_base_are_its_own() {
        let mut software = Hive::default();
        software.root.create("Microsoft\\InetStp\\Components", FileTime(1)).unwrap();
        let found = features(&software, Some(&Hive::default()));
        assert_eq!(found.len(), 1);
        assert!(found[0].text.starts_with("IIS is installed"), "{found:?}");
        assert!(features(&software, Some(&software)).is_empty());
    }

    #[test]
    fn paths_of_programs() {
        for (path, file) in [
            ("\"C:\\my app\\x.exe\" -run", Some("my app\\x.exe")),
            ("C:\\my app\\x.exe -run", Some("my app\\x.exe")),
            ("\\SystemRoot\\System32\\drivers\\a.sys", Some("Windows\\System32\\drivers\\a.sys")),
            ("system32\\DRIVERS\\a.sys", Some("Windows\\system32\\DRIVERS\\a.sys")),
            ("\\??\\C:\\x\\y.sys", Some("x\\y.sys")),
            ("%SystemRoot%\\x.exe", Some("Windows\\x.exe")),
            ("", None),
            ("\"", None),
            ("D:\\x.exe", None),
        ] {
            let found = program_path(path).map(|names| names.join("\\"));
            assert_eq!(found.as_deref(), file, "{path}");
        }
    }
}
