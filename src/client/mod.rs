//! A server of engraft, seen by a program that uses it: requests that are repeated while that may help, uploads and downloads that go on
//! where they were cut.

mod connection;
mod download;
mod error;
mod files;
mod retry;
mod upload;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

pub(crate) use connection::http_client;
pub use error::ClientError;
pub(crate) use error::last_reason;
pub(crate) use files::{hashed, send_part};
pub(crate) use retry::{Pauses, after};
pub use upload::{Collection, Uploaded};

use self::error::is_passing;

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    http: Client,
    base: String,
    key: Option<String>,
    /// Gets a line for a person where a request is not answered.
    say: fn(&str),
}

impl Server {
    /// The server at `url`, `http://HOST:PORT` with or without `/v1`, with the API key that it asks for.
    ///
    /// # Errors
    /// Where the address is none, or it is of HTTPS and this machine trusts no authority.
    pub fn new(url: &str, key: Option<String>) -> Result<Self, ClientError> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http = http_client(&base)?;
        Ok(Self { http, base, key, say: |_| () })
    }

    /// The same, with somebody who is told when it cannot be reached and is tried again.
    #[must_use]
    pub fn with_notices(self, say: fn(&str)) -> Self {
        Self { say, ..self }
    }

    /// A resource below `/v1`.
    ///
    /// # Errors
    /// The server's refusal, or that it cannot be reached.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        json(self.send(|| self.request(Method::GET, path)).await?).await
    }

    /// A page of a list below `/v1`.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn list(&self, path: &str, query: impl Iterator<Item = (String, String)>) -> Result<Value, ClientError> {
        let query: Vec<(String, String)> = query.collect();
        json(self.send(|| self.request(Method::GET, path).query(&query)).await?).await
    }

    /// The same once there is news of it, or after a minute.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn get_later(&self, path: &str, seconds: u32) -> Result<Value, ClientError> {
        let prefer = format!("wait={seconds}");
        json(self.send(|| self.request(Method::GET, path).header("Prefer", &prefer)).await?).await
    }

    /// Posts a body below `/v1`, once however often it has to be sent.
    ///
    /// # Errors
    /// The server's refusal, or that it cannot be reached.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        let key = uuid::Uuid::now_v7().to_string();
        let request = || self.request(Method::POST, path).header("Idempotency-Key", &key).json(body);
        json(self.send(request).await?).await
    }

    /// Deletes what is below `/v1`.
    ///
    /// # Errors
    /// The server's refusal, or that it cannot be reached.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(|| self.request(Method::DELETE, path)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/v1/{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The answer to a request, which is made again while the server is away or busy.
    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, ClientError> {
        let mut pauses = Pauses::default();
        loop {
            let answer = request().send().await;
            let (error, least) = match answer {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let (passing, least) = (is_passing(response.status()), retry::after(&response));
                    let refusal = ClientError::refused(response).await;
                    if !passing {
                        return Err(refusal);
                    }
                    (refusal, least)
                }
                Err(error) => (ClientError::unreachable(&self.base, &error), None),
            };
            self.pause(&mut pauses, error, least).await?;
        }
    }
}

impl Server {
    /// Waits before the next try, and says why where the one before was in vain too.
    async fn pause(&self, pauses: &mut Pauses, error: ClientError, least: Option<Duration>) -> Result<(), ClientError> {
        if let (true, ClientError::Unreachable { url, reason }) = (pauses.are_in_vain(), &error) {
            (self.say)(&format!("cannot reach {url} ({reason}); trying again for {} s", Pauses::all().as_secs()));
        }
        pauses.wait(error, least).await
    }
}

async fn json(response: Response) -> Result<Value, ClientError> {
    let url = response.url().clone();
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    response.json().await.map_err(|error| ClientError::Unexpected(format!("{url} sent no JSON: {error}")))
}

/// The SHA-256 of a file that an answer is about, in hexadecimal: its `ETag`.
fn digest(response: &Response) -> Option<String> {
    let tag = response.headers().get(header::ETAG)?.to_str().ok()?;
    Some(tag.trim_matches('"').to_owned()).filter(|digest| digest.len() == 64)
}
