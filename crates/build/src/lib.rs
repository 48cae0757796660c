//! The builder: a Dockerfile and a context into an image.
//!
//! [`Builder::build`] takes a [`BuildRequest`] and tells [`Progress`] what it does. It knows no
//! wire format: the classic `POST /build` and BuildKit's services are faces of it.
#![warn(missing_docs)]

mod builder;
pub mod context;
mod outcome;
pub mod progress;
mod request;
pub mod secret;

use std::pin::Pin;

pub use builder::{Builder, CacheRecord, PruneOptions, Pruned};
pub use context::{Context, ContextRef};
pub use outcome::{BuildError, Outcome};
pub use progress::{Event, Progress};
pub use request::{BuildRequest, DockerfileSource, Limits};

/// A future of a trait's method.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
