//! Searching: the first version of the registry API, which Docker Hub's index still answers.
//!
//! ```text
//! GET /v1/search?q=<term>&n=<limit>    {"results": [{"name", "description", "star_count", ...}]}
//! ```

use std::sync::Arc;

use serde::Deserialize;
use silo_docker::images::SearchResult;
use silo_http::Method;
use silo_types::query::escape;

use crate::endpoint::{DOCKER_INDEX, Endpoint};
use crate::session::{Ask, Session};
use crate::{Credentials, Error, MAX_LIST, Registries};

/// What a token is asked for.
const SCOPE: &str = "registry:catalog:search";

/// An answer.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

/// Whose index a term is for, and what is looked for there.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | DOCKER_INDEX => (DOCKER_INDEX, rest),
            _ => (host, rest),
        },
        _ => (DOCKER_INDEX, term),
    }
}

impl Registries {
    /// Images whose names or descriptions have the term, which may begin with a registry.
    pub async fn search(
        self: &Arc<Self>,
        term: &str,
        limit: u32,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>, Error> {
        let (host, term) = split(term);
        let is_hub = host == DOCKER_INDEX;
        // Docker Hub has its own images without the name that they are kept under.
        let term = if is_hub { term.strip_prefix("library/").unwrap_or(term) } else { term };
        let path = format!("search?q={}&n={limit}", escape(term));
        let is_insecure = !is_hub && self.config().is_insecure(host);
        let mut tried: Vec<Error> = Vec::new();
        let schemes: &[&str] = if is_insecure { &["https", "http"] } else { &["https"] };
        for scheme in schemes {
            let base = format!("{scheme}://{host}");
            let endpoint = Endpoint { api: "v1/", ..Endpoint::plain(base, host, is_insecure) };
            let session = Session::new(self, endpoint, credentials)?;
            session.assume_basic().await;
            match search(&session, &path).await {
                Err(error) if error.is_unanswered() && !is_hub => tried.push(error),
                result => return result,
            }
        }
        let mut tried = tried.iter().map(|error| silo_types::error::chain(error));
        let (first, second) = (tried.next().unwrap_or_default(), tried.next());
        Err(Error::NoIndex {
            // docker wording
            text: match second {
                Some(second) => format!(
                    "invalid registry endpoint \"http://{host}/v1/\". HTTPS attempt: {first}. \
                     HTTP attempt: {second}"
                ),
                None => format!(
                    "invalid registry endpoint https://{host}/v1/: {first}. If this private \
                     registry supports only HTTP or HTTPS with an unknown CA certificate, add \
                     `--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, \
                     if you have access to the registry's CA certificate, no need for the flag; \
                     place the CA certificate at /etc/docker/certs.d/{host}/ca.crt"
                ),
            },
        })
    }
}

async fn search(session: &Session, path: &str) -> Result<Vec<SearchResult>, Error> {
    let scopes = [SCOPE.to_owned()];
    let ask = Ask {
        method: Method::GET,
        url: session.endpoint.url(path)?,
        headers: vec![("accept", "application/json".to_owned())],
        scopes: &scopes,
        is_checked: false,
    };
    let answer = session.ask(&ask).await?;
    let status = answer.status.as_u16();
    if status != 200 {
        // docker wording
        return Err(Error::Status { status });
    }
    let bytes = answer.bytes("the results of a search", MAX_LIST).await?;
    let body: Body = serde_json::from_slice(&bytes).map_err(Error::SearchResults)?;
    let mut results = body.results.unwrap_or_default();
    for result in &mut results {
        // Deprecated, and not to be believed.
        result.is_automated = false;
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_index() {
        for (term, expected) in [
            ("busybox", (DOCKER_INDEX, "busybox")),
            ("library/busybox", (DOCKER_INDEX, "library/busybox")),
            ("docker.io/busybox", (DOCKER_INDEX, "busybox")),
            ("index.docker.io/a/b", (DOCKER_INDEX, "a/b")),
            ("localhost/a", ("localhost", "a")),
            ("r.example/a/b", ("r.example", "a/b")),
            ("127.0.0.1:5000/a", ("127.0.0.1:5000", "a")),
            ("", (DOCKER_INDEX, "")),
        ] {
            assert_eq!(split(term), expected, "{term}");
        }
    }

    #[test]
    fn results() {
        let body = br#"{"num_results":1,"results":[{"name":"a","star_count":3,"is_automated":true,
            "description":null,"is_official":true},{}]}"#;
        let body: Body = serde_json::from_slice(body).unwrap();
        let rows = body.results.unwrap();
        assert_eq!((rows[0].name.as_str(), rows[0].star_count), ("a", 3));
        assert!(rows[0].is_official && rows[1].name.is_empty());
        assert!(serde_json::from_slice::<Body>(b"{\"results\":null}").unwrap().results.is_none());
        assert!(serde_json::from_slice::<Body>(b"{\"results\":{}}").is_err());
    }
}
