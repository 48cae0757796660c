//! `hosts.toml`: how one registry is asked, in the form of containerd.
//!
//! ```toml
//! server = "https://registry-1.docker.io"
//!
//! [host."https://mirror.example"]
//!   capabilities = ["pull", "resolve"]
//!   ca = "mirror.crt"
//!   client = [["client.cert", "client.key"]]
//!   skip_verify = false
//!   override_path = false
//!   [host."https://mirror.example".header]
//!     x-token = "abc"
//! ```
//!
//! The file is `<directory>/<host>/hosts.toml`, where `<host>` is `reg.example:5000`,
//! `reg.example_5000_` or, for all others, `_default`. Hosts are asked in the order in which they
//! are written, the server last. Paths are relative to the file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::endpoint::Endpoint;

/// Name of the file.
const NAME: &str = "hosts.toml";
/// A larger file is not read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Client certificates: a file of both, files, or pairs of certificate and key.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Clients {
    Files(Texts),
    Pairs(Vec<(String, String)>),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<Texts>,
    client: Option<Clients>,
    skip_verify: bool,
    override_path: bool,
    header: toml::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    server: Option<String>,
    #[serde(flatten)]
    own: Host,
    host: toml::Table,
}

/// The servers that a file names for a registry, in order; `None` if there is no file.
pub(crate) fn endpoints(
    directories: &[PathBuf],
    authority: &str,
    server: &str,
    writes: bool,
) -> Result<Option<Vec<Endpoint>>, Error> {
    // The grammar of references has neither, but whoever asks may not be a reference.
    if authority.contains(['/', '\0']) || authority.starts_with('.') {
        return Ok(None);
    }
    let underscored = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => format!("{host}_{port}_"),
        _ => authority.to_owned(),
    };
    for name in [authority, &underscored, "_default"] {
        for directory in directories {
            let folder = directory.join(name);
            let path = folder.join(NAME);
            let text = match read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&path, error)),
            };
            let file: File = toml::from_str(&text).map_err(|error| failed(&path, error))?;
            return file.endpoints(&folder, authority, server, writes).map(Some);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs_err::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn failed(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Hosts { path: path.to_owned(), source: source.into() }
}

impl File {
    fn endpoints(
        self,
        folder: &Path,
        authority: &str,
        server: &str,
        writes: bool,
    ) -> Result<Vec<Endpoint>, Error> {
        let path = folder.join(NAME);
        let mut found = Vec::new();
        for (url, host) in self.host {
            let host: Host = host.try_into().map_err(|error| failed(&path, error))?;
            found.extend(host.endpoint(folder, &url, authority, writes)?);
        }
        let server = self.server.as_deref().unwrap_or(server);
        // An empty one means that there is none but the hosts.
        if !server.is_empty() {
            found.extend(self.own.endpoint(folder, server, authority, writes)?);
        }
        Ok(found)
    }
}

impl Host {
    /// The server; `None` if it is not for this.
    fn endpoint(
        self,
        folder: &Path,
        url: &str,
        registry: &str,
        writes: bool,
    ) -> Result<Option<Endpoint>, Error> {
        let path = folder.join(NAME);
        let can = |what: &str| {
            self.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == what))
        };
        let is_for_this = if writes { can("push") } else { can("pull") && can("resolve") };
        if !is_for_this {
            return Ok(None);
        }
        let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let parsed = silo_http::parse_url(&full).map_err(|error| failed(&path, error))?;
        let authority = parsed.authority().map(ToString::to_string).unwrap_or_default();
        if authority.contains('@') {
            return Err(Error::Mirror { url: url.to_owned() });
        }
        let scheme = parsed.scheme_str().unwrap_or("https").to_owned();
        let prefix = parsed.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix("/v2").unwrap_or(prefix);
        let base = format!("{scheme}://{authority}{prefix}");
        let at = |name: &String| folder.join(name);
        let clients = match self.client {
            None => Vec::new(),
            Some(Clients::Files(files)) => {
                files.list().iter().map(|file| (at(file), at(file))).collect()
            }
            Some(Clients::Pairs(pairs)) => {
                pairs.iter().map(|(certificate, key)| (at(certificate), at(key))).collect()
            }
        };
        let mut headers = Vec::new();
        for (name, value) in self.header {
            let values: Texts = value.try_into().map_err(|error| failed(&path, error))?;
            headers.extend(values.list().into_iter().map(|value| (name.clone(), value)));
        }
        Ok(Some(Endpoint {
            is_mirror: authority != registry && !is_docker_hub(&authority, registry),
            is_near: false,
            base,
            authority,
            trust_anyone: self.skip_verify || scheme == "http",
            api: if self.override_path { "" } else { "v2/" },
            authorities: self.ca.map(Texts::list).unwrap_or_default().iter().map(at).collect(),
            clients,
            headers,
        }))
    }
}

/// Whether the server is the one that `docker.io` means.
fn is_docker_hub(authority: &str, registry: &str) -> bool {
    registry == silo_oci::reference::DEFAULT_DOMAIN && authority == crate::endpoint::DOCKER_HUB
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, writes: bool) -> Result<Option<Vec<Endpoint>>, String> {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("reg.example_5000_");
        fs_err::create_dir(&folder).unwrap();
        fs_err::write(folder.join(NAME), text).unwrap();
        let directories = [directory.path().to_owned()];
        endpoints(&directories, "reg.example:5000", "https://reg.example:5000", writes)
            .map_err(|error| silo_types::error::chain(&error))
    }

    #[test]
    fn hosts_in_their_order() {
        let text = r#"
            server = "https://reg.example:5000"
            [host."https://z.example/path/v2"]
              capabilities = ["pull", "resolve"]
              override_path = true
              ca = ["a.crt", "/b.crt"]
              client = [["c.cert", "c.key"]]
              [host."https://z.example/path/v2".header]
                x-token = ["a", "b"]
            [host."http://a.example"]
              capabilities = ["pull", "resolve", "push"]
        "#;
        let found = find(text, false).unwrap().unwrap();
        let bases: Vec<&str> = found.iter().map(|endpoint| endpoint.base.as_str()).collect();
        assert_eq!(
            bases,
            ["https://z.example/path", "http://a.example", "https://reg.example:5000"]
        );
        let first = &found[0];
        assert_eq!(first.api, "");
        assert!(first.authorities[0].ends_with("reg.example_5000_/a.crt"));
        assert_eq!(first.authorities[1], Path::new("/b.crt"));
        assert!(first.clients[0].1.ends_with("c.key"));
        assert_eq!(first.headers[1], ("x-token".to_owned(), "b".to_owned()));
        assert_eq!(found.iter().map(|one| one.is_mirror).collect::<Vec<_>>(), [true, true, false]);
        let writes = find(text, true).unwrap().unwrap();
        assert_eq!(writes.len(), 2);
        let alone = find("server = \"\"\n[host.\"https://a\"]\n", false).unwrap().unwrap();
        assert_eq!(alone.len(), 1);
        let verify = find("skip_verify = true", false).unwrap().unwrap();
        assert!(verify[0].trust_anyone && !verify[0].is_mirror);
    }

    #[test]
    fn files_that_are_wrong() {
        for (text, words) in [
            ("server = 1", "hosts.toml"),
            ("[host.\"https://me:you@x\"]", "invalid mirror"),
            ("[host.\"ftp://x\"]", "unsupported protocol scheme"),
            ("[host", "hosts.toml"),
        ] {
            let error = find(text, false).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(endpoints(&[PathBuf::from("/none")], "x", "https://x", false).unwrap(), None);
        assert_eq!(endpoints(&[PathBuf::from("/")], "../etc", "https://x", false).unwrap(), None);
    }
}
