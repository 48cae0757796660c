//! Platforms: which operating system, processor and revision an image is for.
//!
//! Names are those of the OCI image specification (GOOS and GOARCH values); the aliases that
//! people and kernels use (`x86_64`, `aarch64`, `armhf`) are understood when parsing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::lenient;

/// Text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/architecture[/variant]")]
pub struct PlatformError(pub String);

/// An operating system and processor, as in an OCI descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Processor, as `amd64`.
    #[serde(default, deserialize_with = "lenient::default")]
    pub architecture: String,
    /// Operating system, as `linux`.
    #[serde(default, deserialize_with = "lenient::default")]
    pub os: String,
    /// Version of the operating system, as `10.0.17763.1`; empty but for Windows.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub os_version: String,
    /// Features of the operating system that the image needs, as `win32k`.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub os_features: Vec<String>,
    /// Revision of the processor, as `v8`.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub variant: String,
}

impl Platform {
    /// A platform from its three names, normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let mut platform = Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        };
        platform.normalize();
        platform
    }

    /// The platform of this binary.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// Replaces aliases by the registered names and drops variants that mean the default.
    pub fn normalize(&mut self) {
        self.os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7" | "v7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("loongarch64", other) => ("loong64", other),
            (architecture, variant) => (architecture, variant),
        };
        (self.architecture, self.variant) = (architecture.to_owned(), variant.to_owned());
    }

    /// Whether something made for `candidate` runs where `self` is wanted, and how well:
    /// 0 is an exact match, larger is worse, `None` does not run.
    pub fn rank(&self, candidate: &Platform) -> Option<u32> {
        let (mut want, mut have) = (self.clone(), candidate.clone());
        want.normalize();
        have.normalize();
        if want.os != have.os {
            return None;
        }
        let versions = (want.os_version.is_empty() || have.os_version.is_empty())
            || windows_build(&want.os_version) == windows_build(&have.os_version);
        if !versions {
            return None;
        }
        let revision = |platform: &Platform, default: u32| -> Option<u32> {
            if platform.variant.is_empty() {
                return Some(default);
            }
            let number = platform.variant.strip_prefix('v')?;
            let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
            let (major, minor) = (major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?);
            Some(u32::from(major) * 16 + u32::from(minor.min(15)))
        };
        match (want.architecture.as_str(), have.architecture.as_str()) {
            ("amd64", "amd64") => revision(&want, 16)?.checked_sub(revision(&have, 16)?),
            ("amd64", "386") => Some(1000),
            ("arm64", "arm64") => revision(&want, 128)?.checked_sub(revision(&have, 128)?),
            ("arm64", "arm") => Some(1000 + 128_u32.checked_sub(revision(&have, 112)?)?),
            ("arm", "arm") => revision(&want, 112)?.checked_sub(revision(&have, 112)?),
            (want_arch, have_arch) if want_arch == have_arch => {
                (want.variant == have.variant).then_some(0)
            }
            _ => None,
        }
    }

    /// Whether something made for `candidate` runs where `self` is wanted.
    pub fn matches(&self, candidate: &Platform) -> bool {
        self.rank(candidate).is_some()
    }

    /// The index of the best of `candidates`, first of equals; a candidate that is `None`
    /// (a descriptor without a platform) is the last resort.
    pub fn best<'a>(
        &self,
        candidates: impl IntoIterator<Item = Option<&'a Platform>>,
    ) -> Option<usize> {
        candidates
            .into_iter()
            .enumerate()
            .filter_map(|(index, candidate)| match candidate {
                Some(platform) => Some((self.rank(platform)?, index)),
                None => Some((u32::MAX, index)),
            })
            .min()
            .map(|(_, index)| index)
    }
}

/// `10.0.17763.1` -> `10.0.17763`: updates of one Windows build are interchangeable.
fn windows_build(version: &str) -> Vec<&str> {
    version.split('.').take(3).collect()
}

impl FromStr for Platform {
    type Err = PlatformError;
    /// Parses `linux/arm64/v8`, and a lone `arm64` or `linux` with the rest from the host.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(100).collect());
        let well_formed = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| well_formed(part)) {
            return Err(error());
        }
        match parts.as_slice() {
            [one] => {
                let host = Self::host();
                let lower = one.to_ascii_lowercase();
                match lower.as_str() {
                    "linux" | "windows" | "freebsd" | "darwin" | "macos" | "wasi" => {
                        Ok(Self::new(&lower, &host.architecture, ""))
                    }
                    "x86_64" | "x86-64" | "amd64" | "i386" | "386" | "aarch64" | "arm64"
                    | "armhf" | "armel" | "arm" | "ppc64le" | "s390x" | "riscv64" | "mips64le"
                    | "loong64" | "loongarch64" | "wasm" => Ok(Self::new(&host.os, &lower, "")),
                    _ => Err(error()),
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalizes() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "nonsense"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn picks_the_best_that_runs() {
        let list: Vec<Platform> =
            ["linux/386", "windows/amd64", "linux/amd64", "linux/arm/v6", "linux/arm64"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        let best = |want: &str| {
            let want: Platform = want.parse().unwrap();
            want.best(list.iter().map(Some)).map(|index| list[index].to_string())
        };
        assert_eq!(best("linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(best("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(best("linux/arm/v7").as_deref(), Some("linux/arm/v6"));
        assert_eq!(best("linux/arm/v5"), None);
        assert_eq!(best("linux/s390x"), None);
    }

    #[test]
    fn windows_builds_must_agree() {
        let version = |text: &str| Platform {
            os_version: text.to_owned(),
            ..Platform::new("windows", "amd64", "")
        };
        assert!(version("10.0.17763.1").matches(&version("10.0.17763.5000")));
        assert!(!version("10.0.17763.1").matches(&version("10.0.20348.1")));
    }
}
