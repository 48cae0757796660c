//! Finding and copying what is about a manifest.

use std::collections::HashSet;
use std::sync::Arc;

use silo_oci::image::{Descriptor, Index, MAX_MANIFESTS};
use silo_types::Digest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Content, CopyError, Job, MAX_DOCUMENTS, Name};
use crate::repository::Inquiry;
use crate::{Error, MAX_LIST, Repository, link};

/// The most pages of a list.
const MAX_PAGES: usize = 100;

/// The tag under which registries that know of no referrers have an index of them.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replace(':', "-")
}

/// The tags under which cosign has signatures, attestations, and lists of parts.
fn cosign_tags(subject: &Digest) -> [String; 3] {
    [".sig", ".att", ".sbom"].map(|end| format!("{}{end}", fallback_tag(subject)))
}

/// The manifests that are about another; `None` where the registry does not know of such.
pub(super) async fn of(
    repository: &Repository,
    subject: &Digest,
) -> Result<Option<Vec<Descriptor>>, Error> {
    let mut path = format!("referrers/{subject}");
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = match repository.ask(&Inquiry::get(&path)).await {
            Err(error) if error.is_absent() && found.is_empty() => return Ok(None),
            answer => answer?,
        };
        let next = link::next(answer.header("link"));
        let next = next.and_then(|next| next.split_once('?')).map(|(_, query)| query.to_owned());
        let bytes = answer.bytes("the list of referrers", MAX_LIST).await?;
        let index = Index::parse(&bytes).map_err(|source| Error::Document {
            what: format!("referrers of {subject}"),
            source,
        })?;
        found.extend(index.manifests);
        match next {
            Some(query) if found.len() < MAX_MANIFESTS => {
                path = format!("referrers/{subject}?{query}");
            }
            _ => break,
        }
    }
    Ok(Some(found))
}

/// What is about a document.
struct About {
    /// By what it says itself.
    listed: Vec<Descriptor>,
    /// By its tag.
    tagged: Vec<(String, Content)>,
}

impl Job<'_> {
    /// Copies what is about the documents, and about that.
    pub(super) async fn referrers(&mut self) -> Result<(), CopyError> {
        let mut next = 0;
        let mut known: HashSet<Digest> = self.documents.iter().copied().collect();
        while next < self.documents.len() {
            let subjects = self.documents[next..].to_vec();
            next = self.documents.len();
            for (subject, about) in self.about(subjects).await? {
                for entry in about.listed {
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
                for (tag, content) in about.tagged {
                    self.tree(content, Name::Beside(&tag)).await?;
                    self.copied.referrers += 1;
                }
            }
        }
        Ok(())
    }

    /// Asks what is about documents, of several at once; in their order.
    async fn about(&self, subjects: Vec<Digest>) -> Result<Vec<(Digest, About)>, CopyError> {
        let permits = Arc::new(Semaphore::new(self.options.at_once.max(1)));
        let mut tasks: JoinSet<Result<(usize, Digest, About), CopyError>> = JoinSet::new();
        let mut seen = HashSet::new();
        for (place, subject) in subjects.into_iter().enumerate() {
            if !seen.insert(subject) {
                continue;
            }
            let (source, permits) = (Arc::clone(self.source), Arc::clone(&permits));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let listed = source.referrers(&subject).await?;
                let mut tagged = Vec::new();
                for tag in cosign_tags(&subject) {
                    if let Some(content) = source.tagged(&tag).await? {
                        tagged.push((tag, content));
                    }
                }
                Ok((place, subject, About { listed, tagged }))
            });
        }
        let (mut found, mut size) = (Vec::new(), 0);
        while let Some(ended) = tasks.join_next().await {
            let about =
                ended.map_err(|_| Error::Broken("a panic while asking for referrers"))??;
            size += about.2.tagged.iter().map(|(_, content)| content.bytes.len()).sum::<usize>();
            if size > MAX_DOCUMENTS {
                return Err(CopyError::TooMany);
            }
            found.push(about);
        }
        found.sort_unstable_by_key(|(place, ..)| *place);
        Ok(found.into_iter().map(|(_, subject, about)| (subject, about)).collect())
    }
}
