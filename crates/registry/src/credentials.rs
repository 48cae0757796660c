//! Credentials, as clients of the engine send them: `X-Registry-Auth`, base64 of JSON.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Headers longer than this are not looked at, in bytes.
const MAX_HEADER: usize = 64 << 10;

/// How clients write it: Go's `URLEncoding`, and without padding, and with the other alphabet.
const URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who somebody is to a registry. Empty fields mean that it is not known.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `user:password` in base64, which stands for both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// The registry they are for, as the client names it.
    #[serde(skip_serializing_if = "String::is_empty", rename = "serveraddress")]
    pub server_address: String,
    /// A refresh token in place of a password.
    #[serde(skip_serializing_if = "String::is_empty", rename = "identitytoken")]
    pub identity_token: String,
    /// A bearer token to be sent as it is.
    #[serde(skip_serializing_if = "String::is_empty", rename = "registrytoken")]
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    // Only what is no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// Text that has no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid X-Registry-Auth header: {0}")]
pub struct InvalidHeader(String);

/// Reads base64 of JSON.
fn decode<T: DeserializeOwned>(header: &str) -> Result<Option<T>, InvalidHeader> {
    if header.is_empty() {
        return Ok(None);
    }
    if header.len() > MAX_HEADER {
        return Err(InvalidHeader("it is too long".into()));
    }
    let bytes = URL
        .decode(header.trim())
        .or_else(|_| STANDARD.decode(header.trim()))
        .map_err(|error| InvalidHeader(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| InvalidHeader(error.to_string()))
}

impl Credentials {
    /// Reads a header. An empty one has none.
    pub fn from_header(header: &str) -> Result<Self, InvalidHeader> {
        let read: Option<Self> = decode(header)?;
        Ok(read.unwrap_or_default().normalized())
    }

    /// Reads the header of builds, `X-Registry-Config`: credentials by registries.
    pub fn all_from_header(header: &str) -> Result<BTreeMap<String, Self>, InvalidHeader> {
        let read: Option<BTreeMap<String, Self>> = decode(header)?;
        Ok(read.unwrap_or_default())
    }

    /// Those for a registry (`docker.io`), of some by registries as clients name them; empty ones
    /// if there are none.
    pub fn of(all: &BTreeMap<String, Self>, registry: &str) -> Self {
        let found =
            all.iter().find(|(name, _)| crate::endpoint::domain_of_address(name) == registry);
        found.map(|(_, credentials)| credentials.clone()).unwrap_or_default().normalized()
    }

    /// With name and password in place of [`auth`](Self::auth).
    pub fn normalized(mut self) -> Self {
        if self.username.is_empty()
            && !self.auth.is_empty()
            && let Ok(bytes) = STANDARD.decode(self.auth.trim())
            && let Ok(text) = String::from_utf8(bytes)
            && let Some((name, password)) = text.split_once(':')
        {
            name.clone_into(&mut self.username);
            password.trim_end_matches('\0').clone_into(&mut self.password);
        }
        self.auth.clear();
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    /// The value of `Authorization: Basic`, if there is a name with a password.
    pub(crate) fn basic(&self) -> Option<String> {
        (!self.username.is_empty() && !self.password.is_empty()).then(|| {
            let pair = format!("{}:{}", self.username, self.password);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let url = |json: &str| base64::engine::general_purpose::URL_SAFE.encode(json);
        let read = |header: &str| Credentials::from_header(header);
        let full = read(&url(
            r#"{"username":"me","password":"p\u00e9?>","serveraddress":"r:5000","x":1}"#,
        ))
        .unwrap();
        assert_eq!((full.username.as_str(), full.password.as_str()), ("me", "pé?>"));
        assert_eq!(full.server_address, "r:5000");
        let auth = read(&url(r#"{"auth":"bWU6cDp3"}"#)).unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "p:w"));
        assert_eq!(auth.basic().unwrap(), "Basic bWU6cDp3");
        for none in ["", "e30=", "e30", "bnVsbA=="] {
            assert!(read(none).unwrap().is_empty(), "{none}");
        }
        assert!(read(&url(r#"{"identitytoken":"t"}"#)).unwrap().basic().is_none());
        for bad in ["@@", &url("{"), &url("7"), &url(r#"{"username":1}"#), &"e".repeat(70_000)] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with("invalid X-Registry-Auth header: "), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            password: "secret".into(),
            username: "me".into(),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
