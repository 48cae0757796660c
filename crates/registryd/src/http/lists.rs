//! Lists: tags, repositories, referrers.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::Response;
use hyper::header::{HeaderName, LINK};
use serde_json::{Map, Value, json};
use silo_oci::image::media;
use silo_types::query::escape;

use crate::access::{Caller, Right};
use crate::http::answer::{self, Answer, Body, set};
use crate::http::proxy;
use crate::http::query::Query;
use crate::http::server::{Server, blocking};
use crate::name::{Digest, Name};

/// Entries of a list that is asked for without a number, and at most.
const PAGE: u32 = 1000;
/// Tags are short, and there are clients that know no pages.
const TAGS: u32 = 10_000;
/// Bytes of annotations after which a list of referrers goes on elsewhere.
const REFERRERS: usize = 2 << 20;
/// Says that only referrers of one type are listed.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Where a list goes on.
fn link(response: &mut Response<Body>, path: &str, count: u32, last: &str, more: &str) {
    let target = format!("<{path}?n={count}&last={}{more}>; rel=\"next\"", escape(last));
    set(response, LINK, &target);
}

/// One page of what `list` gives after a name, and whether there is more.
async fn page(
    server: &Arc<Server>,
    query: &Query,
    most: u32,
    list: impl FnOnce(&crate::Registry, &str, u32) -> Result<Vec<String>, crate::Error> + Send + 'static,
) -> Result<(Vec<String>, Option<u32>), crate::Error> {
    let count = query.count()?.unwrap_or(most).min(most);
    let last = query.get("last").unwrap_or_default().to_owned();
    let mut found = blocking(server, move |registry| list(registry, &last, count + 1)).await?;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let more = found.len() > wanted && count > 0;
    found.truncate(wanted);
    Ok((found, more.then_some(count)))
}

/// GET of tags.
pub(crate) async fn tags(server: &Arc<Server>, name: Name, query: &Query) -> Answer {
    let of = name.clone();
    let there = match &server.upstream {
        _ if server.engine(&name).is_some() => {
            let (at, of) = (Arc::clone(server), name.clone());
            let tags = move |_: &crate::Registry| {
                at.engine(&of).map(|engine| engine.tags(&of)).transpose()
            };
            blocking(server, tags).await?
        }
        Some(upstream) => proxy::tags(upstream, &name).await?,
        None => None,
    };
    let list = move |registry: &crate::Registry, last: &str, count| match there {
        Some(tags) => {
            let after = tags.into_iter().filter(|tag| last.is_empty() || tag.as_str() > last);
            Ok(after.take(usize::try_from(count).unwrap_or(usize::MAX)).collect())
        }
        None => registry.tags(&of, last, count),
    };
    let (tags, more) = page(server, query, TAGS, list).await?;
    let body = json!({ "name": name.as_str(), "tags": tags }).to_string();
    let mut response = answer::json("application/json", body.into_bytes());
    if let (Some(count), Some(last)) = (more, tags.last()) {
        link(&mut response, &format!("/v2/{name}/tags/list"), count, last, "");
    }
    Ok(response)
}

/// GET of repositories: those that the client may pull from.
pub(crate) async fn catalog(server: &Arc<Server>, query: &Query, caller: Caller) -> Answer {
    let at = Arc::clone(server);
    let list = move |registry: &crate::Registry, last: &str, count: u32| {
        let engines = match at.engine_images() {
            Some(engine) => engine.repositories()?,
            None => BTreeSet::default(),
        };
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let (mut found, mut last) = (Vec::new(), last.to_owned());
        loop {
            let mut names = registry.repositories(&last, count)?;
            names.retain(|name| name.parse().is_ok_and(|name: Name| at.engine(&name).is_none()));
            names.extend(engines.iter().filter(|name| **name > last).cloned());
            names.sort_unstable();
            names.truncate(wanted);
            let Some(end) = names.last().cloned() else { return Ok(found) };
            let may =
                |name: &String| name.parse().is_ok_and(|name: Name| caller.may(Right::Pull, &name));
            found.extend(names.into_iter().filter(may));
            if caller.is_free() || found.len() >= wanted {
                found.truncate(wanted);
                return Ok(found);
            }
            last = end;
        }
    };
    let (repositories, more) = page(server, query, PAGE, list).await?;
    let body = json!({ "repositories": repositories }).to_string();
    let mut response = answer::json("application/json", body.into_bytes());
    if let (Some(count), Some(last)) = (more, repositories.last()) {
        link(&mut response, "/v2/_catalog", count, last, "");
    }
    Ok(response)
}

/// GET of referrers. A repository or subject that is not there has none.
pub(crate) async fn referrers(
    server: &Arc<Server>,
    name: Name,
    subject: Digest,
    query: &Query,
) -> Answer {
    if let Some(upstream) = &server.upstream
        && server.engine(&name).is_none()
        && let Some(index) = proxy::referrers(upstream, &name, &subject, query).await?
    {
        return Ok(answer::json(media::OCI_INDEX, index));
    }
    let count = query.count()?.unwrap_or(PAGE).clamp(1, PAGE);
    let last = query.get("last").unwrap_or_default().to_owned();
    let filter = query.get("artifactType").filter(|filter| !filter.is_empty()).map(str::to_owned);
    let found = {
        let (name, subject, filter) = (name.clone(), subject.clone(), filter.clone());
        blocking(server, move |registry| {
            registry.referrers(&name, &subject, filter.as_deref(), &last, count + 1)
        })
        .await?
    };
    let mut manifests: Vec<Value> = Vec::new();
    let mut bytes = 0;
    let mut next = None;
    for referrer in &found {
        let full = manifests.len() >= usize::try_from(count).unwrap_or(usize::MAX);
        if full || bytes > REFERRERS {
            next = manifests.last().and_then(|entry| entry["digest"].as_str()).map(str::to_owned);
            break;
        }
        let mut entry = Map::new();
        entry.insert("mediaType".into(), json!(referrer.stored.media_type));
        entry.insert("digest".into(), json!(referrer.stored.digest.to_string()));
        entry.insert("size".into(), json!(referrer.stored.size));
        if !referrer.artifact_type.is_empty() {
            entry.insert("artifactType".into(), json!(referrer.artifact_type));
        }
        if !referrer.annotations.is_empty() {
            let lengths = referrer.annotations.iter().map(|(key, value)| key.len() + value.len());
            bytes += lengths.sum::<usize>();
            entry.insert("annotations".into(), json!(referrer.annotations));
        }
        manifests.push(entry.into());
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": manifests,
    });
    let mut response = answer::json(media::OCI_INDEX, index.to_string().into_bytes());
    if filter.is_some() {
        set(&mut response, FILTERS, "artifactType");
    }
    if let Some(last) = next {
        let more = filter.map(|filter| format!("&artifactType={}", escape(&filter)));
        let path = format!("/v2/{name}/referrers/{subject}");
        link(&mut response, &path, count, &last, &more.unwrap_or_default());
    }
    Ok(response)
}
