//! What only the client has: secrets, SSH agents, and credentials for registries.

use std::fmt;

use silo_engine::Credentials;
use silo_types::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Boxed;

/// The secrets that a client offers to `RUN --mount=type=secret`.
pub trait Secrets: fmt::Debug + Send + Sync {
    /// The secret of an id; `None` if there is none.
    fn secret<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<Option<Vec<u8>>, Error>>;
}

/// A connection to an agent.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The SSH agents that a client offers to `RUN --mount=type=ssh`.
pub trait SshAgents: fmt::Debug + Send + Sync {
    /// Whether there is an agent of this id.
    fn has<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<bool, Error>>;

    /// Connects to the agent of an id.
    fn connect<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<Box<dyn Duplex>, Error>>;
}

/// A client's credentials for registries.
pub trait RegistryKeys: fmt::Debug + Send + Sync {
    /// Those for a registry, `docker.io`; empty ones if there are none.
    fn credentials<'a>(&'a self, registry: &'a str) -> Boxed<'a, Credentials>;
}

/// No secrets, no agents and no credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Secrets for Nothing {
    fn secret<'a>(&'a self, _id: &'a str) -> Boxed<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async { Ok(None) })
    }
}

impl RegistryKeys for Nothing {
    fn credentials<'a>(&'a self, _registry: &'a str) -> Boxed<'a, Credentials> {
        Box::pin(async { Credentials::default() })
    }
}

/// Credentials that came with a request, by the registries as the client names them.
#[derive(Debug, Clone, Default)]
pub struct GivenKeys(pub std::collections::BTreeMap<String, Credentials>);

impl RegistryKeys for GivenKeys {
    fn credentials<'a>(&'a self, registry: &'a str) -> Boxed<'a, Credentials> {
        let found = Credentials::of(&self.0, registry);
        Box::pin(async { found })
    }
}

impl SshAgents for Nothing {
    fn has<'a>(&'a self, _id: &'a str) -> Boxed<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }

    fn connect<'a>(&'a self, id: &'a str) -> Boxed<'a, Result<Box<dyn Duplex>, Error>> {
        Box::pin(async move { Err(Error::not_found(format!("no ssh agent {id:?}"))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_found_by_their_registry() {
        let named = |username: &str| Credentials {
            username: username.to_owned(),
            password: "p".to_owned(),
            ..Credentials::default()
        };
        let keys = GivenKeys(
            [
                ("https://index.docker.io/v1/".to_owned(), named("hub")),
                ("r:5000".to_owned(), named("plain")),
                ("https://other.example/v2/".to_owned(), named("other")),
            ]
            .into(),
        );
        for (registry, expected) in [
            ("docker.io", "hub"),
            ("r:5000", "plain"),
            ("other.example", "other"),
            ("r", ""),
            ("example", ""),
        ] {
            assert_eq!(keys.credentials(registry).await.username, expected, "{registry}");
        }
    }
}
