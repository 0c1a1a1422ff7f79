//! An HTTP client that reaches no address that it may not.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, RequestBuilder, redirect};
use url::{Host, Url};

use super::Networks;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// Sends requests where they may go; clones share connections.
#[derive(Debug, Clone)]
pub struct Outbound(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    networks: Networks,
    /// Made when it is first needed: reading the machine's certificates takes longer than starting the server.
    client: OnceLock<Client>,
}

/// Why a request was not sent, or not answered.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The address is none that tenants may have the server reach.
    #[error(
        "the server may not reach {host}: its address is none of the public internet, and --allow-address does not name it"
    )]
    Forbidden {
        /// The name or the address.
        host: String,
    },
    /// Nobody could be reached, or nobody answered.
    #[error("{0}")]
    Failed(String),
}

/// A name all of whose addresses may not be reached.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` leads to no address that may be reached")]
struct ForbiddenName(String);

impl Outbound {
    /// For public addresses and those of `networks`. It asks no proxy, which would choose addresses itself, and follows no redirect.
    #[must_use]
    pub fn new(networks: Networks) -> Self {
        Self(Arc::new(Shared { networks, client: OnceLock::new() }))
    }

    /// A request to an address.
    ///
    /// # Errors
    /// Where the address may not be reached. Names are looked up, and their addresses checked, when the request is sent.
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, OutboundError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if let Some(address) = address
            && !self.0.networks.allow(address)
        {
            return Err(OutboundError::Forbidden { host: address.to_string() });
        }
        Ok(self.client()?.request(method, url.clone()))
    }

    /// What went wrong with a request that was sent.
    #[must_use]
    pub fn explain(error: &reqwest::Error) -> OutboundError {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        let mut last = error.to_string();
        while let Some(error) = cause {
            if let Some(ForbiddenName(host)) = error.downcast_ref() {
                return OutboundError::Forbidden { host: host.clone() };
            }
            last = error.to_string();
            cause = error.source();
        }
        OutboundError::Failed(if error.is_timeout() { "there was no answer in time".to_owned() } else { last })
    }

    fn client(&self) -> Result<&Client, OutboundError> {
        if let Some(client) = self.0.client.get() {
            return Ok(client);
        }
        // The program has one provider of cryptography; whoever comes second finds it there.
        let _already = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT)
                .user_agent(concat!("engraft/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Checked(self.0.clone()))
        };
        let client = builder().build().or_else(|error| {
            tracing::warn!(%error, "this machine trusts no authority of certificates: no HTTPS address can be reached");
            builder().tls_certs_only([]).build()
        });
        let client = client.map_err(|error| OutboundError::Failed(error.to_string()))?;
        Ok(self.0.client.get_or_init(|| client))
    }
}

/// Looks names up and leaves out addresses that may not be reached.
struct Checked(Arc<Shared>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let shared = self.0.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|address| shared.networks.allow(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(ForbiddenName(name.to_owned()).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}
