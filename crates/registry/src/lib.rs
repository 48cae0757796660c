//! A client of image registries: pull and push.
//!
//! # Contract
//!
//! * [`Registries::repository`] gives a [`Repository`]: one repository, on the servers that
//!   [`Config`] names for it (mirrors first), with the [`Credentials`] of one request.
//! * A [`Puller`] moves an image from a repository into the store, [`push`] the other way. Both tell
//!   how they go as Docker does, by [`StreamMessage`](silo_docker::stream::StreamMessage)s.
//! * [`copy()`] moves images between registries, layouts and archives, without the store.
//! * Nothing here reads the environment, and nothing is written but to the store, or where
//!   [`copy()`] is told to. Dropping a
//!   future ends its work; what came in part stays in the store for the next try.
//!
//! * What a pull keeps in memory is bounded, whatever comes: [`Ranges::ahead`] bytes of what came
//!   before its turn, for all blobs together; half a megabyte for each of the [`MAX_AT_ONCE`]
//!   layers that wait for the disk; and what the store needs to unpack those.
//! * Layers for which others stand in ([`Bases`]) are not fetched. A push names them as their
//!   own manifest did; where the target has not got them, they come from where the image did.
//!
//! # On the wire
//!
//! The OCI distribution specification 1.1 and what Docker's registry had before it, over
//! HTTP/1.1:
//!
//! ```text
//! GET|HEAD|PUT /v2/<name>/manifests/<tag or digest>
//! GET|HEAD     /v2/<name>/blobs/<digest>                Range, redirects to other hosts; a big
//!                                                       one by several connections ([`Ranges`])
//! POST         /v2/<name>/blobs/uploads/[?mount=<digest>&from=<name>]
//! PUT          <location>?digest=<digest>               the whole blob in one body
//! GET, DELETE  <location>                               how much is there; it will not go on
//! PATCH, PUT   <location>                               a blob whose digest is not known yet,
//!                                                       and the rest of one that broke off
//! GET          /v2/<name>/tags/list, /v2/<name>/referrers/<digest>
//! GET          /v1/search
//! ```
//!
//! Access is by `WWW-Authenticate`: nothing, `Basic`, or `Bearer` tokens of a token server
//! (Docker's token specification, with refresh tokens by OAuth 2).
//!
//! # What servers may do
//!
//! They are not trusted. Blobs and manifests are what their digests say or are refused; documents,
//! tokens, lists and messages are bounded ([`MAX_MANIFEST`], [`MAX_TOKEN`], [`MAX_LIST`]); a
//! document that could be read both as a manifest and as an index is refused (CVE-2021-41190).
//! Credentials go to the server that they are for and to the token server that it names, by TLS
//! unless the registry itself is one without; to no other host, whether a redirect or a layer's
//! `urls` lead there (CVE-2020-15157).
//! None of these leads to this host itself, unless the registry is on it, or to a link-local address.
//!
//! What may succeed a little later is tried again ([`Retry`]): broken connections, statuses 408,
//! 429, 500, 502, 503 and 504, with the time that `Retry-After` asks for. A broken download goes
//! on where it was, as does a broken upload, of which the server says how much it has; where an
//! upload is, [`Known`] remembers for the next push. A server is believed until the digest of the
//! whole is refused: then all of it goes there again.
//!
//! # TLS
//!
//! The host's certificate authorities and those in [`Config::certificates`]:
//! `<directory>/<host:port>/*.crt` are authorities, `*.cert` with `*.key` are the client's own.
//! A `hosts.toml` there says which servers a registry has, as for containerd.
//!
//! Registries on loopback addresses, and those that [`Config::insecure`] names, are asked by TLS
//! with any certificate, then without TLS; others never.
#![warn(missing_docs)]

mod answer;
mod attest;
mod auth;
mod bases;
mod blob;
mod challenge;
mod config;
mod copy;
mod credentials;
mod endpoint;
mod error;
mod feed;
mod hosts;
mod link;
mod manifest;
#[cfg(test)]
mod mutations;
mod platform;
mod problem;
mod progress;
mod pull;
mod push;
mod push_index;
mod ranges;
mod repository;
mod resume;
mod retry;
mod search;
mod session;
mod token;
mod types;
mod upload;

pub use attest::push_attached;
pub use bases::{Base, Bases, Candidate};
pub use blob::BlobStream;
pub use config::{Config, Ranges, Registries, Retry};
pub use copy::{Copied, CopyError, CopyOptions, Location, Source, Target, copy};
pub use credentials::Credentials;
pub use error::Error;
pub use manifest::{MAX_LIST, MAX_MANIFEST, Resolved};
pub use platform::{choose, list as platforms};
pub use progress::Progress;
pub use pull::{MAX_AT_ONCE, Pulled, Puller, Pulling};
pub use push::{Known, Place, PushOptions, Pushed, push};
pub use push_index::{missing, push_index};
pub use repository::{Action, Repository};
pub use token::MAX_TOKEN;
pub use types::{change as change_types, layer_type, same_type};
