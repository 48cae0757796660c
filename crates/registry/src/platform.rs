//! Which image of an index is meant.
//!
//! For Linux the best that runs (see [`Platform::rank`]); for Windows by builds: containerd's rule
//! says which run on a host of some build, and since here every build runs, the newest of those
//! comes first, then the newest of the others.

use silo_oci::image::{Descriptor, Index};
use silo_oci::platform::Platform;

use crate::Error;

/// Builds that later ones of Windows run containers of.
const STABLE: [u32; 2] = [20348, 26100];

/// A Windows version: major, minor, build, update. What is missing or no number is 0.
fn version(text: &str) -> [u32; 4] {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

/// Whether a Windows of build `host` runs containers of build `image` without a virtual machine.
fn runs_on(host: u32, image: u32) -> bool {
    if host < STABLE[0] {
        return host == image;
    }
    let at = STABLE.iter().rposition(|stable| *stable <= host).unwrap_or(0);
    (STABLE[at.saturating_sub(1)]..=host).contains(&image)
}

/// Whether an entry of an index is an image at all, and not what is said about one.
fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

/// How good an entry is for a platform; larger is better.
fn fitness(wanted: &Platform, have: &Platform, host_build: u32) -> Option<(bool, [u32; 4])> {
    let plain = |platform: &Platform| Platform { os_version: String::new(), ..platform.clone() };
    plain(wanted).rank(&plain(have))?;
    let found = version(&have.os_version);
    if wanted.os_version.is_empty() {
        return Some((runs_on(host_build, found[2]), found));
    }
    let asked = version(&wanted.os_version);
    (asked[..3] == found[..3]).then_some((asked == found, found))
}

/// The best entry for a platform.
fn best<'a>(index: &'a Index, wanted: &Platform, host_build: u32) -> Option<&'a Descriptor> {
    let entries: Vec<&Descriptor> =
        index.manifests.iter().filter(|entry| is_image(entry)).collect();
    if wanted.os != "windows" {
        return wanted
            .best(entries.iter().map(|entry| entry.platform.as_ref()))
            .map(|place| entries[place]);
    }
    let mut found: Option<(&Descriptor, (bool, [u32; 4]))> = None;
    for entry in entries {
        let Some(fits) = entry.platform.as_ref().and_then(|have| fitness(wanted, have, host_build))
        else {
            continue;
        };
        // The first of equals stays.
        if found.as_ref().is_none_or(|(_, best)| fits > *best) {
            found = Some((entry, fits));
        }
    }
    found.map(|(entry, _)| entry)
}

/// The entry for the platform that a client asked for; for the host if it asked for none, or for
/// Windows on the host's processor where there is nothing for Linux.
pub fn choose<'a>(
    index: &'a Index,
    wanted: Option<&Platform>,
    host_build: u32,
) -> Result<&'a Descriptor, Error> {
    let host = Platform::host();
    let windows = Platform::new("windows", &host.architecture, "");
    let candidates = match wanted {
        Some(wanted) => vec![wanted.clone()],
        None => vec![host, windows],
    };
    let found = candidates.iter().find_map(|wanted| best(index, wanted, host_build));
    found.ok_or_else(|| Error::NoPlatform {
        wanted: candidates.first().map(ToString::to_string).unwrap_or_default(),
        found: list(index),
    })
}

/// The platforms of an index for people.
pub fn list(index: &Index) -> String {
    let mut names: Vec<String> = Vec::new();
    for entry in index.manifests.iter().filter(|entry| is_image(entry)) {
        let name = match &entry.platform {
            None => "one without a platform".to_owned(),
            Some(platform) if platform.os_version.is_empty() => platform.to_string(),
            Some(platform) => format!("{platform} ({})", platform.os_version),
        };
        let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.len() {
        0 => "none".to_owned(),
        1..=40 => names.join(", "),
        more => format!("{}, and {} more", names[..40].join(", "), more - 40),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use silo_oci::image::{digest, media};
    use std::collections::BTreeMap;

    fn index(platforms: &[(&str, &str)]) -> Index {
        let manifests = platforms.iter().enumerate().map(|(number, (name, version))| {
            let mut entry = Descriptor::new(media::OCI_MANIFEST, digest(&number.to_le_bytes()), 1);
            let parts: Vec<&str> = name.split('/').collect();
            entry.platform = Some(Platform {
                os: parts[0].to_owned(),
                architecture: parts[1].to_owned(),
                os_version: (*version).to_owned(),
                ..Platform::default()
            });
            entry
        });
        Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: manifests.collect(),
            annotations: BTreeMap::new(),
        }
    }

    fn place(index: &Index, wanted: Option<&str>, version: &str, build: u32) -> Option<usize> {
        let wanted =
            wanted.map(|text| Platform { os_version: version.to_owned(), ..text.parse().unwrap() });
        let chosen = choose(index, wanted.as_ref(), build).ok()?;
        index.manifests.iter().position(|entry| entry.digest == chosen.digest)
    }

    #[test]
    fn linux_before_windows() {
        let arch = Platform::host().architecture;
        let (linux, windows) = (format!("linux/{arch}"), format!("windows/{arch}"));
        let both = index(&[
            ("unknown/unknown", ""),
            (&windows, "10.0.20348.1"),
            ("linux/s390x", ""),
            (&linux, ""),
        ]);
        assert_eq!(place(&both, None, "", 26100), Some(3));
        assert_eq!(place(&both, Some("windows"), "", 26100), Some(1));
        assert_eq!(place(&both, Some("linux/s390x"), "", 26100), Some(2));
        assert_eq!(place(&both, Some("linux/mips64le"), "", 26100), None);
        assert_eq!(place(&index(&[(&windows, "10.0.17763.1")]), None, "", 26100), Some(0));
        let error = choose(&both, Some(&"linux/mips64le".parse().unwrap()), 26100).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no matching manifest for linux/mips64le in the manifest list entries: there is \
                 {windows} (10.0.20348.1), linux/s390x, {linux}"
            )
        );
        let error = choose(&index(&[("unknown/unknown", "")]), None, 26100).unwrap_err();
        assert!(error.to_string().ends_with("there is none"), "{error}");
    }

    #[test]
    fn windows_by_builds() {
        let list = index(&[
            ("windows/amd64", "10.0.14393.1"),
            ("windows/amd64", "10.0.17763.5"),
            ("windows/amd64", "10.0.17763.1000"),
            ("windows/amd64", "10.0.20348.2700"),
            ("windows/amd64", "10.0.26100.1"),
            ("windows/arm64", "10.0.26100.2"),
        ]);
        for (build, version, expected) in [
            (26100, "", Some(4)),
            (26200, "", Some(4)),
            (25398, "", Some(3)),
            (20348, "", Some(3)),
            // The newest update by number, not by letter.
            (17763, "", Some(2)),
            (14393, "", Some(0)),
            // None runs there without a virtual machine: the newest.
            (19041, "", Some(4)),
            (26100, "10.0.17763", Some(2)),
            (26100, "10.0.17763.5", Some(1)),
            (26100, "10.0.18362.1", None),
        ] {
            assert_eq!(
                place(&list, Some("windows/amd64"), version, build),
                expected,
                "{build} {version}"
            );
        }
        for (host, image, runs) in [
            (20348, 20348, true),
            (20348, 17763, false),
            (26100, 20348, true),
            (26100, 25398, true),
            (26200, 20348, true),
            (20348, 26100, false),
            (17763, 17763, true),
        ] {
            assert_eq!(runs_on(host, image), runs, "{host} {image}");
        }
    }
}
