//! What servers' certificates are checked against.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::Error;
use crate::client::Options;

/// rustls with the host's certificate authorities and those of `options`.
pub(crate) fn config(options: &Options) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "read certificate authorities of the host");
    }
    let (good, bad) = roots.add_parsable_certificates(native.certs);
    tracing::debug!(good, bad, "certificate authorities of the host");
    for root in &options.extra_roots {
        roots.add(root.clone().into()).map_err(|error| Error::Certificate(Box::new(error)))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Certificate(Box::new(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
