//! Which of an image's layers are Microsoft's base, and which of Silo's bases is like it.
//!
//! # How many layers
//!
//! The lowest layers are the base, by the first of these that says so:
//!
//! 1. their digests: they are all the layers of an image that came from Microsoft's own
//!    repositories earlier ([`Learned`]);
//! 2. the image's name: all layers of `mcr.microsoft.com/windows/servercore` and the like;
//! 3. their media type: layers that are not to be distributed, from Microsoft's servers (until
//!    2023);
//! 4. the history: Microsoft's steps are called `Apply image …` and `Install update …` (also
//!    since 2023, and when a host has packed the layers anew).
//!
//! # Which base
//!
//! The build is that of `os.version`; without one, what the digests, the name's tag or the
//! history say. A build between those that Silo has gets the next later one. The kind is that
//! of the digests or the name; otherwise `servercore`, which has all that `nanoserver` has, unless
//! the layers are as small as only Nano Server's are.
//!
//! All this is what a stranger says. It decides which of Silo's own bases is beneath the
//! stranger's own layers, and nothing else.

use serde::{Deserialize, Serialize};
use silo_oci::image::{Descriptor, ImageConfig, Manifest};
use silo_oci::reference::Reference;
use silo_types::Digest;
use silo_windows::base::{BUILDS, Build, KINDS, Kind};

/// Where Microsoft's images are.
const MICROSOFT: &str = "mcr.microsoft.com";
/// The most layers that a base has; Microsoft's have one or two.
const MAX_LAYERS: usize = 8;
/// Bytes that compressed layers of Nano Server have together: others are ten times as large.
const NANO: std::ops::RangeInclusive<u64> = 20_000_000..=700_000_000;

/// The layers of one of Microsoft's base images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Learned {
    /// Digests of their tars, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Its kind, `servercore`.
    pub(crate) kind: String,
    /// Its `os.version`.
    pub(crate) version: String,
}

/// What was found out about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// How many of its lowest layers are Microsoft's.
    pub(crate) layers: usize,
    /// Which kind of base is like them.
    pub(crate) kind: &'static Kind,
    /// Which build has it.
    pub(crate) build: &'static Build,
    /// Build and revision of the image itself.
    pub(crate) version: (u32, u32),
    /// Whether the image is one of Microsoft's bases, and no more, by its name.
    pub(crate) is_base: bool,
}

/// The kind of one of Microsoft's repositories.
pub(crate) fn kind_of_repository(domain: &str, path: &str) -> Option<&'static Kind> {
    let name = match (domain, path) {
        (MICROSOFT, "windows/nanoserver") | ("docker.io", "microsoft/nanoserver") => "nanoserver",
        (MICROSOFT, "windows/servercore") | ("docker.io", "microsoft/windowsservercore") => {
            "servercore"
        }
        (MICROSOFT, "windows/server" | "windows") => "server",
        _ => return None,
    };
    kind(name)
}

fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Build and revision of `10.0.17763.6293`; revision 0 without one.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| -> Option<u32> {
        let fits = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| fits)
    };
    let mut parts = text.strip_prefix("10.0.")?.split('.');
    let build = number(parts.next()?)?;
    let revision = parts.next().map_or(Some(0), number)?;
    parts.next().is_none().then_some((build, revision))
}

/// The version that a tag or a word of the history stands for: `ltsc2019-amd64`, `1809-RTM`,
/// `10.0.17763.3770`.
fn version_of_tag(tag: &str) -> Option<(u32, u32)> {
    let release = tag.split('-').next().unwrap_or(tag);
    let is_its = |build: &&Build| {
        build.tag == release
            || build.aliases.contains(&release)
            || build.nano_alias == Some(release)
    };
    let build = BUILDS.iter().find(is_its);
    version(release).or_else(|| build.map(|build| (build.number, build.revision)))
}

/// Silo's build for one of Microsoft's: the same, or the next later one.
fn build_for(number: u32) -> Option<&'static Build> {
    if number < BUILDS[0].number {
        return None;
    }
    BUILDS.iter().find(|build| build.number >= number).or(BUILDS.last())
}

/// Whether a layer is not to be distributed, and Microsoft's servers have it.
fn is_foreign(layer: &Descriptor) -> bool {
    let kind = &layer.media_type;
    let is_microsofts = |url: &String| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        host == MICROSOFT || host == "go.microsoft.com"
    };
    (kind.contains(".foreign.") || kind.contains(".nondistributable."))
        && layer.urls.iter().all(is_microsofts)
}

/// The words of history for Microsoft's own steps.
fn steps(config: &ImageConfig) -> Vec<&str> {
    let own = |step: &str| {
        let rest = step.strip_prefix("Apply image ").or(step.strip_prefix("Install update "));
        rest.map(|rest| rest.trim().len()).is_some_and(|length| length > 0)
    };
    let steps = config.history.iter().filter(|step| !step.empty_layer);
    let steps: Vec<&str> = steps.map(|step| step.created_by.as_str()).collect();
    let begins = steps.first().is_some_and(|first| first.starts_with("Apply image "));
    if begins { steps.into_iter().take_while(|step| own(step)).collect() } else { Vec::new() }
}

/// Looks for Microsoft's base in an image; `None` if there is none. The error says why no base of
/// Silo's is like the one that the image has.
pub(crate) fn recognise(
    reference: Option<&Reference>,
    manifest: &Manifest,
    config: &ImageConfig,
    learned: &[Learned],
) -> Result<Option<Recognised>, String> {
    let diff_ids = &config.rootfs.diff_ids;
    if config.os != super::OS || diff_ids.is_empty() {
        return Ok(None);
    }
    let known = learned.iter().filter(|known| diff_ids.starts_with(&known.diff_ids));
    let known = known.max_by_key(|known| known.diff_ids.len());
    let named = reference.and_then(|name| kind_of_repository(name.domain(), name.path()));
    let foreign = manifest.layers.iter().take_while(|layer| is_foreign(layer)).count();
    let steps = steps(config);
    let layers = match (known, named, foreign, steps.len()) {
        (Some(known), ..) if named.is_none() => known.diff_ids.len(),
        (_, Some(_), ..) => diff_ids.len(),
        (.., 0, count) => count,
        (_, _, count, _) => count,
    };
    if layers == 0 {
        return Ok(None);
    }
    if layers > MAX_LAYERS.min(diff_ids.len()) {
        return Err(format!(
            "it says that {layers} of its layers are Microsoft's base, which has two at most"
        ));
    }
    let tag = reference.filter(|_| named.is_some()).and_then(Reference::tag).unwrap_or_default();
    let version = if config.os_version.is_empty() {
        let last = steps.last().and_then(|step| step.rsplit(' ').next()).unwrap_or_default();
        known
            .and_then(|known| version(&known.version))
            .or_else(|| version_of_tag(tag))
            .or_else(|| version_of_tag(last))
    } else {
        version(&config.os_version)
    };
    let build = version.and_then(|(number, _)| build_for(number));
    let (Some(version), Some(build)) = (version, build) else {
        let shown: String = config.os_version.chars().take(60).collect();
        return Err(format!(
            "its os.version {shown:?} is no build of Windows that Silo has a base for"
        ));
    };
    let size: u64 = manifest.layers[..layers.min(manifest.layers.len())]
        .iter()
        .fold(0, |sum, layer| sum.saturating_add(layer.size));
    let is_nano = NANO.contains(&size) && !config.os_features.iter().any(|name| name == "win32k");
    let guess = if is_nano { &KINDS[0] } else { &KINDS[1] };
    let kind = named.or_else(|| known.and_then(|known| kind(&known.kind))).unwrap_or(guess);
    Ok(Some(Recognised { layers, kind, build, version, is_base: named.is_some() }))
}

#[cfg(test)]
mod tests {
    use silo_oci::image::{History, RootFs, digest, media};

    use super::*;

    const FOREIGN: &str = media::DOCKER_FOREIGN;
    const PLAIN: &str = media::DOCKER_LAYER_GZIP;

    /// Layers as type, size and URL.
    fn image(
        os_version: &str,
        layers: &[(&str, u64, &str)],
        history: &[&str],
    ) -> (Manifest, ImageConfig) {
        let descriptors = layers.iter().enumerate().map(|(at, (kind, size, url))| {
            let mut layer = Descriptor::new(kind, digest(&[u8::try_from(at).unwrap()]), *size);
            layer.urls.extend((!url.is_empty()).then(|| (*url).to_owned()));
            layer
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.to_owned(),
            artifact_type: String::new(),
            config: Descriptor::new(media::DOCKER_CONFIG, digest(b"c"), 1),
            layers: descriptors.collect(),
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let diff_ids = (0..layers.len()).map(|at| digest(format!("tar {at}").as_bytes())).collect();
        let steps = history
            .iter()
            .map(|step| History { created_by: (*step).to_owned(), ..History::default() });
        let config = ImageConfig {
            os: "windows".into(),
            os_version: os_version.into(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            history: steps.collect(),
            ..ImageConfig::default()
        };
        (manifest, config)
    }

    fn found(
        name: &str,
        (manifest, config): &(Manifest, ImageConfig),
        learned: &[Learned],
    ) -> Result<Option<(usize, String, u32)>, String> {
        let reference = Reference::parse_normalized(name).unwrap();
        let found = recognise(Some(&reference), manifest, config, learned)?;
        Ok(found.map(|found| {
            (found.layers, format!("{}:{}", found.kind.name, found.build.tag), found.version.0)
        }))
    }

    const URL: &str = "https://mcr.microsoft.com/v2/windows/servercore/blobs/sha256:00";

    #[test]
    fn bases_are_recognised() {
        let core = [(FOREIGN, 1_718_332_879, URL), (FOREIGN, 655_757_265, URL), (PLAIN, 1130, "")];
        let plain = [(PLAIN, 1_718_332_879, ""), (PLAIN, 655_757_265, ""), (PLAIN, 1130, "")];
        let nano = [(PLAIN, 103_054_555, ""), (PLAIN, 1162, "")];
        let steps = ["Apply image 1809-RTM-amd64", "Install update 1809-amd64", "cmd /S /C x"];
        let evil = [(FOREIGN, 5, "https://10.0.0.1/x"), (PLAIN, 5, "")];
        let old = "https://go.microsoft.com/fwlink/?linkid=837858";
        let app = "reg.example/app:1";
        for (name, version, layers, history, expected) in [
            (app, "10.0.17763.1518", &core[..], &[][..], Some((2, "servercore:ltsc2019", 17763))),
            (app, "10.0.17763.1518", &plain, &steps, Some((2, "servercore:ltsc2019", 17763))),
            (app, "10.0.17763.1518", &plain, &["RUN x"], None),
            (
                app,
                "10.0.17763.3770",
                &nano,
                &["Apply image 10.0.17763.3770", "x"],
                Some((1, "nanoserver:ltsc2019", 17763)),
            ),
            (
                app,
                "",
                &nano,
                &["Apply image 10.0.20348.1", "x"],
                Some((1, "nanoserver:ltsc2022", 20348)),
            ),
            (app, "", &plain, &steps, Some((2, "servercore:ltsc2019", 17763))),
            (
                app,
                "10.0.14393",
                &[(FOREIGN, 4_069_985_900, old)],
                &[],
                Some((1, "servercore:ltsc2016", 14393)),
            ),
            (
                app,
                "10.0.18363.1556",
                &nano,
                &["Apply image 1909-amd64", ""],
                Some((1, "nanoserver:ltsc2022", 18363)),
            ),
            (app, "10.0.26200.1", &core, &[], Some((2, "servercore:ltsc2025", 26200))),
            (app, "10.0.17763.1", &evil, &[], None),
            (
                "mcr.microsoft.com/windows/servercore:ltsc2022",
                "10.0.20348.1",
                &plain[..2],
                &[],
                Some((2, "servercore:ltsc2022", 20348)),
            ),
            (
                "mcr.microsoft.com/windows/server:ltsc2025",
                "",
                &plain[..1],
                &[],
                Some((1, "server:ltsc2025", 26100)),
            ),
            ("mcr.microsoft.com/dotnet/runtime:8.0", "10.0.20348.1", &plain, &[], None),
        ] {
            let expected = expected.map(|(count, base, build)| (count, base.to_owned(), build));
            let image = image(version, layers, history);
            assert_eq!(found(name, &image, &[]), Ok(expected), "{name} {version} {history:?}");
        }
    }

    #[test]
    fn learned_digests_count_first() {
        let layers = [(PLAIN, 30_000_000, ""), (PLAIN, 50, ""), (PLAIN, 10, "")];
        let (manifest, mut config) = image("", &layers, &[]);
        let known = |count: usize, kind: &str| Learned {
            diff_ids: config.rootfs.diff_ids[..count].to_vec(),
            kind: kind.into(),
            version: "10.0.20348.5".into(),
        };
        let learned = [known(1, "nanoserver"), known(2, "server")];
        let image = (manifest, config.clone());
        assert_eq!(
            found("a/b", &image, &learned).unwrap(),
            Some((2, "server:ltsc2022".into(), 20348))
        );
        assert_eq!(found("a/b", &image, &[]), Ok(None));
        config.os = "linux".into();
        assert_eq!(found("a/b", &(image.0, config), &learned), Ok(None));
    }

    #[test]
    fn lies_are_told_apart_from_bases() {
        let nano = [(PLAIN, 103_054_555, ""), (PLAIN, 1162, "")];
        let steps = ["Apply image x", "y"];
        for version in
            ["banana", "10.0.99999999999.1", "10.0.1.1", "6.1.7601", "10.0.17763.1.1", "10.0.+1.1"]
        {
            let image = image(version, &nano, &steps);
            assert!(found("a/b", &image, &[]).unwrap_err().contains("os.version"), "{version}");
        }
        assert!(found("a/b", &image("", &nano, &steps), &[]).is_err());
        let many = vec![(FOREIGN, 1, URL); 200];
        let error = found("a/b", &image("10.0.17763.1", &many, &[]), &[]).unwrap_err();
        assert!(error.contains("200 of its layers"), "{error}");
    }
}
