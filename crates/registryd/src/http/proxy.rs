//! What is not here is fetched from the registry behind this one.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use silo_oci::image::{Descriptor, Index, media};

use crate::error::{Error, Refusal, is_final};
use crate::http::answer::Body;
use crate::http::query::Query;
use crate::http::server::{Server, blocking};
use crate::name::{Algorithm, Digest, Name, Reference};
use crate::proxy::{Fetch, Upstream, download};
use crate::store::{Push, db::seconds};

/// Bytes that are read at once.
const CHUNK: u64 = 256 << 10;

/// Sees to it that a manifest is here, and is the one that its tag means now.
pub(crate) async fn refresh(
    server: &Arc<Server>,
    upstream: &Arc<Upstream>,
    name: &Name,
    reference: &Reference,
) -> Result<(), Error> {
    let here = {
        let (name, reference) = (name.clone(), reference.clone());
        blocking(server, move |registry| match registry.manifest(&name, &reference) {
            Ok(stored) => Ok(Some(stored.digest)),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        })
        .await?
    };
    let used = |digest: Digest| {
        let name = name.clone();
        let unused = server.config.collect.unused.unwrap_or_default();
        blocking(server, move |registry| registry.touch(&name, &digest, seconds(unused) / 4))
    };
    if let (Some(digest), Reference::Digest(_)) = (&here, reference) {
        return used(digest.clone()).await;
    }
    let (repository, full) = upstream.repository(name)?;
    let wanted = Upstream::reference(&full, reference)?;
    if let Some(digest) = &here {
        let (hasty, _) = upstream.hasty(name)?;
        match hasty.manifest_head(&wanted).await {
            Ok(Some(found)) if found.digest.to_string() == digest.to_string() => {
                return used(digest.clone()).await;
            }
            Ok(_) => {}
            Err(error) if is_final(&error) => return Err(Refusal::upstream(&error).into()),
            Err(error) => {
                let error = silo_types::error::chain(&error);
                tracing::warn!(%name, %reference, error, "served as it was");
                return Ok(());
            }
        }
    }
    let resolved = repository.manifest(&wanted).await.map_err(|error| Refusal::upstream(&error))?;
    let (name, reference) = (name.clone(), reference.clone());
    blocking(server, move |registry| {
        registry.push(&Push {
            repository: &name,
            reference: &reference,
            tags: &[],
            content_type: Some(&resolved.descriptor.media_type),
            bytes: &resolved.bytes,
            sparse: true,
        })
    })
    .await?;
    Ok(())
}

/// The tags that the registry behind this one has, in the order of their bytes; `None` if it does
/// not answer.
pub(crate) async fn tags(
    upstream: &Arc<Upstream>,
    name: &Name,
) -> Result<Option<Vec<String>>, Error> {
    let (repository, _) = upstream.hasty(name)?;
    match repository.tags().await {
        Ok(mut tags) => {
            tags.sort_unstable();
            Ok(Some(tags))
        }
        Err(error) => unanswered(&error),
    }
}

/// The list of referrers that the registry behind this one has; `None` if it does not answer.
pub(crate) async fn referrers(
    upstream: &Arc<Upstream>,
    name: &Name,
    subject: &Digest,
    query: &Query,
) -> Result<Option<Vec<u8>>, Error> {
    let (repository, _) = upstream.hasty(name)?;
    let subject = subject.to_string().parse().map_err(|_| Refusal::no_manifest())?;
    let found = match repository.referrers(&subject).await {
        Ok(found) => found,
        Err(error) => return unanswered(&error),
    };
    // That a filter was applied is not said, so that clients look themselves.
    let wanted = query.get("artifactType").unwrap_or_default();
    let of_type = |entry: &Descriptor| wanted.is_empty() || entry.artifact_type == wanted;
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: found.into_iter().filter(of_type).collect(),
        annotations: BTreeMap::new(),
    };
    Ok(Some(silo_oci::image::to_bytes(&index)))
}

/// `None` unless the failure is the other registry's last word.
fn unanswered<T>(error: &silo_registry::Error) -> Result<Option<T>, Error> {
    if is_final(error) {
        return Err(Refusal::upstream(error).into());
    }
    let error = silo_types::error::chain(error);
    tracing::warn!(error, "listed as it was");
    Ok(None)
}

/// A blob that is not here, if a manifest of the repository names it: how large it is.
pub(crate) async fn size(server: &Arc<Server>, name: &Name, digest: &Digest) -> Result<u64, Error> {
    let (name, digest) = (name.clone(), digest.clone());
    let found = blocking(server, move |registry| registry.descriptor(&name, &digest)).await?;
    Ok(found.ok_or_else(Refusal::no_blob)?.size)
}

/// Begins to fetch a blob that is not here, or joins who has begun; `None` if the engine has it,
/// so that it is here now.
pub(crate) async fn fetch(
    server: &Arc<Server>,
    upstream: &Arc<Upstream>,
    name: &Name,
    digest: &Digest,
) -> Result<Option<Arc<Fetch>>, Error> {
    if digest.algorithm != Algorithm::Sha256 {
        return Err(Refusal::no_blob().into());
    }
    let (wanted, adopted) = {
        let (name, digest) = (name.clone(), digest.clone());
        blocking(server, move |registry| {
            let wanted = registry.descriptor(&name, &digest)?.ok_or_else(Refusal::no_blob)?;
            let there = registry.mount(&name, &digest, None)? || registry.adopt(&name, &digest)?;
            Ok((wanted, there))
        })
        .await?
    };
    if adopted {
        return Ok(None);
    }
    if wanted.size > server.config.limits.blob {
        let text = format!("a blob may have {} bytes here", server.config.limits.blob);
        return Err(Refusal::too_large(text).into());
    }
    let (repository, _) = upstream.repository(name)?;
    let (fetch, new) = {
        let (upstream, digest, size) = (Arc::clone(upstream), digest.clone(), wanted.size);
        blocking(server, move |registry| {
            upstream.fetch(&digest, || Fetch::new(size, registry.files.stage()?))
        })
        .await?
    };
    if new {
        let (server, upstream, fetch) =
            (Arc::clone(server), Arc::clone(upstream), Arc::clone(&fetch));
        let (name, digest) = (name.clone(), digest.clone());
        tokio::spawn(async move {
            let work = async {
                let _transfer = server.transfer().await?;
                download(&repository, &wanted, &digest, &fetch).await?;
                let (name, digest, of) = (name.clone(), digest.clone(), Arc::clone(&fetch));
                blocking(&server, move |registry| registry.commit_blob(&name, &digest, of.path()))
                    .await
            };
            let done = work.await;
            if let Err(error) = &done {
                tracing::error!(%name, %digest, error = error.chain(), "fetch a blob");
                fetch.discard();
            }
            // In this order: who comes now finds the blob, or tries again.
            upstream.forget(&digest);
            fetch.end(done.is_ok());
        });
    }
    Ok(Some(fetch))
}

/// Gives a part of a blob out while it arrives.
pub(crate) fn body(fetch: &Arc<Fetch>, first: u64, count: u64) -> Body {
    let (file, size) = (Arc::clone(&fetch.file), fetch.size);
    let start = (fetch.watch(), first, count);
    Body::stream(stream::unfold(start, move |(mut watch, offset, left)| {
        let file = Arc::clone(&file);
        async move {
            if left == 0 {
                return None;
            }
            let ready = loop {
                let state = *watch.borrow_and_update();
                match state.ready(size) {
                    Some(ready) if ready > offset => break ready,
                    Some(_) if watch.changed().await.is_ok() => {}
                    _ => {
                        let error = std::io::Error::other("the blob did not arrive");
                        return Some((Err(error), (watch, offset, 0)));
                    }
                }
            };
            let count = left.min(CHUNK).min(ready - offset);
            let work = move || {
                let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
                file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
            };
            let read = tokio::task::spawn_blocking(work).await;
            let bytes = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            Some((bytes, (watch, offset + count, left - count)))
        }
    }))
}
