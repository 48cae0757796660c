//! Requests to one server, with leave and redirects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use silo_http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use silo_http::{Body, Client, MAX_REDIRECTS, Method, Request, StatusCode, Uri};

use crate::answer::Answer;
use crate::auth::{Auth, Wanted};
use crate::endpoint::Endpoint;
use crate::{Credentials, Error, Registries};

/// How long the head of an answer may take that needs no body to be sent.
const HEAD: Duration = Duration::from_mins(1);

/// One request without a body.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// What leave is needed for.
    pub(crate) scopes: &'a [String],
    /// What comes is checked against a digest, so that it may come without TLS.
    pub(crate) is_checked: bool,
}

/// One server, as one client of the engine sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) registries: Arc<Registries>,
    pub(crate) endpoint: Endpoint,
    client: Arc<Client>,
    credentials: Credentials,
    auth: Auth,
}

/// Whether a request to one URL may have the secrets that are for the other.
fn is_same_server(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        uri.port_u16().unwrap_or(default)
    };
    a.scheme() == b.scheme()
        && a.host().map(str::to_ascii_lowercase) == b.host().map(str::to_ascii_lowercase)
        && port(a) == port(b)
}

/// Whether a host of a URL is this one, as far as its name tells.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse().is_ok_and(|address: IpAddr| {
            address.to_canonical().is_loopback() || address.is_unspecified()
        })
}

fn headers(request: &mut Request<Body>, headers: &[(&'static str, String)]) -> Result<(), Error> {
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|_| Error::Protocol {
            url: request.uri().to_string(),
            reason: format!("{value:?} cannot be the header {name}"),
        })?;
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

fn authorize(request: &mut Request<Body>, value: &str) -> Result<(), Error> {
    let mut value = HeaderValue::from_str(value).map_err(|_| Error::NoCredentials)?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(())
}

impl Session {
    pub(crate) fn new(
        registries: &Arc<Registries>,
        endpoint: Endpoint,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let client = registries.client_for(&endpoint)?;
        // A mirror is another server than the one that the credentials are for.
        let credentials =
            if endpoint.is_mirror { Credentials::default() } else { credentials.clone() };
        let registries = Arc::clone(registries);
        Ok(Self { registries, endpoint, client, credentials, auth: Auth::default() })
    }

    fn wanted<'a>(&'a self, scopes: &'a [String]) -> Wanted<'a> {
        Wanted {
            registries: &self.registries,
            endpoint: &self.endpoint,
            credentials: &self.credentials,
            scopes,
        }
    }

    /// Whether the URL is the server's own.
    fn is_own(&self, url: &Uri) -> bool {
        self.endpoint.url("").is_ok_and(|own| is_same_server(&own, url))
    }

    /// The value of `Authorization`, which only the server itself gets.
    async fn leave(&self, ask: &Ask<'_>) -> Result<Option<String>, Error> {
        if self.is_own(&ask.url) {
            self.auth.header(self.wanted(ask.scopes)).await
        } else {
            Ok(None)
        }
    }

    /// What the server's configuration has every request say.
    fn add_headers(&self, request: &mut Request<Body>) {
        for (name, value) in &self.endpoint.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                request.headers_mut().append(name, value);
            }
        }
    }

    /// The client for a URL that may be another server's.
    fn client_for(&self, url: &Uri) -> Result<Arc<Client>, Error> {
        if self.is_own(url) {
            return Ok(Arc::clone(&self.client));
        }
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let trust_anyone = self.registries.config().is_insecure(&authority);
        self.registries.client_of_stranger(&self.endpoint, &authority, trust_anyone)
    }

    /// Refuses to be led where no stranger has to lead: to this host itself.
    fn check_stranger(&self, method: &Method, from: &Uri, to: &Uri) -> Result<(), Error> {
        let leads_here = |uri: &Uri| is_here(uri.host().unwrap_or_default());
        let own = self.endpoint.authority.parse::<Uri>();
        if leads_here(to) && !own.as_ref().is_ok_and(leads_here) {
            let cause = format!("it leads to {to}, an address of this host alone");
            return Err(failed(method, from, silo_http::Cause::Location(cause)));
        }
        Ok(())
    }

    /// Shows the password, if there is one, without being asked for it.
    pub(crate) async fn assume_basic(&self) {
        if self.credentials.identity_token.is_empty() && self.credentials.basic().is_some() {
            self.auth.assume_basic().await;
        }
    }

    fn stall(&self) -> Duration {
        self.registries.config().stall
    }

    /// Makes a request, and follows redirects. Every status is an answer.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        if !self.is_own(&ask.url) {
            self.check_stranger(&ask.method, &ask.url, &ask.url)?;
        }
        let mut challenged = false;
        loop {
            let sent = self.leave(ask).await?;
            let answer = self.follow(ask, sent.as_deref()).await?;
            let is_own = self.is_own(&answer.url);
            if answer.status != StatusCode::UNAUTHORIZED || challenged || !is_own {
                return Ok(answer);
            }
            challenged = true;
            let wanted = self.wanted(ask.scopes);
            let challenges = answer.challenges();
            if !self.auth.challenged(wanted, &challenges, sent.as_deref()).await? {
                return Ok(answer);
            }
        }
    }

    /// Makes a request to whoever it is, without credentials.
    pub(crate) async fn ask_stranger(&self, ask: &Ask<'_>) -> Result<Answer, Error> {
        self.check_stranger(&ask.method, &ask.url, &ask.url)?;
        self.follow(ask, None).await
    }

    async fn follow(&self, ask: &Ask<'_>, sent: Option<&str>) -> Result<Answer, Error> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(silo_http::empty());
            *request.method_mut() = ask.method.clone();
            *request.uri_mut() = url.clone();
            headers(&mut request, &ask.headers)?;
            if self.is_own(&url) {
                self.add_headers(&mut request);
            }
            if ask.method == Method::POST {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            if let Some(sent) = sent
                && is_same_server(&ask.url, &url)
            {
                authorize(&mut request, sent)?;
            }
            let client = self.client_for(&url)?;
            let head = HEAD.min(self.stall());
            let response = tokio::time::timeout(head, client.send(request)).await;
            let response = response.map_err(|_| timeout(&ask.method, &url))??;
            let is_read = matches!(ask.method, Method::GET | Method::HEAD);
            match silo_http::redirect(&response, &url).filter(|_| is_read) {
                None => return Ok(Answer::new(url, response, self.stall())),
                Some(Err(cause)) => return Err(failed(&ask.method, &url, cause)),
                Some(Ok(next)) => {
                    let loses_tls =
                        url.scheme_str() == Some("https") && next.scheme_str() == Some("http");
                    if loses_tls && self.endpoint.is_secure() && !ask.is_checked {
                        let cause = format!("redirect to {next}, which is without TLS");
                        return Err(failed(&ask.method, &url, silo_http::Cause::Location(cause)));
                    }
                    self.check_stranger(&ask.method, &url, &next)?;
                    url = next;
                }
            }
        }
        Err(failed(&ask.method, &ask.url, silo_http::Cause::Redirects(MAX_REDIRECTS)))
    }

    /// Makes a request with a body, once. `moved` counts what was sent of it: the exchange may
    /// take as long as that goes on.
    pub(crate) async fn tell(
        &self,
        ask: &Ask<'_>,
        body: Body,
        length: Option<u64>,
        moved: &(dyn Fn() -> u64 + Sync),
    ) -> Result<Answer, Error> {
        let is_own = self.is_own(&ask.url);
        if !is_own {
            self.check_stranger(&ask.method, &ask.url, &ask.url)?;
        }
        if self.endpoint.is_secure() && ask.url.scheme_str() == Some("http") {
            let cause = format!("the registry wants the upload at {}, without TLS", ask.url);
            return Err(failed(&ask.method, &ask.url, silo_http::Cause::Location(cause)));
        }
        let sent = self.leave(ask).await?;
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.url.clone();
        headers(&mut request, &ask.headers)?;
        if is_own {
            self.add_headers(&mut request);
        }
        if let Some(length) = length {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        if let Some(sent) = &sent {
            authorize(&mut request, sent)?;
        }
        let client = self.client_for(&ask.url)?;
        let exchange = client.send(request);
        tokio::pin!(exchange);
        let mut before = moved();
        let response = loop {
            tokio::select! {
                response = &mut exchange => break response?,
                () = tokio::time::sleep(self.stall()) => {
                    let now = moved();
                    if now == before {
                        return Err(timeout(&ask.method, &ask.url));
                    }
                    before = now;
                }
            }
        };
        let answer = Answer::new(ask.url.clone(), response, self.stall());
        if answer.status == StatusCode::UNAUTHORIZED && is_own {
            // The next attempt has what the server asks for.
            let challenges = answer.challenges();
            self.auth.challenged(self.wanted(ask.scopes), &challenges, sent.as_deref()).await?;
        }
        Ok(answer)
    }

    /// The refresh token that came with the last token.
    pub(crate) async fn refresh_token(&self) -> String {
        self.auth.refresh_token().await
    }
}

fn failed(method: &Method, url: &Uri, cause: silo_http::Cause) -> Error {
    let text = method.as_str();
    let (first, rest) = text.split_at(text.len().min(1));
    let method = format!("{first}{}", rest.to_ascii_lowercase());
    silo_http::Error::Exchange { method, url: url.to_string(), cause }.into()
}

fn timeout(method: &Method, url: &Uri) -> Error {
    failed(method, url, silo_http::Cause::Timeout("response headers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_here() {
        for (host, here) in [
            ("localhost", true),
            ("Reg.LocalHost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("0.0.0.0", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example", false),
            ("192.0.2.1", false),
            ("", false),
        ] {
            assert_eq!(is_here(host), here, "{host}");
        }
    }

    #[test]
    fn strangers_do_not_lead_here() {
        let registries = Arc::new(Registries::new(crate::Config::default()));
        let session = |authority: &str| {
            let endpoint = Endpoint::plain(format!("https://{authority}"), authority, false);
            Session::new(&registries, endpoint, &Credentials::default()).unwrap()
        };
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let (out, here) = (session("reg.example"), session("127.0.0.1:5000"));
        let from = uri("https://reg.example/v2/");
        for (to, good) in [
            ("https://cdn.example/x", true),
            ("http://127.0.0.1:2375/containers/x", false),
            ("http://localhost/", false),
        ] {
            let result = out.check_stranger(&Method::GET, &from, &uri(to));
            assert_eq!(result.is_ok(), good, "{to}");
            assert!(here.check_stranger(&Method::GET, &from, &uri(to)).is_ok(), "{to}");
        }
    }

    #[test]
    fn whose_secrets() {
        for (a, b, same) in [
            ("https://r/v2/", "https://r:443/x", true),
            ("https://R/v2/", "https://r/x", true),
            ("http://r/v2/", "http://r:80/x", true),
            ("https://r/v2/", "http://r/x", false),
            ("https://r/v2/", "https://r.evil/x", false),
            ("https://r/v2/", "https://r:444/x", false),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/", false),
        ] {
            assert_eq!(is_same_server(&a.parse().unwrap(), &b.parse().unwrap()), same, "{a} {b}");
        }
    }
}
