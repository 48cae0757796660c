//! The registry in layers: which file is which hive.
//!
//! A base layer has hives among its files; layers above it have differences (`*_Delta`) of
//! five of them under `Hives/`, each relative to the merged state of all layers beneath. Other
//! hives are files like any other.

use crate::fold::fold;
use crate::path::{LayerPath, Part};

/// A hive that layers have differences of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hive {
    /// `HKLM\SYSTEM`.
    System,
    /// `HKLM\SOFTWARE`.
    Software,
    /// `HKLM\SAM`.
    Sam,
    /// `HKLM\SECURITY`.
    Security,
    /// `HKU\.DEFAULT`: of the local system, not the pattern for new users.
    DefaultUser,
}

impl Hive {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::System, Self::Software, Self::Sam, Self::Security, Self::DefaultUser];

    /// The file under `Hives/` that has the difference.
    pub fn delta_name(self) -> &'static str {
        match self {
            Self::System => "System_Delta",
            Self::Software => "Software_Delta",
            Self::Sam => "Sam_Delta",
            Self::Security => "Security_Delta",
            Self::DefaultUser => "DefaultUser_Delta",
        }
    }

    /// The file in a base layer, below `Files/`.
    pub fn base_path(self) -> &'static str {
        match self {
            Self::System => "Windows/System32/config/SYSTEM",
            Self::Software => "Windows/System32/config/SOFTWARE",
            Self::Sam => "Windows/System32/config/SAM",
            Self::Security => "Windows/System32/config/SECURITY",
            Self::DefaultUser => "Windows/System32/config/DEFAULT",
        }
    }

    /// Where it is in the registry.
    pub fn key(self) -> &'static str {
        match self {
            Self::System => "HKLM\\SYSTEM",
            Self::Software => "HKLM\\SOFTWARE",
            Self::Sam => "HKLM\\SAM",
            Self::Security => "HKLM\\SECURITY",
            Self::DefaultUser => "HKU\\.DEFAULT",
        }
    }
}

/// What a file of a layer is to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HiveFile {
    /// The hive itself, in a base layer.
    Base(Hive),
    /// A difference.
    Delta(Hive),
    /// A log of a difference or another file of `Hives/`: not content.
    Other,
}

/// Tells what a path is to the registry; `None` for files that are not part of it, or of it
/// only as files.
pub fn recognise(path: &LayerPath) -> Option<HiveFile> {
    let inner = fold(path.inner());
    match path.part() {
        Part::Hives if inner.is_empty() => None,
        Part::Hives => {
            let hive = Hive::ALL.into_iter().find(|hive| fold(hive.delta_name()) == inner);
            Some(hive.map_or(HiveFile::Other, HiveFile::Delta))
        }
        Part::Files => {
            let hive = Hive::ALL.into_iter().find(|hive| fold(hive.base_path()) == inner);
            hive.map(HiveFile::Base)
        }
        Part::Utility | Part::UtilityFiles => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises() {
        for (path, want) in [
            ("Hives/System_Delta", Some(HiveFile::Delta(Hive::System))),
            ("Hives/DEFAULTUSER_DELTA", Some(HiveFile::Delta(Hive::DefaultUser))),
            ("Hives/System_Delta.LOG1", Some(HiveFile::Other)),
            ("Hives/System_Base", Some(HiveFile::Other)),
            ("Hives", None),
            ("Files/windows/system32/CONFIG/system", Some(HiveFile::Base(Hive::System))),
            ("Files/Windows/System32/config/DEFAULT", Some(HiveFile::Base(Hive::DefaultUser))),
            ("Files/Windows/System32/config/COMPONENTS", None),
            ("Files/Users/Default/NTUSER.DAT", None),
            ("UtilityVM/Files/Windows/System32/config/SYSTEM", None),
        ] {
            let path = LayerPath::parse(path.as_bytes()).unwrap().0;
            assert_eq!(recognise(&path), want, "{path}");
        }
    }
}
