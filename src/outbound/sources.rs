//! Files elsewhere: from what a tenant writes to an answer with the file's bytes.

use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::actions::GetObject;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use url::Url;

use super::{Outbound, OutboundError};
use crate::domain::remote_file::RemoteFile;

/// Most redirects that are followed.
const REDIRECTS: usize = 10;
/// Time until the headers of an answer are there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a signed address of an object is good.
const SIGNED_FOR: Duration = Duration::from_hours(1);

/// Which services files come from.
#[derive(Debug, Clone)]
pub struct Services {
    /// The Hugging Face Hub.
    pub hub: Url,
    /// A service of buckets; that of AWS without one.
    pub s3: Option<Url>,
    /// The region of buckets.
    pub region: String,
    /// Buckets that are asked with the server's own credentials.
    pub buckets: Vec<String>,
    /// These credentials.
    pub credentials: Option<Credentials>,
}

impl Services {
    /// The services at these addresses, with the credentials and the region of the environment, as AWS's own clients read them.
    #[must_use]
    pub fn new(hub: Option<Url>, s3: Option<Url>, buckets: Vec<String>) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let credentials = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY")).map(|(id, secret)| {
            match variable("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(id, secret, token),
                None => Credentials::new(id, secret),
            }
        });
        Self {
            hub: hub.unwrap_or_else(public_hub),
            s3,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            buckets,
            credentials,
        }
    }

    /// Where a file is served; objects of buckets that are named are signed for.
    fn url(&self, file: &RemoteFile, region: &str) -> Result<Url, OutboundError> {
        let failed = |error: &dyn std::fmt::Display| OutboundError::Failed(error.to_string());
        match file {
            RemoteFile::Web(url) => Ok(url.clone()),
            RemoteFile::Hub(file) => file.url(&self.hub).map_err(|error| failed(&error)),
            RemoteFile::Object { bucket, key } => {
                let endpoint = match &self.s3 {
                    Some(endpoint) => endpoint.clone(),
                    None => {
                        Url::parse(&format!("https://s3.{region}.amazonaws.com")).map_err(|error| failed(&error))?
                    }
                };
                // A certificate names one level below the service: buckets with dots, and services of one's own, are asked by path.
                let style =
                    if self.s3.is_some() || bucket.contains('.') { UrlStyle::Path } else { UrlStyle::VirtualHost };
                let place =
                    Bucket::new(endpoint, style, bucket.clone(), region.to_owned()).map_err(|error| failed(&error))?;
                let credentials = self.credentials.as_ref().filter(|_| self.buckets.contains(bucket));
                Ok(GetObject::new(&place, credentials, key).sign(SIGNED_FOR))
            }
        }
    }
}

/// What is wanted of a file.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// The first byte; all are wanted where it is 0.
    pub start: u64,
    /// The version that bytes before `start` are of.
    pub etag: Option<&'a str>,
    /// What shows its host that its owner may have it.
    pub token: Option<&'a str>,
}

/// The file's answer, and what redirects on the way have said of it.
#[derive(Debug)]
pub struct Found {
    /// The answer of the last host.
    pub response: Response,
    /// The SHA-256 that the Hub says the file has, in hexadecimal.
    pub sha256: Option<String>,
}

/// Asks for a file, over redirects to other hosts that may be reached. The token goes to the host that was named, and to no other.
///
/// # Errors
/// Where a host may not be reached or does not answer, or leads astray.
pub async fn open(
    outbound: &Outbound,
    services: &Services,
    file: &RemoteFile,
    wanted: &Wanted<'_>,
) -> Result<Found, OutboundError> {
    let first = services.url(file, &services.region)?;
    let mut found = follow(outbound, first, wanted).await?;
    // A bucket in another region says in which.
    let other = found.response.headers().get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
    let other = other.filter(|region| *region != services.region && !found.response.status().is_success());
    if let (RemoteFile::Object { .. }, None, Some(region)) = (file, &services.s3, other.map(str::to_owned)) {
        found = follow(outbound, services.url(file, &region)?, wanted).await?;
    }
    Ok(found)
}

async fn follow(outbound: &Outbound, first: Url, wanted: &Wanted<'_>) -> Result<Found, OutboundError> {
    let (mut url, mut sha256) = (first.clone(), None);
    for _ in 0..=REDIRECTS {
        let mut request = outbound.request(Method::GET, &url)?.header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = wanted.token.filter(|_| url.origin() == first.origin()) {
            request = request.bearer_auth(token);
        }
        if let Some(etag) = wanted.etag.filter(|_| wanted.start > 0) {
            request = request.header(header::RANGE, format!("bytes={}-", wanted.start)).header(header::IF_RANGE, etag);
        }
        let response = tokio::time::timeout(PATIENCE, request.send()).await;
        let response = response.map_err(|_| OutboundError::Failed("there was no answer in time".to_owned()))?;
        let response = response.map_err(|error| Outbound::explain(&error))?;
        sha256 = sha256.or_else(|| linked_digest(response.headers()));
        let Some(location) = response.headers().get(header::LOCATION).filter(|_| is_redirect(response.status())) else {
            return Ok(Found { response, sha256 });
        };
        let astray = || OutboundError::Failed(format!("{} leads to no address", url.host_str().unwrap_or_default()));
        let next = url.join(location.to_str().map_err(|_| astray())?).map_err(|_| astray())?;
        if !matches!(next.scheme(), "http" | "https") || (url.scheme(), next.scheme()) == ("https", "http") {
            return Err(astray());
        }
        url = next;
    }
    Err(OutboundError::Failed(format!("it leads from one address to the next, more than {REDIRECTS} times")))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The SHA-256 of a large file of the Hub, which its redirects carry.
fn linked_digest(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag")?.to_str().ok()?.trim_matches('"');
    let is_digest = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    is_digest.then(|| tag.to_owned())
}

fn public_hub() -> Url {
    match Url::parse("https://huggingface.co") {
        Ok(url) => url,
        Err(error) => unreachable!("the address of the public Hub: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(s3: Option<&str>) -> Services {
        Services {
            hub: public_hub(),
            s3: s3.map(|url| Url::parse(url).expect("an address")),
            region: "eu-central-1".to_owned(),
            buckets: vec!["ours".to_owned()],
            credentials: Some(Credentials::new("AKID", "secret")),
        }
    }

    fn url(services: &Services, file: &str) -> Url {
        let file = file.parse().expect("a file");
        services.url(&file, &services.region).expect("an address")
    }

    #[test]
    fn the_servers_credentials_sign_for_buckets_that_are_named_and_for_no_others() {
        let aws = services(None);
        let ours = url(&aws, "s3://ours/a/m.pt");
        assert_eq!(ours.host_str(), Some("ours.s3.eu-central-1.amazonaws.com"));
        assert!(ours.query().is_some_and(|query| query.contains("X-Amz-Credential=AKID%2F")), "{ours}");
        assert_eq!(url(&aws, "s3://theirs/m.pt").as_str(), "https://theirs.s3.eu-central-1.amazonaws.com/m.pt");
        assert_eq!(url(&aws, "s3://the.irs/m.pt").as_str(), "https://s3.eu-central-1.amazonaws.com/the.irs/m.pt");
        let own = services(Some("http://10.1.1.1:9000"));
        assert_eq!(url(&own, "s3://theirs/m.pt").as_str(), "http://10.1.1.1:9000/theirs/m.pt");
    }

    #[test]
    fn the_hub_says_which_digest_a_large_file_has() {
        let headers = |value: &str| {
            HeaderMap::from_iter([(header::HeaderName::from_static("x-linked-etag"), value.parse().expect("a header"))])
        };
        let digest = "0123456789abcdef".repeat(4);
        assert_eq!(linked_digest(&headers(&format!("\"{digest}\""))), Some(digest));
        assert_eq!(linked_digest(&headers("\"a5f3\"")), None, "a small file has another kind of tag");
        assert_eq!(linked_digest(&HeaderMap::new()), None);
    }
}
