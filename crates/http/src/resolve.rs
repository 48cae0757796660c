//! Names to addresses.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// A name could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("lookup {host}: {reason}")]
pub(crate) struct LookupError {
    host: String,
    reason: String,
    /// The name servers answered that there is no such host, or could not be asked at all.
    pub(crate) absent: bool,
}

/// Asks `/etc/hosts` and the host's name servers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(lookup(name.as_str().to_owned()))
    }
}

async fn lookup(host: String) -> Result<std::vec::IntoIter<SocketAddr>, LookupError> {
    let failed = |reason: String, absent: bool| LookupError { host: host.clone(), reason, absent };
    let resolver = TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(|error| failed(error.to_string(), false))?;
    match resolver.lookup_ip(host.as_str()).await {
        Ok(found) => {
            let addresses: Vec<SocketAddr> =
                found.iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        }
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
            Err(failed("no such host".to_owned(), true))
        }
        Err(error) => Err(failed(error.to_string(), false)),
    }
}
