//! Copying of images between registries, OCI layouts, and archives of such and of Docker's, bit for
//! bit.
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
mod check;
mod docker;
mod error;
mod layout;
mod location;
mod naming;
mod partial;
mod referrers;
mod remote;
mod select;
mod source;
mod tar;
mod target;
mod upload;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use silo_oci::image::{Descriptor, Document, MAX_MANIFESTS, media};
use silo_oci::platform::Platform;
use silo_types::Digest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::progress::{Progress, short};

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
    /// The images for these platforms alone, in place of all. One of them is copied as it is; for
    /// several an index is made that has no others.
    pub platforms: Vec<Platform>,
    /// All that has a tag at the source, in place of what its name leads to.
    pub all_tags: bool,
    /// More tags for the image at the target.
    pub tags: Vec<String>,
    /// What is about the image, too.
    pub referrers: bool,
    /// How many blobs move at once.
    pub at_once: usize,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// What the names at the target lead to. Tags are told only of those that have one each.
    pub roots: Vec<(Option<String>, Digest)>,
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
    /// The tag of something that is about an image.
    Beside(&'a str),
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
    let copied = Copied { roots: Vec::new(), sent: 0, present: 0, referrers: 0 };
    let mut job = Job {
        source,
        target,
        options,
        progress,
        done: HashSet::new(),
        documents: Vec::new(),
        copied,
    };
    match job.all().await {
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

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an entry of an index is a document.
fn is_document(entry: &Descriptor) -> bool {
    let kind = entry.media_type.as_str();
    kind.is_empty() || media::is_index(kind) || media::is_manifest(kind)
}

/// Whether a blob is elsewhere, and stays there.
fn stays_away(blob: &Descriptor) -> bool {
    crate::blob::is_foreign(blob) && !blob.urls.is_empty()
}

impl Job<'_> {
    async fn all(&mut self) -> Result<(), CopyError> {
        if self.options.all_tags {
            let tags = self.source.tags().await?;
            if tags.is_empty() {
                return Err(CopyError::NoTags { source_name: self.source.to_string() });
            }
            for tag in tags {
                self.progress.note(format!("Copying {tag}"));
                let root = self.source.named(&tag).await?;
                self.root(root, Name::Tag(&tag)).await?;
            }
        } else {
            let root = self.source.root().await?;
            let root = self.root(root, Name::Given).await?;
            for tag in &self.options.tags {
                self.target.put_document(&root, Name::Tag(tag)).await?;
            }
        }
        if self.options.referrers {
            self.referrers().await?;
        }
        self.target.finish().await
    }

    /// Copies an image.
    async fn root(&mut self, root: Content, name: Name<'_>) -> Result<Content, CopyError> {
        let root = select::platforms(self.source, root, &self.options.platforms).await?;
        self.target.check_name(&root.descriptor.digest)?;
        let tag = match name {
            Name::Tag(tag) => Some(tag.to_owned()),
            _ => None,
        };
        self.copied.roots.push((tag, root.descriptor.digest));
        self.tree(root.clone(), name).await?;
        Ok(root)
    }

    /// Copies a document with all that it names.
    async fn tree(&mut self, root: Content, name: Name<'_>) -> Result<(), CopyError> {
        let mut documents: Vec<(Content, Vec<Digest>)> = Vec::new();
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut seen: HashSet<Digest> = HashSet::from([root.descriptor.digest]);
        let mut size = root.bytes.len();
        let mut level = vec![root];
        for _ in 0..=MAX_DEPTH {
            let mut entries = Vec::new();
            for content in level {
                let mut names = Vec::new();
                match read(&content)? {
                    Document::Manifest(manifest) => {
                        for blob in std::iter::once(manifest.config).chain(manifest.layers) {
                            blobs.entry(blob.digest).or_insert(blob);
                        }
                    }
                    Document::Index(index) => {
                        for entry in index.manifests {
                            names.push(entry.digest);
                            if !is_document(&entry) {
                                // Caches of builds have layers here.
                                blobs.entry(entry.digest).or_insert(entry);
                            } else if seen.insert(entry.digest) {
                                entries.push(entry);
                            }
                        }
                    }
                }
                documents.push((content, names));
            }
            if seen.len() > MAX_MANIFESTS {
                return Err(CopyError::TooMany);
            }
            level = self.entries(entries, &mut size).await?;
            if level.is_empty() {
                self.blobs(blobs.into_values()).await?;
                return self.documents(&documents, name).await;
            }
        }
        Err(CopyError::TooMany)
    }

    /// Takes documents to the target, the first of which leads to all others.
    async fn documents(
        &mut self,
        documents: &[(Content, Vec<Digest>)],
        name: Name<'_>,
    ) -> Result<(), CopyError> {
        let last = documents.len();
        for (number, content) in named_first(documents).into_iter().enumerate() {
            let name = if number + 1 == last { name } else { Name::Digest };
            self.target.put_document(content, name).await?;
            self.documents.push(content.descriptor.digest);
        }
        Ok(())
    }

    /// Fetches the documents that an index names, but for those that the target has.
    async fn entries(
        &mut self,
        entries: Vec<Descriptor>,
        size: &mut usize,
    ) -> Result<Vec<Content>, CopyError> {
        let permits = Arc::new(Semaphore::new(self.options.at_once.max(1)));
        let mut tasks: JoinSet<Result<Result<Content, Digest>, CopyError>> = JoinSet::new();
        for entry in entries {
            let (source, target) = (Arc::clone(self.source), Arc::clone(self.target));
            let permits = Arc::clone(&permits);
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                if media::is_manifest(&entry.media_type) && target.has(&entry).await? {
                    return Ok(Err(entry.digest));
                }
                source.document(&entry).await.map(Ok)
            });
        }
        let mut found = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(|_| Error::Broken("a panic while fetching a manifest"))?? {
                Ok(content) => {
                    *size += content.bytes.len();
                    if *size > MAX_DOCUMENTS {
                        return Err(CopyError::TooMany);
                    }
                    found.push(content);
                }
                Err(there) => self.documents.push(there),
            }
        }
        Ok(found)
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
            if ended.map_err(|_| Error::Broken("a panic while copying a blob"))?? {
                self.copied.sent += 1;
            } else {
                self.copied.present += 1;
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
