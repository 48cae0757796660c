//! Registries, asked by the command line itself: what needs no engine works without one.

use std::path::PathBuf;
use std::sync::Arc;

use silo_oci::reference::Reference;
use silo_registry::{Config, Registries};

use crate::credentials::{self, Credentials, Store};
use crate::env;
use crate::failure::{Failure, Outcome};

/// Where certificates of registries are, as for the engine.
const CERTIFICATES: [&str; 2] = ["/etc/silo/certs.d", "/etc/docker/certs.d"];

/// Registries, of which those that `insecure` names may be without a good certificate, or TLS.
pub(crate) fn registries(insecure: Vec<String>) -> Arc<Registries> {
    Arc::new(Registries::new(Config {
        insecure,
        certificates: CERTIFICATES.map(PathBuf::from).to_vec(),
        proxies: silo_http::Proxies::from_variables(env::get),
        ..Config::default()
    }))
}

/// Credentials in the form of the registry's client.
pub(crate) fn of(found: &Credentials, server: &str) -> silo_registry::Credentials {
    silo_registry::Credentials {
        username: found.username.clone(),
        password: found.password.clone(),
        identity_token: found.identity_token.clone(),
        server_address: server.to_owned(),
        ..silo_registry::Credentials::default()
    }
}

/// What is known of the user on a registry.
pub(crate) fn credentials_for(
    config: &crate::config::Config,
    reference: &Reference,
) -> Outcome<silo_registry::Credentials> {
    let key = credentials::key(reference.domain());
    let found = Store::open(config.directory())?.get(key)?;
    Ok(found.map(|found| of(&found, key)).unwrap_or_default())
}

/// The failure of a request, with all its causes.
pub(crate) fn failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(silo_types::error::chain(error))
}
