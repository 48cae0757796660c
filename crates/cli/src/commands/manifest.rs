//! Lists of manifests: made on this host of what registries have, and sent to a registry.

mod list;

use std::sync::Arc;

use serde::Serialize;
use silo_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, Manifest, media};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_registry::{Action, Repository, Resolved};
use silo_types::Digest;

use self::list::{Entry, Lists, compact};
use crate::command::Invocation;
use crate::context::Cli;
use crate::direct;
use crate::failure::{Failure, Outcome};
use crate::flags::flags;
use crate::value::indent_json;

flags! {
    /// Flags of `manifest create`.
    CreateFlags {
        amend: bool, ['a'] "amend", "Amend an existing manifest list";
        insecure: bool, "insecure", "Allow communication with an insecure registry";
    }
}

flags! {
    /// Flags of `manifest inspect`.
    InspectFlags {
        insecure: bool, "insecure", "Allow communication with an insecure registry";
        verbose: bool, ['v'] "verbose", "Output additional info including layers and platform";
    }
}

flags! {
    /// Flags of `manifest annotate`.
    AnnotateFlags {
        arch: String, "arch", "Set architecture";
        os: String, "os", "Set operating system";
        os_features: Vec<String>, "os-features", "Set operating system feature";
        os_version: String, "os-version", "Set operating system version";
        variant: String, "variant", "Set architecture variant";
    }
}

flags! {
    /// Flags of `manifest push`.
    PushFlags {
        insecure: bool, "insecure", "Allow push to an insecure registry";
        purge: bool, ['p'] "purge", "Remove the local manifest list after push";
    }
}

flags! {
    /// Flags of `manifest rm`.
    RmFlags {}
}

/// What Docker lets an entry of a list be for.
const PLATFORMS: &[(&str, &[&str])] = &[
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &["386", "amd64", "arm", "arm64", "ppc64le", "mips64", "mips64le", "riscv64", "s390x"],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64", "arm64"]),
];

/// An entry of a list, with its fields in Docker's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListEntry<'a> {
    media_type: &'a str,
    size: u64,
    digest: Digest,
    platform: Platform,
}

/// A list, with its fields in Docker's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<ListEntry<'a>>,
}

fn name(text: &str) -> Outcome<Reference> {
    Reference::parse_normalized(text).map_err(|error| Failure::new(error.to_string()))
}

fn lists(cli: &Cli) -> Lists {
    Lists::new(cli.config().directory())
}

fn repository(
    cli: &Cli,
    reference: &Reference,
    action: Action,
    insecure: bool,
) -> Outcome<Repository> {
    let insecure = if insecure { vec![reference.domain().to_owned()] } else { Vec::new() };
    let credentials = direct::credentials_for(cli.config(), reference)?;
    direct::registries(insecure)
        .repository(reference, action, &credentials)
        .map_err(|error| direct::failure(&error))
}

/// What a registry has under a name.
async fn fetch(repository: &Repository, reference: &Reference) -> Outcome<Resolved> {
    repository.manifest(reference).await.map_err(|error| {
        // docker wording
        if matches!(&error, silo_registry::Error::Refused { status: 404, .. }) {
            return Failure::new(format!("no such manifest: {reference}"));
        }
        direct::failure(&error)
    })
}

/// The entry of an image's manifest. Its platform is in the configuration.
async fn entry(
    repository: &Repository,
    reference: &Reference,
    found: Resolved,
    manifest: &Manifest,
) -> Outcome<Entry> {
    let config = repository.blob_bytes(&manifest.config, MAX_DOCUMENT).await;
    let config = config.map_err(|error| direct::failure(&error))?;
    let platform: Platform = serde_json::from_slice(&config).map_err(|error| {
        Failure::new(format!("configuration {} of {reference}: {error}", manifest.config.digest))
    })?;
    let descriptor = Descriptor { platform: Some(platform), ..found.descriptor };
    Entry::new(reference.to_string(), descriptor, &found.bytes)
}

/// `manifest create`
pub(crate) async fn create(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<CreateFlags>()?;
    let cli = &invocation.cli;
    let target = name(&words[0]).map_err(|failure| {
        let (list, reason) = (&words[0], failure.message);
        Failure::new(format!("error parsing name for manifest list {list}: {reason}"))
    })?;
    let lists = lists(cli);
    if lists.all(&target)?.is_some() && !flags.amend {
        return Err(Failure::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    // All are looked up before one is kept.
    let mut found = Vec::new();
    for word in &words[1..] {
        let image = name(word)?;
        let entry = match lists.get(&target, &image)?.filter(|entry| entry.bytes().is_some()) {
            Some(entry) => entry,
            None => {
                let repository = repository(cli, &image, Action::Pull, flags.insecure)?;
                let resolved = fetch(&repository, &image).await?;
                match resolved.document.clone() {
                    Document::Manifest(manifest) => {
                        entry(&repository, &image, resolved, &manifest).await?
                    }
                    Document::Index(_) => {
                        return Err(Failure::new(format!("{image} is a manifest list")));
                    }
                }
            }
        };
        found.push((image, entry));
    }
    for (image, entry) in &found {
        lists.put(&target, image, entry)?;
    }
    cli.line(&format!("Created manifest list {target}"))
}

/// `manifest annotate`
pub(crate) fn annotate(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<AnnotateFlags>()?;
    let parse = |word: &str, what: &str| {
        name(word).map_err(|failure| {
            let reason = failure.message;
            Failure::new(format!("annotate: error parsing name for {what} {word}: {reason}"))
        })
    };
    let target = parse(&words[0], "manifest list")?;
    let image = parse(&words[1], "manifest")?;
    let lists = lists(&invocation.cli);
    let mut entry = lists.get(&target, &image)?.ok_or_else(|| {
        let (image, list) = (&words[1], &words[0]);
        Failure::new(format!("manifest for image {image} does not exist in {list}"))
    })?;
    let platform = entry.descriptor.platform.get_or_insert_default();
    let set = |field: &mut String, value: &String| {
        if !value.is_empty() {
            value.clone_into(field);
        }
    };
    set(&mut platform.os, &flags.os);
    set(&mut platform.architecture, &flags.arch);
    set(&mut platform.variant, &flags.variant);
    set(&mut platform.os_version, &flags.os_version);
    for feature in flags.os_features.iter().flat_map(|list| list.split(',')) {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    let (os, architecture) = (&platform.os, &platform.architecture);
    let is_known =
        PLATFORMS.iter().any(|(name, all)| name == os && all.contains(&architecture.as_str()));
    if !is_known {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {os}/{architecture}"
        )));
    }
    lists.put(&target, &image, &entry)
}

/// `manifest inspect`
pub(crate) async fn inspect(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<InspectFlags>()?;
    let cli = &invocation.cli;
    let lists = lists(cli);
    if let [target, image] = words.as_slice() {
        let (target, image) = (name(target)?, name(image)?);
        return show_entry(cli, &lists.find(&target, &image)?, flags.verbose);
    }
    let image = name(&words[0])?;
    if let Some(entries) = lists.all(&image)? {
        return show_entries(cli, &image, &entries, flags.verbose);
    }
    let repository = repository(cli, &image, Action::Pull, flags.insecure)?;
    let found = fetch(&repository, &image).await?;
    match found.document.clone() {
        Document::Manifest(manifest) if flags.verbose => {
            show_entry(cli, &entry(&repository, &image, found, &manifest).await?, true)
        }
        Document::Manifest(_) => {
            cli.line(&indent_json(&String::from_utf8_lossy(&found.bytes), "", "\t"))
        }
        Document::Index(index) => {
            let entries = entries(&repository, &image, &index).await?;
            show_entries(cli, &image, &entries, flags.verbose)
        }
    }
}

/// Everything that an index names.
async fn entries(repository: &Repository, image: &Reference, index: &Index) -> Outcome<Vec<Entry>> {
    let mut entries = Vec::new();
    for descriptor in &index.manifests {
        let by_digest = image.with_digest(descriptor.digest);
        let found = fetch(repository, &by_digest).await?;
        let Document::Manifest(manifest) = found.document.clone() else {
            return Err(Failure::new(format!("{by_digest} is a manifest list")));
        };
        let mut entry = entry(repository, &by_digest, found, &manifest).await?;
        // What the index says comes before what the configuration says.
        entry.descriptor.platform = Some(descriptor.platform.clone().unwrap_or_default());
        if let (Some(tag), None) = (image.tag(), image.digest()) {
            // Docker shows the name that it came by as well.
            entry.reference = format!("{}:{tag}@{}", image.name(), descriptor.digest);
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn show_entry(cli: &Cli, entry: &Entry, verbose: bool) -> Outcome {
    if verbose { cli.line(&pretty(entry)?) } else { cli.line(&indent_json(entry.json(), "", "\t")) }
}

fn show_entries(cli: &Cli, target: &Reference, entries: &[Entry], verbose: bool) -> Outcome {
    if verbose { cli.line(&pretty(&entries)?) } else { cli.line(&build(target, entries)?.1) }
}

fn pretty<T: Serialize>(value: &T) -> Outcome<String> {
    let json = serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
    Ok(indent_json(&compact(&json), "", "\t"))
}

/// A list's media type and text. Every entry is on the target's registry.
fn build(target: &Reference, entries: &[Entry]) -> Outcome<(&'static str, String)> {
    let mut manifests = Vec::new();
    for entry in entries {
        let from = name(&entry.reference)?;
        if from.domain() != target.domain() {
            return Err(Failure::new(format!(
                "cannot use source images from a different registry than the target image: {} != \
                 {}",
                from.domain(),
                target.domain()
            )));
        }
        manifests.push(ListEntry {
            media_type: &entry.descriptor.media_type,
            size: entry.descriptor.size,
            digest: entry.descriptor.digest,
            platform: entry.descriptor.platform.clone().unwrap_or_default(),
        });
    }
    let is_oci = manifests.first().is_some_and(|first| first.media_type == media::OCI_MANIFEST);
    let media_type = if is_oci { media::OCI_INDEX } else { media::DOCKER_LIST };
    let list = List { schema_version: 2, media_type, manifests };
    let json = serde_json::to_string(&list).map_err(|error| Failure::new(error.to_string()))?;
    Ok((media_type, indent_json(&compact(&json), "", "   ")))
}

/// `manifest push`
pub(crate) async fn push(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<PushFlags>()?;
    let cli = &invocation.cli;
    let target = name(&words[0])?;
    let lists = lists(cli);
    let entries = lists.find_all(&target)?;
    if entries.is_empty() {
        return Err(Failure::new(format!("{target} not found")));
    }
    for entry in &entries {
        let platform = entry.descriptor.platform.clone().unwrap_or_default();
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(Failure::new(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.reference
            )));
        }
    }
    let (media_type, text) = build(&target, &entries)?;
    let repository = Arc::new(repository(cli, &target, Action::Push, flags.insecure)?);
    let others: Vec<(&Entry, Reference)> = entries
        .iter()
        .filter_map(|entry| Some((entry, name(&entry.reference).ok()?)))
        .filter(|(_, from)| from.path() != target.path())
        .collect();
    for (entry, from) in &others {
        mount(&repository, entry, from, &target).await?;
    }
    for (entry, _) in &others {
        let bytes = entry.bytes().ok_or_else(|| {
            let reference = &entry.reference;
            Failure::new(format!("the manifest {reference} is not here: create the list again"))
        })?;
        let put = repository.put_manifest(None, &entry.descriptor.media_type, &bytes).await;
        let digest = put.map_err(|error| failed_put(&entry.reference, &error))?;
        if digest != entry.descriptor.digest {
            let (reference, expected) = (&entry.reference, entry.descriptor.digest);
            return Err(Failure::new(format!(
                "internal digest mismatch for {reference}: expected {expected}, got {digest}"
            )));
        }
        let put_as = target.without_suffix().with_digest(digest);
        cli.line(&format!("Pushed ref {put_as} with digest: {digest}"))?;
    }
    let tag = if target.digest().is_some() { None } else { target.tag() };
    let put = repository.put_manifest(tag, media_type, text.as_bytes()).await;
    let digest = put.map_err(|error| failed_put(&target.to_string(), &error))?;
    cli.line(&digest.to_string())?;
    if flags.purge { lists.remove(&target) } else { Ok(()) }
}

fn failed_put(reference: &str, error: &silo_registry::Error) -> Failure {
    let reason = direct::failure(error).message;
    Failure::new(format!("failed to put manifest {reference}: {reason}"))
}

/// Gets what an image of another repository has into the target's.
async fn mount(
    repository: &Repository,
    entry: &Entry,
    from: &Reference,
    target: &Reference,
) -> Outcome {
    let manifest = entry.manifest()?;
    let is_windows =
        entry.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "windows");
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let mounted = repository.mount(&blob.digest, from.path()).await;
        let source = from.without_suffix().with_digest(blob.digest);
        match mounted {
            Ok(true) => {}
            // Base layers of Windows may be elsewhere.
            Ok(false) if is_windows => {}
            Ok(false) => {
                return Err(Failure::new(format!("error mounting {source} to {target}")));
            }
            Err(error) => {
                let reason = direct::failure(&error).message;
                return Err(Failure::new(format!(
                    "failed to mount blob {source} to {target}: {reason}"
                )));
            }
        }
    }
    Ok(())
}

/// `manifest rm`
pub(crate) fn rm(invocation: Invocation) -> Outcome {
    let (_, words) = invocation.parse::<RmFlags>()?;
    let lists = lists(&invocation.cli);
    let mut failures = Vec::new();
    for word in &words {
        let removed =
            name(word).and_then(|list| lists.find_all(&list).and_then(|_| lists.remove(&list)));
        failures.extend(removed.err().map(|failure| failure.message));
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
}
