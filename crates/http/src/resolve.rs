//! Names to addresses.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hickory_resolver::TokioResolver;
use hyper::Uri;
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

/// Why some addresses are refused.
const REFUSED: &str = "link-local addresses are for this host alone";

/// Asks `/etc/hosts` and the host's name servers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resolver {
    /// Link-local addresses are refused.
    pub(crate) guarded: bool,
}

/// Whether an address is of the link, where clouds tell a host its secrets.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        // The second is Amazon's.
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

/// The address that a URL has in the place of a name.
pub(crate) fn literal(url: &Uri) -> Option<IpAddr> {
    url.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Why a URL with an address in it is refused.
pub(crate) fn refusal(url: &Uri) -> Option<LookupError> {
    let address = literal(url).filter(|address| is_link_local(*address))?;
    Some(LookupError { host: address.to_string(), reason: REFUSED.to_owned(), absent: true })
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(lookup(name.as_str().to_owned(), self.guarded))
    }
}

async fn lookup(
    host: String,
    guarded: bool,
) -> Result<std::vec::IntoIter<SocketAddr>, LookupError> {
    let failed = |reason: String, absent: bool| LookupError { host: host.clone(), reason, absent };
    let resolver = TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(|error| failed(error.to_string(), false))?;
    match resolver.lookup_ip(host.as_str()).await {
        Ok(found) => {
            let addresses: Vec<SocketAddr> = found
                .iter()
                .filter(|address| !guarded || !is_link_local(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if addresses.is_empty() {
                return Err(failed(REFUSED.to_owned(), true));
            }
            Ok(addresses.into_iter())
        }
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
            Err(failed("no such host".to_owned(), true))
        }
        Err(error) => Err(failed(error.to_string(), false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link() {
        for (url, refused) in [
            ("http://169.254.169.254/latest/", true),
            ("http://[fe80::1]:80/", true),
            ("http://[::ffff:169.254.169.254]/", true),
            ("http://[fd00:ec2::254]/", true),
            ("http://192.168.1.1/", false),
            ("http://[2001:db8::1]/", false),
            ("http://169.254.example/", false),
        ] {
            assert_eq!(refusal(&url.parse().unwrap()).is_some(), refused, "{url}");
        }
    }
}
