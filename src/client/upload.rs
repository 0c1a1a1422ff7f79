//! Uploads that go on where they were cut.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::error::is_passing;
use super::files::{hashed, send_part};
use super::retry::Pauses;
use super::{ClientError, Server, digest, json, retry};
use crate::domain::problem::Code;

/// The first part of a file, which is small: what the server does not take it refuses by then.
const FIRST_PART: u64 = 1 << 18;

/// What a file becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    /// A member.
    Checkpoints,
    /// Data to train and to measure with.
    Datasets,
}

impl Collection {
    /// Its place below `/v1`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Datasets => "datasets",
        }
    }
}

/// What came of an upload.
#[derive(Debug, PartialEq)]
pub enum Uploaded {
    /// The file arrived; what the server says of it.
    New(Value),
    /// The server has it under this name already.
    Known,
}

/// What a server has under a name.
enum Arrived {
    /// So many bytes of an upload.
    Part(u64),
    /// A file with this SHA-256.
    All(String),
}

/// A file that is being uploaded.
struct Upload<'a> {
    server: &'a Server,
    file: &'a Path,
    path: String,
    bytes: u64,
    sha256: [u8; 32],
}

impl Server {
    /// Uploads `file` under `name`; `advance` gets the bytes that have been sent so far.
    ///
    /// # Errors
    /// The server's refusal, that the name belongs to another file, or that nothing has come through for long.
    pub async fn upload(
        &self,
        collection: Collection,
        file: &Path,
        name: &str,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Uploaded, ClientError> {
        let (bytes, sha256) = hashed(file).await.map_err(ClientError::file(file))?;
        let upload = Upload { server: self, file, path: format!("{}/{name}", collection.path()), bytes, sha256 };
        let (mut pauses, mut furthest) = (Pauses::default(), 0);
        loop {
            let offset = match upload.arrived().await? {
                Arrived::Part(offset) => offset,
                Arrived::All(digest) if digest == hex::encode(sha256) => return Ok(Uploaded::Known),
                Arrived::All(_) => return Err(ClientError::NameTaken(name.to_owned())),
            };
            if offset > furthest {
                (furthest, pauses) = (offset, Pauses::default());
            }
            advance(offset);
            match upload.put(offset, advance).await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => pauses.reset(),
                Ok(response) => return json(response).await.map(Uploaded::New),
                Err(error) if is_worth_another(&error) => self.pause(&mut pauses, error, None).await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether an upload goes on behind this error: its connection was cut, or an earlier request still holds it.
fn is_worth_another(error: &ClientError) -> bool {
    let holds = |code| matches!(code, Code::UploadInProgress | Code::UploadOffsetMismatch);
    error.is_passing() || matches!(error, ClientError::Refused { problem, .. } if holds(problem.code))
}

impl Upload<'_> {
    /// What the server has under the name.
    async fn arrived(&self) -> Result<Arrived, ClientError> {
        let answer = self.head().await?;
        let offset = || answer.headers().get("upload-offset")?.to_str().ok()?.parse().ok();
        Ok(match answer.status() {
            StatusCode::OK => Arrived::All(digest(&answer).unwrap_or_default()),
            StatusCode::NO_CONTENT => Arrived::Part(offset().unwrap_or(0)),
            _ => Arrived::Part(0),
        })
    }

    /// The answer to HEAD, which has no body; that there is nothing is an answer too.
    async fn head(&self) -> Result<Response, ClientError> {
        let mut pauses = Pauses::default();
        loop {
            match self.server.request(Method::HEAD, &self.path).send().await {
                Ok(answer) if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let (status, asked) = (answer.status(), retry::after(&answer));
                    if !is_passing(status) {
                        // Only an answer with a body says why.
                        self.server.get(&self.path).await?;
                        return Err(ClientError::Unexpected(format!("the server answered HEAD with {status}")));
                    }
                    pauses.wait(ClientError::Unexpected(format!("the server answers {status}")), asked).await?;
                }
                Err(error) => {
                    let error = ClientError::unreachable(&self.server.base, &error);
                    self.server.pause(&mut pauses, error, None).await?;
                }
            }
        }
    }

    /// Sends the file from `offset` on, at first only a part of it.
    async fn put(&self, offset: u64, advance: &(dyn Fn(u64) + Sync)) -> Result<Response, ClientError> {
        let end = if offset == 0 { self.bytes.min(FIRST_PART) } else { self.bytes };
        let digest = format!("sha-256=:{}:", STANDARD.encode(self.sha256));
        let mut request = self.server.request(Method::PUT, &self.path).header("Repr-Digest", digest);
        request = request.header("Content-Type", "application/octet-stream");
        if self.bytes > 0 && (offset > 0 || end < self.bytes) {
            request = request.header("Content-Range", format!("bytes {offset}-{}/{}", end - 1, self.bytes));
        }
        let answer = send_part(request, self.file, offset..end, advance).await.map_err(ClientError::file(self.file))?;
        let answer = answer.map_err(|error| ClientError::unreachable(&self.server.base, &error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(ClientError::refused(answer).await) }
    }
}
