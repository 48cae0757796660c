//! What only the client has: secrets and SSH agents.

use std::fmt;

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

/// No secrets and no agents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Secrets for Nothing {
    fn secret<'a>(&'a self, _id: &'a str) -> Boxed<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async { Ok(None) })
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
