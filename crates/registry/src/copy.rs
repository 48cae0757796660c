//! Copying of images between registries, OCI layouts and archives of such, bit for bit.
//!
//! Nothing is unpacked. What is at the target is not sent again: blobs are asked for, mounted from
//! another repository of the same registry, or streamed from the source; at no time is more of a
//! blob in memory than a few pieces. Documents go last, those that are named before those that
//! name them, so that a copy that broke off leaves nothing that names what is not there.
//!
//! What is about an image (signatures, attestations, lists of parts) is found by the referrers of
//! its digest, by the tag `sha256-<hex>` where a registry does not know such, and by the tags
//! `sha256-<hex>.sig`, `.att` and `.sbom` that cosign makes.

mod archive;
mod error;
mod layout;
mod location;
mod referrers;
mod source;
mod target;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use silo_oci::image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, MAX_MANIFESTS, media};
use silo_oci::platform::Platform;
use silo_types::Digest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::progress::{Progress, short};
use crate::{Error, platform};

pub use error::CopyError;
pub use location::Location;
pub use source::Source;
pub use target::Target;

/// Bytes of documents that one tree may have.
const MAX_DOCUMENTS: usize = 64 << 20;
/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 8;

/// A manifest or an index, as it is at the source.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

/// What is to be copied.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// The image for this platform alone, in place of all.
    pub platform: Option<Platform>,
    /// What is about the image, too.
    pub referrers: bool,
    /// How many blobs move at once.
    pub at_once: usize,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// What the name at the target leads to.
    pub root: Descriptor,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were there, or came from another repository of the target's.
    pub present: usize,
    /// Manifests about the image.
    pub referrers: usize,
}

/// Under what a document is put at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// Its digest.
    Digest,
    /// The name that the user gave.
    Given,
    /// A tag.
    Tag(&'a str),
    /// It is about the document with this digest.
    About(Digest),
}

struct Job<'a> {
    source: &'a Arc<Source>,
    target: &'a Arc<Target>,
    options: &'a CopyOptions,
    progress: &'a Progress,
    /// Blobs that are at the target.
    done: HashSet<Digest>,
    /// Documents that are at the target, in the order in which they came there.
    documents: Vec<Digest>,
    copied: Copied,
}

/// Copies an image.
pub async fn copy(
    source: &Arc<Source>,
    target: &Arc<Target>,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let mut root = source.root().await?;
    if let Some(wanted) = &options.platform {
        root = choose(source, root, wanted).await?;
    }
    target.check_name(&root.descriptor.digest)?;
    let copied = Copied { root: root.descriptor.clone(), sent: 0, present: 0, referrers: 0 };
    let mut job = Job {
        source,
        target,
        options,
        progress,
        done: HashSet::new(),
        documents: Vec::new(),
        copied,
    };
    match job.all(root).await {
        Ok(()) => Ok(job.copied),
        Err(error) => {
            target.abandon();
            Err(error)
        }
    }
}

fn read(content: &Content) -> Result<Document, CopyError> {
    Document::parse(&content.bytes, &content.descriptor.media_type).map_err(|source| {
        let what = format!("manifest {}", content.descriptor.digest);
        Error::Document { what, source }.into()
    })
}

/// The image for one platform.
async fn choose(
    source: &Arc<Source>,
    root: Content,
    wanted: &Platform,
) -> Result<Content, CopyError> {
    match read(&root)? {
        Document::Index(index) => {
            let entry = platform::choose(&index, Some(wanted), u32::MAX)?;
            source.document(entry).await
        }
        Document::Manifest(manifest) => {
            let config = source.small(&manifest.config, MAX_DOCUMENT).await?;
            let found = ImageConfig::parse(&config).map(|config| config.platform());
            match found {
                Ok(found) if !wanted.matches(&found) => Err(Error::OtherPlatform {
                    reference: source.to_string(),
                    wanted: wanted.to_string(),
                    found: found.to_string(),
                }
                .into()),
                _ => Ok(root),
            }
        }
    }
}

/// Whether a blob is elsewhere, and stays there.
fn stays_away(blob: &Descriptor) -> bool {
    crate::blob::is_foreign(blob) && !blob.urls.is_empty()
}

impl Job<'_> {
    async fn all(&mut self, root: Content) -> Result<(), CopyError> {
        self.tree(root, Name::Given).await?;
        if self.options.referrers {
            self.referrers().await?;
        }
        self.target.finish().await
    }

    /// Copies a document with all that it names.
    async fn tree(&mut self, root: Content, name: Name<'_>) -> Result<(), CopyError> {
        let mut documents: Vec<(Content, Vec<Digest>)> = Vec::new();
        let mut waiting: Vec<(Content, usize)> = vec![(root, 0)];
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut size = 0;
        while let Some((content, depth)) = waiting.pop() {
            let digest = content.descriptor.digest;
            size += content.bytes.len();
            seen.insert(digest);
            if size > MAX_DOCUMENTS || seen.len() > MAX_MANIFESTS || depth > MAX_DEPTH {
                return Err(CopyError::TooMany);
            }
            let mut names = Vec::new();
            match read(&content)? {
                Document::Manifest(manifest) => {
                    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                        blobs.entry(blob.digest).or_insert_with(|| blob.clone());
                    }
                }
                Document::Index(index) => {
                    for entry in &index.manifests {
                        let kind = entry.media_type.as_str();
                        let is_document =
                            kind.is_empty() || media::is_index(kind) || media::is_manifest(kind);
                        names.push(entry.digest);
                        if !is_document {
                            // Caches of builds have layers here.
                            blobs.entry(entry.digest).or_insert_with(|| entry.clone());
                        } else if seen.insert(entry.digest) {
                            self.entry(entry, depth, &mut waiting).await?;
                        }
                    }
                }
            }
            documents.push((content, names));
        }
        self.blobs(blobs.into_values()).await?;
        let last = documents.len();
        for (number, content) in named_first(&documents).into_iter().enumerate() {
            let name = if number + 1 == last { name } else { Name::Digest };
            self.target.put_document(content, name).await?;
            self.documents.push(content.descriptor.digest);
        }
        Ok(())
    }

    /// Fetches a document that an index names, if the target does not have it.
    async fn entry(
        &mut self,
        entry: &Descriptor,
        depth: usize,
        waiting: &mut Vec<(Content, usize)>,
    ) -> Result<(), CopyError> {
        if media::is_manifest(&entry.media_type) && self.target.has(entry).await? {
            self.documents.push(entry.digest);
        } else {
            waiting.push((self.source.document(entry).await?, depth + 1));
        }
        Ok(())
    }

    async fn blobs(&mut self, blobs: impl Iterator<Item = Descriptor>) -> Result<(), CopyError> {
        let at_once = if self.target.is_sequence() { 1 } else { self.options.at_once.max(1) };
        let permits = Arc::new(Semaphore::new(at_once));
        let mut tasks: JoinSet<Result<bool, CopyError>> = JoinSet::new();
        for blob in blobs {
            if !self.done.insert(blob.digest) {
                continue;
            }
            let id = short(&blob.digest);
            if stays_away(&blob) {
                self.progress.state(&id, "Skipped foreign layer");
                continue;
            }
            let (source, target) = (Arc::clone(self.source), Arc::clone(self.target));
            let (progress, permits) = (self.progress.clone(), Arc::clone(&permits));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                one(&source, &target, &blob, &id, &progress).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Ok(true)) => self.copied.sent += 1,
                Ok(Ok(false)) => self.copied.present += 1,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::Broken("a panic while copying a blob").into()),
            }
        }
        Ok(())
    }

    /// Copies what is about the documents, and about that.
    async fn referrers(&mut self) -> Result<(), CopyError> {
        let mut next = 0;
        let mut known: HashSet<Digest> = self.documents.iter().copied().collect();
        while let Some(subject) = self.documents.get(next).copied() {
            next += 1;
            for entry in self.source.referrers(&subject).await? {
                if !known.insert(entry.digest) {
                    continue;
                }
                if known.len() > MAX_MANIFESTS {
                    return Err(CopyError::TooMany);
                }
                let mut content = self.source.document(&entry).await?;
                content.descriptor.artifact_type.clone_from(&entry.artifact_type);
                content.descriptor.annotations.clone_from(&entry.annotations);
                self.tree(content, Name::About(subject)).await?;
                self.copied.referrers += 1;
            }
            for tag in referrers::cosign_tags(&subject) {
                if let Some(content) = self.source.tagged(&tag).await? {
                    self.tree(content, Name::Tag(&tag)).await?;
                    self.copied.referrers += 1;
                }
            }
        }
        Ok(())
    }
}

/// Documents, of which the first leads to all, with what each names: in an order in which those
/// that are named come before those that name them.
fn named_first(documents: &[(Content, Vec<Digest>)]) -> Vec<&Content> {
    let place = |(at, (content, _)): (usize, &(Content, _))| (content.descriptor.digest, at);
    let places: HashMap<Digest, usize> = documents.iter().enumerate().map(place).collect();
    let mut ordered = Vec::new();
    let mut begun = HashSet::from([0]);
    let mut open = vec![(0, 0)];
    while let Some((at, next)) = open.last_mut() {
        let Some((content, names)) = documents.get(*at) else { break };
        if let Some(named) = names.get(*next) {
            *next += 1;
            if let Some(place) = places.get(named).filter(|place| begun.insert(**place)) {
                open.push((*place, 0));
            }
        } else {
            ordered.push(content);
            open.pop();
        }
    }
    ordered
}

/// Gets one blob to the target; `false` if it need not be sent.
async fn one(
    source: &Arc<Source>,
    target: &Target,
    blob: &Descriptor,
    id: &str,
    progress: &Progress,
) -> Result<bool, CopyError> {
    if target.has_blob(blob).await? {
        progress.state(id, "Already exists");
        return Ok(false);
    }
    if let Some(from) = target.mount(blob, source).await? {
        progress.state(id, &format!("Mounted from {from}"));
        return Ok(false);
    }
    target.put_blob(source, blob, progress.meter(id, "Copying", blob.size)).await?;
    progress.state(id, "Copied");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_comes_before_both() {
        let digest = |name: &str| silo_oci::image::digest(name.as_bytes());
        let document = |name: &str, names: &[&str]| {
            let descriptor = Descriptor::new(media::OCI_INDEX, digest(name), 1);
            let names: Vec<Digest> = names.iter().map(|name| digest(name)).collect();
            (Content { descriptor, bytes: Bytes::from(name.to_owned()) }, names)
        };
        for found in [
            vec![document("root", &[])],
            vec![
                document("root", &["y", "x", "not here"]),
                document("x", &[]),
                document("y", &["x", "layer"]),
            ],
            vec![document("root", &["x", "y"]), document("y", &["x"]), document("x", &[])],
            vec![
                document("root", &["a", "c"]),
                document("a", &["b"]),
                document("c", &[]),
                document("b", &["c"]),
            ],
        ] {
            let ordered = named_first(&found);
            assert_eq!(ordered.len(), found.len());
            assert_eq!(ordered.last().unwrap().bytes, "root");
            let place = |wanted: &Digest| {
                ordered.iter().position(|content| content.descriptor.digest == *wanted)
            };
            for (content, names) in &found {
                for named in names.iter().filter_map(place) {
                    assert!(Some(named) < place(&content.descriptor.digest), "{ordered:?}");
                }
            }
        }
    }
}
