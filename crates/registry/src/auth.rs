//! Getting leave: what a server asked for, and the tokens it takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use silo_http::{Method, Request, Uri, header};
use silo_types::query::escape;

use crate::answer::Answer;
use crate::challenge::Challenge;
use crate::endpoint::Endpoint;
use crate::token::{MAX_TOKEN, Token};
use crate::{Credentials, Error, Registries};

/// How long a token server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Uri, service: String },
}

/// What is known about getting leave from one server. One token is fetched at a time.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    scheme: Option<Scheme>,
    /// By their scopes.
    tokens: HashMap<String, Token>,
}

/// Who wants leave, from whom, for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) registries: &'a Registries,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) credentials: &'a Credentials,
    pub(crate) scopes: &'a [String],
}

impl Wanted<'_> {
    fn key(&self) -> String {
        self.scopes.join(" ")
    }
}

impl Auth {
    /// The value of `Authorization`, as far as it is known that one is needed.
    pub(crate) async fn header(&self, wanted: Wanted<'_>) -> Result<Option<String>, Error> {
        let mut state = self.state.lock().await;
        match state.scheme.clone() {
            None => Ok(None),
            Some(Scheme::Basic) => wanted.credentials.basic().map(Some).ok_or(Error::NoCredentials),
            Some(Scheme::Bearer { realm, service }) => {
                if !wanted.credentials.registry_token.is_empty() {
                    return Ok(Some(format!("Bearer {}", wanted.credentials.registry_token)));
                }
                let key = wanted.key();
                if let Some(token) = state.tokens.get(&key)
                    && token.until > Instant::now()
                {
                    return Ok(Some(token.header.clone()));
                }
                let token = fetch(wanted, &realm, &service).await?;
                let header = token.header.clone();
                state.tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    /// Takes the challenges of a 401. `false` if nothing new can be shown to the server.
    pub(crate) async fn challenged(
        &self,
        wanted: Wanted<'_>,
        challenges: &[Challenge],
        sent: Option<&str>,
    ) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        if let Some(challenge) = bearer {
            let realm = realm(wanted.endpoint, challenge)?;
            let scheme = Scheme::Bearer { realm, service: challenge.get("service").to_owned() };
            // A token that somebody else has fetched meanwhile may be good.
            let key = wanted.key();
            let is_sent =
                state.tokens.get(&key).is_some_and(|token| Some(token.header.as_str()) == sent);
            if is_sent {
                state.tokens.remove(&key);
            }
            state.scheme = Some(scheme);
            return Ok(sent.is_none() || wanted.credentials.registry_token.is_empty());
        }
        if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            state.scheme = Some(Scheme::Basic);
            if wanted.credentials.basic().is_none() {
                return Err(Error::NoCredentials);
            }
            return Ok(sent.is_none());
        }
        Ok(false)
    }

    /// The server wants a password, and will not ask for it.
    pub(crate) async fn assume_basic(&self) {
        self.state.lock().await.scheme = Some(Scheme::Basic);
    }

    /// The refresh token that came with a token, for the next login.
    pub(crate) async fn refresh_token(&self) -> String {
        let state = self.state.lock().await;
        state.tokens.values().map(|token| token.refresh.clone()).next().unwrap_or_default()
    }
}

/// The token server's URL.
fn realm(endpoint: &Endpoint, challenge: &Challenge) -> Result<Uri, Error> {
    let text = challenge.get("realm");
    let wrong = |reason: &str| Error::Protocol {
        url: endpoint.base.clone(),
        reason: format!("it names the token server {text:?}, {reason}"),
    };
    if !text.contains("://") {
        return Err(wrong("which is no URL"));
    }
    let realm = silo_http::parse_url(text).map_err(|_| wrong("which is no URL"))?;
    if realm.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("which has a user in it"));
    }
    if realm.scheme_str() == Some("http") && endpoint.is_secure() {
        return Err(wrong("which would be asked without TLS"));
    }
    Ok(realm)
}

/// Asks a token server.
async fn fetch(wanted: Wanted<'_>, realm: &Uri, service: &str) -> Result<Token, Error> {
    let credentials = wanted.credentials;
    let authority = realm.authority().map(ToString::to_string).unwrap_or_default();
    let trust_anyone = wanted.registries.config().is_insecure(&authority)
        || (wanted.endpoint.trust_anyone && authority == wanted.endpoint.authority);
    let client = wanted.registries.client_of_stranger(wanted.endpoint, &authority, trust_anyone)?;
    let mut fields: Vec<(&str, &str)> = Vec::new();
    if !service.is_empty() {
        fields.push(("service", service));
    }
    let scopes = wanted.key();
    let request = if credentials.identity_token.is_empty() {
        fields.extend(wanted.scopes.iter().map(|scope| ("scope", scope.as_str())));
        if !credentials.username.is_empty() {
            fields.push(("account", &credentials.username));
            fields.push(("client_id", "docker"));
        }
        let separator = if realm.query().is_some() { '&' } else { '?' };
        let text = format!("{realm}{separator}{}", form(&fields));
        let mut request = Request::new(silo_http::empty());
        *request.uri_mut() = silo_http::parse_url(text.trim_end_matches(['?', '&']))?;
        if let Some(basic) = credentials.basic() {
            insert(&mut request, header::AUTHORIZATION, &basic);
        }
        request
    } else {
        fields.push(("client_id", "docker"));
        fields.push(("grant_type", "refresh_token"));
        fields.push(("refresh_token", &credentials.identity_token));
        if !scopes.is_empty() {
            fields.push(("scope", &scopes));
        }
        let mut request = Request::new(silo_http::full(form(&fields)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = realm.clone();
        insert(&mut request, header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        request
    };
    let url = request.uri().clone();
    // Never beyond this server, whatever it answers: the request has secrets.
    let response = tokio::time::timeout(PATIENCE, client.send(request)).await;
    let response = response.map_err(|_| Error::Protocol {
        url: realm.to_string(),
        reason: "timeout awaiting response headers".to_owned(),
    })??;
    let answer = Answer::new(url, response, wanted.registries.config().stall);
    let body = answer.expect(&[200]).await?.bytes("the token", MAX_TOKEN).await?;
    Token::read(&body, Instant::now())
        .map_err(|reason| Error::Protocol { url: realm.to_string(), reason })
}

fn insert(request: &mut Request<silo_http::Body>, name: header::HeaderName, value: &str) {
    if let Ok(mut value) = header::HeaderValue::from_str(value) {
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
}

/// Fields as a query or a form.
fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::challenge;

    #[test]
    fn token_servers() {
        let endpoint =
            |base: &str, trust_anyone| Endpoint::plain(base.to_owned(), "r", trust_anyone);
        let secure = endpoint("https://r", false);
        let insecure = endpoint("http://r", true);
        for (endpoint, realm_text, good) in [
            (&secure, "https://auth.example/token?x=1", true),
            (&secure, "http://auth.example/token", false),
            (&insecure, "http://auth.example/token", true),
            (&secure, "https://me:you@auth.example/", false),
            (&secure, "auth.example", false),
            (&secure, "file:///etc/passwd", false),
            (&secure, "", false),
        ] {
            let challenge = challenge::parse(&format!("Bearer realm=\"{realm_text}\"")).remove(0);
            assert_eq!(realm(endpoint, &challenge).is_ok(), good, "{realm_text}");
        }
    }

    #[test]
    fn forms() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push"), ("account", "é&=")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&account=%C3%A9%26%3D"
        );
    }
}
