//! Which servers a repository is on.

use std::path::PathBuf;

use silo_http::Uri;
use silo_oci::reference::DEFAULT_DOMAIN;

use crate::{Config, Error, hosts};

/// The server of Docker Hub's images.
pub(crate) const DOCKER_HUB: &str = "registry-1.docker.io";
/// The name by which clients have credentials for it.
pub(crate) const DOCKER_INDEX: &str = "index.docker.io";

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Scheme and authority, and what comes before `/v2/`: `https://registry-1.docker.io`.
    pub(crate) base: String,
    /// Host and port.
    pub(crate) authority: String,
    /// It has what another server is the authority on.
    pub(crate) is_mirror: bool,
    /// Any certificate is good.
    pub(crate) trust_anyone: bool,
    /// It is asked only if its name leads to a network whose registries may have no certificate.
    pub(crate) is_near: bool,
    /// What the path of the API begins with.
    pub(crate) api: &'static str,
    /// Files of certificate authorities for this server alone.
    pub(crate) authorities: Vec<PathBuf>,
    /// Files of certificates and keys, by which the client shows who it is.
    pub(crate) clients: Vec<(PathBuf, PathBuf)>,
    /// What every request says.
    pub(crate) headers: Vec<(String, String)>,
}

impl Endpoint {
    /// A server without anything of its own.
    pub(crate) fn plain(base: String, authority: &str, trust_anyone: bool) -> Self {
        Self {
            base,
            authority: authority.to_owned(),
            is_mirror: false,
            trust_anyone,
            is_near: false,
            api: "v2/",
            authorities: Vec::new(),
            clients: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// The URL of something below `/v2/`.
    pub(crate) fn url(&self, path: &str) -> Result<Uri, Error> {
        Ok(silo_http::parse_url(&format!("{}/{}{path}", self.base, self.api))?)
    }

    /// Whether it is asked by TLS with a certificate that is checked.
    pub(crate) fn is_secure(&self) -> bool {
        self.base.starts_with("https://") && !self.trust_anyone
    }
}

/// The servers of a registry, in the order in which they are to be asked.
pub(crate) fn endpoints(
    config: &Config,
    domain: &str,
    writes: bool,
) -> Result<Vec<Endpoint>, Error> {
    let server = if domain == DEFAULT_DOMAIN { DOCKER_HUB } else { domain };
    let server = format!("https://{server}");
    if let Some(found) = hosts::endpoints(&config.certificates, domain, &server, writes)? {
        return if found.is_empty() { Err(Error::NoHost) } else { Ok(found) };
    }
    let mut found = Vec::new();
    if domain == DEFAULT_DOMAIN {
        if !writes {
            for mirror in &config.mirrors {
                found.append(&mut mirror_endpoints(config, mirror)?);
            }
        }
        found.push(Endpoint::plain(server, DOCKER_HUB, false));
        return Ok(found);
    }
    if domain.is_empty() {
        return Err(Error::NoHost);
    }
    Ok(servers(config, domain, "", false))
}

/// One server; one without a certificate is asked by TLS first. One whose name may lead to where
/// that is allowed is asked with a certificate before.
fn servers(config: &Config, authority: &str, prefix: &str, is_mirror: bool) -> Vec<Endpoint> {
    let server = |scheme: &str, trust_anyone: bool, is_near: bool| {
        let base = format!("{scheme}://{authority}{prefix}");
        Endpoint { is_mirror, is_near, ..Endpoint::plain(base, authority, trust_anyone) }
    };
    if config.is_insecure(authority) {
        return vec![server("https", true, false), server("http", true, false)];
    }
    let mut found = vec![server("https", false, false)];
    if config.may_be_near(authority) {
        found.extend([server("https", true, true), server("http", true, true)]);
    }
    found
}

fn mirror_endpoints(config: &Config, mirror: &str) -> Result<Vec<Endpoint>, Error> {
    let text = if mirror.contains("://") { mirror.to_owned() } else { format!("https://{mirror}") };
    let url = silo_http::parse_url(&text)?;
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    if authority.contains('@') {
        return Err(Error::Mirror { url: mirror.to_owned() });
    }
    let prefix = url.path().trim_end_matches('/').to_owned();
    if url.scheme_str() == Some("http") {
        // dockerd takes a mirror that is written so for what it is.
        let base = format!("http://{authority}{prefix}");
        return Ok(vec![Endpoint { is_mirror: true, ..Endpoint::plain(base, &authority, true) }]);
    }
    let mut found = servers(config, &authority, &prefix, true);
    // Written with https, it is asked by nothing else.
    found.retain(|endpoint| endpoint.base.starts_with("https://"));
    Ok(found)
}

/// The registry that `serveraddress` of a login means: a domain as references have it.
pub(crate) fn domain_of_address(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "" | DEFAULT_DOMAIN | DOCKER_INDEX | DOCKER_HUB => DEFAULT_DOMAIN.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_registries() {
        let config = Config {
            mirrors: vec!["https://mirror.example/hub/".into(), "http://127.0.0.1:5001".into()],
            insecure: vec!["plain.example".into()],
            ..Config::default()
        };
        for (domain, writes, expected) in [
            (
                "docker.io",
                false,
                &[
                    "https://mirror.example/hub",
                    "http://127.0.0.1:5001",
                    "https://registry-1.docker.io",
                ][..],
            ),
            ("docker.io", true, &["https://registry-1.docker.io"]),
            ("ghcr.io", false, &["https://ghcr.io"]),
            ("reg.example:5000", true, &["https://reg.example:5000"]),
            ("localhost:5000", true, &["https://localhost:5000", "http://localhost:5000"]),
            ("plain.example", false, &["https://plain.example", "http://plain.example"]),
        ] {
            let found = endpoints(&config, domain, writes).unwrap();
            let bases: Vec<&str> = found.iter().map(|endpoint| endpoint.base.as_str()).collect();
            assert_eq!(bases, expected, "{domain}");
        }
        assert!(endpoints(&config, "", false).is_err());
        let endpoint = &endpoints(&config, "docker.io", false).unwrap()[0];
        assert_eq!(
            endpoint.url("library/busybox/tags/list").unwrap().to_string(),
            "https://mirror.example/hub/v2/library/busybox/tags/list"
        );
    }

    #[test]
    fn names_in_insecure_networks() {
        let insecure = vec!["10.0.0.0/8".to_owned()];
        let config = Config { insecure, ..Config::default() };
        for (domain, expected) in [
            ("reg.example", &[(true, false), (false, true), (false, true)][..]),
            ("10.1.1.1:5000", &[(false, false), (false, false)]),
            ("11.1.1.1:5000", &[(true, false)]),
            ("docker.io", &[(true, false)]),
        ] {
            let found = endpoints(&config, domain, true).unwrap();
            let found: Vec<(bool, bool)> =
                found.iter().map(|endpoint| (endpoint.is_secure(), endpoint.is_near)).collect();
            assert_eq!(found, expected, "{domain}");
        }
    }

    #[test]
    fn addresses_of_logins() {
        for (address, expected) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("http://localhost:5000/v2/", "localhost:5000"),
        ] {
            assert_eq!(domain_of_address(address), expected, "{address}");
        }
    }
}
