//! An HTTP/1.1 client for what the engine fetches and talks to: archives to import, and whatever
//! else lives behind a URL.
//!
//! # Contract
//!
//! * [`Client::send`] makes one exchange, [`Client::get`] follows redirects and turns statuses from
//!   400 up into errors, as dockerd's own downloads do. Connections are kept and used again.
//! * TLS is rustls with the host's certificate authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR`
//!   override them), read when the client first needs them; [`Options::extra_roots`] adds others,
//!   and [`Options::identity`] is who the client is to servers that ask.
//! * Names are resolved by `/etc/hosts` and the name servers of `/etc/resolv.conf`, without the C
//!   library, whose resolver a static program cannot use. Both files are read anew each time.
//! * [`Proxies`] has the meaning of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; the environment
//!   itself is the caller's to read. What is on this host is never asked for through a proxy.
//! * Everything has an end: connecting, the answer's head, and silence within a body
//!   ([`Options`]). The length of a body has none, since only who stores it knows what fits.
//! * Other servers are not trusted: heads, bodies of errors and redirects are bounded
//!   ([`MAX_ERROR_BODY`], [`MAX_REDIRECTS`]), and a redirect leads nowhere but to `http` and
//!   `https`.
//!
//! Messages have the words of Go's `net/http`, which Docker's users know.
#![warn(missing_docs)]

mod client;
mod connect;
mod download;
mod error;
mod proxy;
mod resolve;
mod tls;

pub use client::{
    Body, Client, MAX_ERROR_BODY, MAX_REDIRECTS, Options, empty, full, join, parse_url, redirect,
};
pub use download::{Download, Reader};
pub use error::{Cause, Error};
pub use proxy::Proxies;
pub use tls::{Identity, certificates};

pub use hyper::body::{Frame, Incoming};
pub use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
