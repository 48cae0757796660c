//! Credentials for registries, where Docker keeps them: in `config.json`, or with a program
//! `docker-credential-<name>` that the file names (`credsStore`, `credHelpers`).

mod helper;

use std::io::Write as _;
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde_json::{Map, Value as Json, json};

use crate::config::{base64_decode, base64_url};
use crate::failure::{Failure, Outcome};

/// What Docker Hub's credentials are kept under.
pub(crate) const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The name by which helpers mean a token in place of a user.
const TOKEN_USER: &str = "<token>";

/// Credentials for one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    /// In place of a password.
    pub(crate) identity_token: String,
}

/// The file, and who keeps the secrets.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    directory: &'a Path,
    file: Map<String, Json>,
}

/// The host of what credentials are kept under: `https://r:5000/v1/` is `r:5000`.
fn host(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// What credentials for a registry are kept under: its host, but for Docker Hub.
pub(crate) fn key(registry: &str) -> &str {
    match host(registry) {
        "" | "docker.io" | "index.docker.io" => DOCKER_HUB,
        host => host,
    }
}

impl<'a> Store<'a> {
    /// Reads `config.json` of a directory. A missing file is an empty one.
    pub(crate) fn open(directory: &'a Path) -> Outcome<Self> {
        let path = directory.join("config.json");
        let file = match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("loading config file: {}: {error}", path.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(Failure::new(error.to_string())),
        };
        Ok(Self { directory, file })
    }

    /// The helper that keeps the secrets of a server.
    fn helper(&self, server: &str) -> Option<String> {
        let own = self.file.get("credHelpers").and_then(|all| all.get(host(server)));
        let name = own.or_else(|| self.file.get("credsStore"))?.as_str()?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!name.is_empty() && name.bytes().all(is_word)).then(|| name.to_owned())
    }

    /// The credentials for a server, if there are any.
    pub(crate) fn get(&self, server: &str) -> Outcome<Option<Credentials>> {
        if let Some(helper) = self.helper(server) {
            let failed =
                |reason: String| Failure::new(format!("error getting credentials - {reason}"));
            let answer = match helper::ask(&helper, "get", server, helper::PATIENCE) {
                Ok(answer) => answer,
                Err(error) if error.is_unknown() => return Ok(None),
                Err(error) => return Err(failed(error.to_string())),
            };
            let answer: Json = serde_json::from_slice(&answer)
                .map_err(|error| failed(format!("docker-credential-{helper}: {error}")))?;
            let field = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
            let (username, secret) = (field("Username"), field("Secret"));
            return Ok(Some(if username == TOKEN_USER {
                Credentials { identity_token: secret, ..Credentials::default() }
            } else {
                Credentials { username, password: secret, ..Credentials::default() }
            }));
        }
        let Some(all) = self.file.get("auths").and_then(Json::as_object) else { return Ok(None) };
        let entry = all.get(server).or_else(|| {
            all.iter().find(|(name, _)| host(name) == host(server)).map(|(_, entry)| entry)
        });
        Ok(entry.and_then(read_entry))
    }

    /// Keeps the credentials for a server.
    pub(crate) fn put(&mut self, server: &str, credentials: &Credentials) -> Outcome {
        // Somebody else may have logged in meanwhile.
        *self = Self::open(self.directory)?;
        let mut entry = Map::new();
        if let Some(helper) = self.helper(server) {
            let (username, secret) = if credentials.identity_token.is_empty() {
                (credentials.username.as_str(), &credentials.password)
            } else {
                (TOKEN_USER, &credentials.identity_token)
            };
            let input = json!({"ServerURL": server, "Username": username, "Secret": secret});
            helper::ask(&helper, "store", &input.to_string(), helper::PATIENCE)
                .map_err(|error| Failure::new(format!("error storing credentials - {error}")))?;
        } else {
            let pair = format!("{}:{}", credentials.username, credentials.password);
            // The alphabet of this file is the standard one.
            let auth = base64_url(pair.as_bytes()).replace('-', "+").replace('_', "/");
            entry.insert("auth".into(), auth.into());
            if !credentials.identity_token.is_empty() {
                entry.insert("identitytoken".into(), credentials.identity_token.clone().into());
            }
        }
        let all = self.file.entry("auths").or_insert_with(|| Json::Object(Map::new()));
        if let Some(all) = all.as_object_mut() {
            all.insert(server.to_owned(), Json::Object(entry));
        }
        self.save()
    }

    /// Forgets the credentials for a server.
    pub(crate) fn remove(&mut self, server: &str) -> Outcome {
        *self = Self::open(self.directory)?;
        if let Some(helper) = self.helper(server) {
            let erased = helper::ask(&helper, "erase", server, helper::PATIENCE);
            if let Err(error) = erased
                && !error.is_unknown()
            {
                return Err(Failure::new(format!("error erasing credentials - {error}")));
            }
        }
        let Some(all) = self.file.get_mut("auths").and_then(Json::as_object_mut) else {
            return Ok(());
        };
        let before = all.len();
        all.retain(|name, _| host(name) != host(server));
        if all.len() == before { Ok(()) } else { self.save() }
    }

    /// Writes the file, which nobody else may read, aside and into its place.
    fn save(&self) -> Outcome {
        let failed = |error: std::io::Error| Failure::new(error.to_string());
        fs_err::create_dir_all(self.directory).map_err(failed)?;
        // Where the file is a link, what it leads to is meant.
        let path = self.directory.join("config.json");
        let path = fs_err::canonicalize(&path).unwrap_or(path);
        let folder = path.parent().unwrap_or(self.directory);
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.file, &mut serializer)
            .map_err(|error| Failure::new(error.to_string()))?;
        let aside = folder.join(format!(".config.json.{}", std::process::id()));
        // What a process of this number has left.
        fs_err::remove_file(&aside).ok();
        let written = (|| {
            let mut options = fs_err::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs_err::rename(&aside, &path)
        })();
        written.map_err(|error: std::io::Error| {
            fs_err::remove_file(&aside).ok();
            failed(error)
        })
    }
}

fn read_entry(entry: &Json) -> Option<Credentials> {
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let decoded = base64_decode(&field("auth")).and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = pair.unwrap_or_default();
    let found = Credentials {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
        identity_token: field("identitytoken"),
    };
    (found != Credentials::default()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_registries_are_called() {
        for (given, expected) in [
            ("", DOCKER_HUB),
            ("docker.io", DOCKER_HUB),
            (DOCKER_HUB, DOCKER_HUB),
            ("https://r:5000/v1/", "r:5000"),
            ("http://r", "r"),
            ("r:5000", "r:5000"),
        ] {
            assert_eq!(key(given), expected, "{given}");
        }
    }

    #[test]
    fn put_get_remove() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs_err::write(&path, r#"{"psFormat":"x","auths":{"https://r:5000/v1/":{"auth":"dTpw"}}}"#)
            .unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let old = store.get("r:5000").unwrap().unwrap();
        assert_eq!((old.username.as_str(), old.password.as_str()), ("u", "p"));
        assert_eq!(store.get("other").unwrap(), None);
        let new = Credentials {
            username: "me".into(),
            password: "a:b~?>ÿ".into(),
            identity_token: String::new(),
        };
        store.put(key("docker.io"), &new).unwrap();
        let again = Store::open(directory.path()).unwrap();
        assert_eq!(again.get(DOCKER_HUB).unwrap().unwrap(), new);
        assert_eq!(again.file["psFormat"], "x");
        let mode = fs_err::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store.remove("r:5000").unwrap();
        let again = Store::open(directory.path()).unwrap();
        assert_eq!(again.get("r:5000").unwrap(), None);
        assert!(again.get(DOCKER_HUB).unwrap().is_some());
    }

    #[test]
    fn names_of_helpers() {
        let directory = Path::new("/nonexistent");
        let store = |text: &str| Store { directory, file: serde_json::from_str(text).unwrap() };
        let both = store(r#"{"credsStore":"all","credHelpers":{"r:5000":"one"}}"#);
        assert_eq!(both.helper("https://r:5000/v2/").as_deref(), Some("one"));
        assert_eq!(both.helper("x").as_deref(), Some("all"));
        assert_eq!(store("{}").helper("x"), None);
        assert_eq!(store(r#"{"credsStore":"../../bin/sh"}"#).helper("x"), None);
        assert_eq!(store(r#"{"credsStore":""}"#).helper("x"), None);
    }
}
