//! Names to addresses.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hickory_resolver::TokioResolver;
use hyper::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower_service::Service;

/// A name could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("lookup {host}: {reason}")]
pub(crate) struct LookupError {
    host: String,
    reason: String,
    /// The name servers answered that there is no such host, or could not be asked at all.
    pub(crate) absent: bool,
    /// It has addresses, but none to which connections are made.
    pub(crate) outside: bool,
}

/// Why some addresses are refused.
const REFUSED: &str = "link-local addresses are for this host alone";

const OUTSIDE: &str = "no address of the networks in question";

/// Asks `/etc/hosts` and the host's name servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    /// Link-local addresses are refused.
    pub(crate) guarded: bool,
    /// Others than those of these networks are refused, if there are any.
    pub(crate) only: Arc<[IpNet]>,
}

impl Resolver {
    fn may(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.only.is_empty() || self.only.iter().any(|network| network.contains(&address))
    }

    /// Why a URL is refused that has an address in it, or that a proxy would ask for.
    pub(crate) fn refusal(&self, url: &Uri, proxied: bool) -> Option<LookupError> {
        let address = literal(url);
        if self.guarded && address.is_some_and(is_link_local) {
            return Some(refused(url, REFUSED));
        }
        let outside =
            address.map_or(proxied && !self.only.is_empty(), |address| !self.may(address));
        outside.then(|| LookupError { outside: true, ..refused(url, OUTSIDE) })
    }
}

fn refused(url: &Uri, reason: &str) -> LookupError {
    let host = url.host().unwrap_or_default().to_owned();
    LookupError { host, reason: reason.to_owned(), absent: true, outside: false }
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

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(lookup(name.as_str().to_owned(), self.clone()))
    }
}

async fn lookup(
    host: String,
    allowed: Resolver,
) -> Result<std::vec::IntoIter<SocketAddr>, LookupError> {
    let failed = |reason: String, absent: bool| LookupError {
        host: host.clone(),
        reason,
        absent,
        outside: false,
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(|error| failed(error.to_string(), false))?;
    match resolver.lookup_ip(host.as_str()).await {
        Ok(found) => {
            let addresses: Vec<SocketAddr> = found
                .iter()
                .filter(|address| !allowed.guarded || !is_link_local(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if addresses.is_empty() {
                return Err(failed(REFUSED.to_owned(), true));
            }
            let inside: Vec<SocketAddr> =
                addresses.into_iter().filter(|address| allowed.may(address.ip())).collect();
            if inside.is_empty() {
                return Err(LookupError { outside: true, ..failed(OUTSIDE.to_owned(), true) });
            }
            Ok(inside.into_iter())
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
            let guarded = Resolver { guarded: true, ..Resolver::default() };
            assert_eq!(guarded.refusal(&url.parse().unwrap(), false).is_some(), refused, "{url}");
            let free = Resolver::default();
            assert!(free.refusal(&url.parse().unwrap(), true).is_none(), "{url}");
        }
    }

    #[tokio::test]
    async fn addresses_of_some_networks() {
        let near = |networks: &[&str]| {
            let only = networks.iter().map(|network| network.parse().unwrap()).collect();
            Resolver { guarded: false, only }
        };
        for (url, proxied, refused) in [
            ("http://10.1.2.3/", false, false),
            ("http://[::ffff:10.1.2.3]/", false, false),
            ("http://11.1.2.3/", false, true),
            ("http://a.example/", false, false),
            ("http://a.example/", true, true),
        ] {
            let found = near(&["10.0.0.0/8"]).refusal(&url.parse().unwrap(), proxied);
            assert_eq!(found.is_some_and(|error| error.outside), refused, "{url}");
        }
        let all = near(&["127.0.0.0/8", "::1/128"]);
        assert!(lookup("a.localhost".into(), all).await.unwrap().count() > 0);
        let error = lookup("a.localhost".into(), near(&["10.0.0.0/8"])).await.unwrap_err();
        assert!(error.outside);
    }
}
