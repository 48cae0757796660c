//! Finding what is about a manifest.

use silo_oci::image::{Descriptor, Index, MAX_MANIFESTS};
use silo_types::Digest;

use crate::repository::Inquiry;
use crate::{Error, MAX_LIST, Repository, link};

/// The most pages of a list.
const MAX_PAGES: usize = 100;

/// The tag under which registries that know of no referrers have an index of them.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replace(':', "-")
}

/// The tags under which cosign has signatures, attestations, and lists of parts.
pub(super) fn cosign_tags(subject: &Digest) -> [String; 3] {
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
