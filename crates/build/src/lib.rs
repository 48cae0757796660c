//! The builder: a Dockerfile and a context into an image.
//!
//! [`Builder::build`] takes a [`BuildRequest`] and tells [`Progress`] what it does. It knows no
//! wire format: the classic `POST /build` and BuildKit's services are faces of it.
#![warn(missing_docs)]

mod adopt;
mod archive_form;
mod attest;
mod builder;
mod cache;
mod check;
pub mod context;
mod copy;
mod export;
mod fetch;
mod files;
mod gc;
mod git_ref;
mod image;
mod job;
mod layout;
mod mounts;
mod outcome;
mod plan;
pub mod progress;
mod prune;
mod push;
mod request;
mod run;
mod scratch;
pub mod secret;
mod stage;
mod stages;
mod state;
mod tarball;
mod transfer;

use std::pin::Pin;

pub use archive_form::ArchiveForm;
pub use attest::export::AttachOptions;
pub use attest::{Attest, Provenance, Said, Sbom, Slsa};
pub use builder::{Builder, CacheRecord, Kept, PruneOptions, Pruned};
pub use context::{Context, ContextRef};
pub use outcome::{BuildError, Outcome};
pub use progress::{Event, Progress};
pub use push::PushTo;
pub use request::{BuildRequest, DockerfileSource, Limits};
pub use tarball::TarContext;
pub use transfer::{
    BlobSink, BlobSource, CacheForm, CacheImport, CacheSummary, WholeCache, WriteBlob,
};

/// A future of a trait's method.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
