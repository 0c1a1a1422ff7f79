//! Programs that make requests, and whom they trust.

use std::error::Error;
use std::time::Duration;

use reqwest::Client;

use super::ClientError;

/// What it is called where requests are logged.
const AGENT: &str = concat!("engraft/", env!("CARGO_PKG_VERSION"));
/// A machine that is there takes a connection sooner.
const LONGEST_CONNECT: Duration = Duration::from_secs(30);

/// What makes requests to the service at `url`.
///
/// # Errors
/// Where the address is none, or it is of HTTPS and this machine trusts no authority.
pub(crate) fn http_client(url: &str) -> Result<Client, ClientError> {
    let parsed = reqwest::Url::parse(url)
        .map_err(|error| ClientError::Address { url: url.to_owned(), reason: error.to_string() })?;
    if !matches!(parsed.scheme(), "http" | "https") {
        let reason = "expected http:// or https://".to_owned();
        return Err(ClientError::Address { url: url.to_owned(), reason });
    }
    // The program has one provider of cryptography; whoever comes second finds it there.
    let _already = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let trusting = Client::builder().user_agent(AGENT).connect_timeout(LONGEST_CONNECT);
    // Only HTTPS needs to know whom to trust: a machine without certificates of authorities speaks plain HTTP all the same.
    let builder = if parsed.scheme() == "https" { trusting } else { trusting.tls_certs_only([]) };
    builder.build().map_err(|error| ClientError::Trust {
        url: url.to_owned(),
        reason: error.source().map_or_else(|| error.to_string(), ToString::to_string),
    })
}
