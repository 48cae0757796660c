//! Which proxy a URL is asked for through.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// Proxies, as the environment variables of the same names have them. Empty means none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`: for `http` URLs.
    pub http: String,
    /// `HTTPS_PROXY`: for `https` URLs.
    pub https: String,
    /// `NO_PROXY`: hosts, domains, addresses and networks that are asked directly, separated by
    /// commas; `*` is all of them.
    pub no: String,
}

impl fmt::Debug for Proxies {
    // Proxies have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &without_credentials(&self.http))
            .field("https", &without_credentials(&self.https))
            .field("no", &self.no)
            .finish()
    }
}

impl Proxies {
    /// Reads the variables by `get`; capital letters come first, as in Go.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let capital = get(name).filter(|value| !value.is_empty());
            capital.or_else(|| get(&name.to_ascii_lowercase())).unwrap_or_default()
        };
        Self { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), no: either("NO_PROXY") }
    }

    /// The same with user names and passwords hidden, for people to see.
    pub fn masked(&self) -> Self {
        Self {
            http: without_credentials(&self.http),
            https: without_credentials(&self.https),
            no: self.no.clone(),
        }
    }
}

/// A URL with `xxxxx:xxxxx` for its user and password, as dockerd shows proxies.
fn without_credentials(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}xxxxx:xxxxx{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

/// [`Proxies`], ready to be asked.
#[derive(Debug)]
pub(crate) struct Table(Matcher);

impl Table {
    pub(crate) fn new(proxies: &Proxies) -> Self {
        let matcher = Matcher::builder()
            .http(proxies.http.as_str())
            .https(proxies.https.as_str())
            .no(proxies.no.as_str())
            .build();
        Self(matcher)
    }

    /// The proxy for a URL.
    pub(crate) fn find(&self, url: &Uri) -> Option<Intercept> {
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
        let here = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if here { None } else { self.0.intercept(url) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_url_takes_which_proxy() {
        let table = Table::new(&Proxies {
            http: "http://user:pass@plain:3128".into(),
            https: "secure:8443".into(),
            no: "intern.example, 10.0.0.0/8,.dotted.example".into(),
        });
        for (url, proxy) in [
            ("http://example.com/x", Some("plain:3128")),
            ("https://example.com/x", Some("secure:8443")),
            ("http://localhost:5000/", None),
            ("http://127.0.0.1/", None),
            ("http://[::1]:80/", None),
            ("http://intern.example/", None),
            ("https://deep.intern.example/", None),
            ("https://a.dotted.example/", None),
            ("https://notintern.example/", Some("secure:8443")),
            ("http://10.1.2.3/", None),
            ("http://11.1.2.3/", Some("plain:3128")),
        ] {
            let found = table.find(&url.parse().unwrap());
            let found = found.as_ref().and_then(|proxy| proxy.uri().authority());
            assert_eq!(found.map(ToString::to_string).as_deref(), proxy, "{url}");
        }
        let plain = table.find(&"http://example.com".parse().unwrap()).unwrap();
        assert_eq!(plain.basic_auth().unwrap(), "Basic dXNlcjpwYXNz");
    }

    #[test]
    fn variables_and_what_people_see() {
        let proxies = Proxies::from_variables(|name| match name {
            "HTTP_PROXY" => Some("http://me:secret@proxy:1/p@th".into()),
            "http_proxy" => Some("ignored".into()),
            "HTTPS_PROXY" => Some(String::new()),
            "https_proxy" => Some("small:2".into()),
            _ => None,
        });
        assert_eq!(proxies.https, "small:2");
        assert_eq!(proxies.masked().http, "http://xxxxx:xxxxx@proxy:1/p@th");
        assert_eq!(proxies.masked().https, "small:2");
        assert!(!format!("{proxies:?}").contains("secret"));
    }
}
