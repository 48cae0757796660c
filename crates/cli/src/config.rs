//! The user's `config.json` and contexts, in Docker's places and form.

use std::path::{Path, PathBuf};

use crate::credentials::{self, Store};
use crate::env;
use crate::failure::{Failure, Outcome};
use crate::value::Value;

/// The configuration: its directory, and what the file says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    directory: PathBuf,
    file: Value,
}

impl Config {
    /// Reads the configuration from `directory`, or from where Docker has it. A missing file is
    /// an empty one.
    pub(crate) fn load(directory: &str) -> Outcome<Self> {
        let directory = if directory.is_empty() {
            env::get(env::DOCKER_CONFIG).map_or_else(
                || PathBuf::from(env::get(env::HOME).unwrap_or_default()).join(".docker"),
                PathBuf::from,
            )
        } else {
            PathBuf::from(directory)
        };
        let path = directory.join("config.json");
        let file = match fs_err::read(&path) {
            Ok(bytes) => Value::parse(&bytes).map_err(|error| {
                Failure::new(format!("loading config file: {}: {error}", path.display()))
            })?,
            Err(_) => Value::Nil,
        };
        Ok(Self { directory, file })
    }

    /// A text setting; empty when it is not set.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.file.get(name).str()
    }

    /// The setting as it is.
    pub(crate) fn get(&self, name: &str) -> &Value {
        self.file.get(name)
    }

    /// The address of the engine that a context names; `None` for the default context.
    pub(crate) fn context_host(&self, name: &str) -> Outcome<Option<String>> {
        if name.is_empty() || name == "default" {
            return Ok(None);
        }
        let contexts = self.directory.join("contexts").join("meta");
        for entry in fs_err::read_dir(&contexts).into_iter().flatten().flatten() {
            let meta = read_meta(&entry.path());
            if meta.get("Name").str() == name {
                let host = meta.path(&["Endpoints", "docker", "Host"]).str();
                return Ok(Some(host.to_owned()).filter(|host| !host.is_empty()));
            }
        }
        Err(Failure::new(format!("context {name:?}: context not found")))
    }

    /// Credentials for a registry, as the API wants them: base64 of JSON. Empty when there are
    /// none.
    pub(crate) fn registry_auth(&self, registry: &str) -> Outcome<String> {
        let found = self.credentials(registry)?;
        Ok(found.map(|json| base64_url(json.to_string().as_bytes())).unwrap_or_default())
    }

    /// Credentials for several registries, by their names. Empty when there are none.
    pub(crate) fn registry_config<'a>(
        &self,
        registries: impl Iterator<Item = &'a str>,
    ) -> Outcome<String> {
        let mut all = serde_json::Map::new();
        for registry in registries {
            if let Some(json) = self.credentials(registry)? {
                all.insert(registry.to_owned(), json);
            }
        }
        if all.is_empty() {
            return Ok(String::new());
        }
        Ok(base64_url(serde_json::Value::Object(all).to_string().as_bytes()))
    }

    fn credentials(&self, registry: &str) -> Outcome<Option<serde_json::Value>> {
        let key = credentials::key(registry);
        let Some(found) = Store::open(&self.directory)?.get(key)? else { return Ok(None) };
        let mut json = serde_json::json!({
            "username": found.username,
            "password": found.password,
            "serveraddress": key,
        });
        if !found.identity_token.is_empty() {
            json["identitytoken"] = found.identity_token.into();
        }
        Ok(Some(json))
    }

    /// Where the configuration is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn read_meta(directory: &Path) -> Value {
    fs_err::read(directory.join("meta.json"))
        .ok()
        .and_then(|bytes| Value::parse(&bytes).ok())
        .unwrap_or_default()
}

/// Base64 with the alphabet that is safe in URLs, padded: the form of Docker's auth headers.
pub(crate) fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for index in 0..4 {
            if index <= group.len() {
                let digit = bits >> (18 - 6 * index) & 63;
                out.push(char::from(ALPHABET[digit as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Reads standard base64.
pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 255).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_both_ways() {
        for (text, encoded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj")] {
            assert_eq!(base64_url(text.as_bytes()), encoded);
            assert_eq!(base64_decode(encoded).unwrap(), text.as_bytes());
        }
        assert_eq!(base64_url(&[0xfb, 0xff]), "-_8=");
        assert_eq!(base64_decode("a b"), None);
    }

    #[test]
    fn contexts() {
        let directory = tempfile::tempdir().unwrap();
        let meta = directory.path().join("contexts/meta/abc");
        fs_err::create_dir_all(&meta).unwrap();
        fs_err::write(
            meta.join("meta.json"),
            r#"{"Name":"c1","Endpoints":{"docker":{"Host":"tcp://h:1"}}}"#,
        )
        .unwrap();
        let config = Config::load(directory.path().to_str().unwrap()).unwrap();
        assert_eq!(config.context_host("c1").unwrap().as_deref(), Some("tcp://h:1"));
        assert_eq!(config.context_host("default").unwrap(), None);
        assert_eq!(
            config.context_host("x").unwrap_err().message,
            "context \"x\": context not found"
        );
    }

    #[test]
    fn credentials() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(
            directory.path().join("config.json"),
            r#"{"auths":{"r:5000":{"auth":"dTpw"}},"psFormat":"x"}"#,
        )
        .unwrap();
        let config = Config::load(directory.path().to_str().unwrap()).unwrap();
        assert_eq!(config.text("psFormat"), "x");
        let auth = base64_decode(&config.registry_auth("r:5000").unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(auth).unwrap(),
            r#"{"password":"p","serveraddress":"r:5000","username":"u"}"#
        );
        assert_eq!(config.registry_auth("other").unwrap(), "");
    }
}
