//! A client of the Docker Engine API, over a unix socket or TCP.
//!
//! [`Client`] makes requests: `client.get("/containers/json").query("all", "1").send()`. The path
//! gets the API version before it. A finished exchange leaves its connection for the next one, so
//! that a command of several requests connects once. [`Request::hijack`] turns the connection
//! into the raw stream of `attach` and `exec`, whose two directions end separately.
//!
//! The client knows HTTP, versions and errors; what the JSON means is its caller's business.
#![warn(missing_docs)]

mod body;
mod endpoint;
mod error;
mod frames;
mod request;

pub use body::{Body, BodySender};
pub use endpoint::{Endpoint, EndpointError, Stream};
pub use error::ClientError;
pub use frames::{Channel, Frames};
pub use hyper::Method;
pub use request::{Client, Hijacked, Request, Response, encode_query};

/// The newest version of the API that this client speaks.
pub const API_VERSION: &str = "1.55";
/// The version to speak to an engine that does not say which it has.
pub const FALLBACK_API_VERSION: &str = "1.24";
