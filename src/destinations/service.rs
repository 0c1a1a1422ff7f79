//! A service that takes requests over HTTP: repeated while that may help, with what it knows its users by.

use std::ops::Range;
use std::path::Path;

use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::error::shown;
use super::{DestinationError, Refusal};
use crate::client::{ClientError, Pauses, after, http_client, last_reason, send_part};

/// What a service knows its users by.
#[derive(Clone)]
pub(super) enum Credentials {
    Nobody,
    Token(String),
    Password { user: String, password: String },
}

impl std::fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Token(_) => "Token",
            Self::Password { .. } => "Password",
        })
    }
}

/// A service at an address.
#[derive(Debug, Clone)]
pub(super) struct Service {
    name: &'static str,
    http: Client,
    base: Url,
    credentials: Credentials,
}

impl Service {
    /// The service `name` at `base`.
    pub(super) fn new(name: &'static str, base: &str, credentials: Credentials) -> Result<Self, DestinationError> {
        let http = http_client(base)?;
        let base = Url::parse(base).map_err(|error| {
            let (url, reason) = (base.to_owned(), error.to_string());
            DestinationError::Address(ClientError::Address { url, reason })
        })?;
        Ok(Self { name, http, base, credentials })
    }

    /// The address of what these parts of a path lead to, below the service's own.
    pub(super) fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    /// A request to it, from its user.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.credentials {
            Credentials::Nobody => request,
            Credentials::Token(token) => request.bearer_auth(token),
            Credentials::Password { user, password } => request.basic_auth(user, Some(password)),
        }
    }

    /// A request to a place that it has named, which learns who the user is only where it is the service itself.
    pub(super) fn request_elsewhere(&self, method: Method, url: Url) -> RequestBuilder {
        if url.origin() == self.base.origin() { self.request(method, url) } else { self.http.request(method, url) }
    }

    /// A request whose address alone says that it is allowed.
    pub(super) fn signed(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// The answer to a request, which is made again while the service is away or busy.
    pub(super) async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, DestinationError> {
        self.repeated(async || Ok(request().send().await)).await
    }

    /// The same with a part of a file as the body; `advance` gets the place in the file up to which it is on its way.
    pub(super) async fn send_file(
        &self,
        request: impl Fn() -> RequestBuilder,
        file: &Path,
        part: Range<u64>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Response, DestinationError> {
        let send =
            async || send_part(request(), file, part.clone(), advance).await.map_err(DestinationError::file(file));
        self.repeated(send).await
    }

    /// The answer to a request that is made once: what came of it has to be looked up before it is made again.
    pub(super) async fn send_once(&self, request: RequestBuilder) -> Result<Response, DestinationError> {
        self.judged(request.send().await).await
    }

    async fn repeated(
        &self,
        attempt: impl AsyncFn() -> Result<reqwest::Result<Response>, DestinationError>,
    ) -> Result<Response, DestinationError> {
        let mut pauses = Pauses::default();
        loop {
            let answer = attempt().await?;
            let asked = answer.as_ref().ok().and_then(after);
            match self.judged(answer).await {
                Err(error) if error.is_passing() => pauses.wait(error, asked).await?,
                answer => return answer,
            }
        }
    }

    async fn judged(&self, answer: reqwest::Result<Response>) -> Result<Response, DestinationError> {
        match answer {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(DestinationError::Refused {
                service: self.name,
                refusal: Box::new(Refusal::of(response).await),
                advice: super::error::Advice::default(),
            }),
            // A header that is none, such as a token of two lines.
            Err(error) if error.is_builder() => Err(self.unexpected(format!("no request: {}", last_reason(&error)))),
            Err(error) => Err(DestinationError::Unreachable {
                service: self.name,
                url: shown(error.url().unwrap_or(&self.base)),
                reason: last_reason(&error),
            }),
        }
    }

    /// What an answer holds.
    pub(super) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, DestinationError> {
        let url = shown(response.url());
        response.json().await.map_err(|error| {
            let reason = last_reason(&error);
            self.unexpected(format!("{url} answered in a way that is not known: {reason}"))
        })
    }

    /// An address that the service has named.
    pub(super) fn parsed(&self, url: &str) -> Result<Url, DestinationError> {
        Url::parse(url).map_err(|error| self.unexpected(format!("it named the address `{url}`: {error}")))
    }

    pub(super) fn unexpected(&self, what: String) -> DestinationError {
        DestinationError::Unexpected { service: self.name, what }
    }
}
