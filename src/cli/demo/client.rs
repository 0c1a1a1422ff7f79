//! The HTTP cycle as a user's program would do it: upload, post, poll, download.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

/// A client of one server.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
}

impl Api {
    /// `base` is the server's address with `/v1`.
    pub(super) fn new(base: String) -> Self {
        Self { client: Client::new(), base }
    }

    /// Uploads `file` below `collection` (`checkpoints` or `datasets`) under its own name.
    pub(super) async fn upload(&self, collection: &str, file: &Path) -> Result<()> {
        let name = file.file_name().context("a file name")?.to_string_lossy();
        let content = File::open(file).await.with_context(|| format!("cannot open {}", file.display()))?;
        let length = content.metadata().await?.len();
        let body = reqwest::Body::wrap_stream(ReaderStream::new(content));
        let request = self.client.put(self.url(&format!("{collection}/{name}"))).header("Content-Length", length);
        send(request.body(body)).await.map(drop)
    }

    /// Posts a job and returns its id.
    pub(super) async fn post_job(&self, job: &Value) -> Result<String> {
        let created: Value = json(self.client.post(self.url("jobs")).json(job)).await?;
        created["id"].as_str().map(str::to_owned).context("an `id` in the answer to POST /jobs")
    }

    /// Waits for the job's end, calling `on_change` with every state of it that is seen.
    pub(super) async fn wait(&self, id: &str, mut on_change: impl FnMut(&Value)) -> Result<Value> {
        loop {
            let job: Value = json(self.client.get(self.url(&format!("jobs/{id}"))).header("Prefer", "wait=1")).await?;
            on_change(&job);
            match job["state"].as_str() {
                Some("succeeded") => return Ok(job),
                Some("failed" | "cancelled") => bail!("the job ended as {}: {}", job["state"], job["error"]),
                _ => {}
            }
        }
    }

    /// A JSON resource below `/v1`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        json(self.client.get(self.url(path))).await
    }

    /// Downloads the fused model and checks it against the server's digest.
    pub(super) async fn download_model(&self, id: &str, to: &Path) -> Result<()> {
        let mut body = send(self.client.get(self.url(&format!("jobs/{id}/model")))).await?.bytes_stream();
        let mut file = File::create(to).await.with_context(|| format!("cannot write {}", to.display()))?;
        let mut digest = Sha256::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.context("the download was cut")?;
            digest.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        let line = send(self.client.get(self.url(&format!("jobs/{id}/model.sha256")))).await?.text().await?;
        let expected = line.split_whitespace().next().unwrap_or_default().to_owned();
        let got = hex::encode(digest.finalize());
        ensure!(got == expected, "the downloaded model has the digest {got}, the server says {expected}");
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    send(request).await?.json().await.context("the server's answer is not the expected JSON")
}

/// The answer, or the problem that the server names.
async fn send(request: RequestBuilder) -> Result<Response> {
    let response = request.send().await.context("the server does not answer")?;
    if response.status().is_success() {
        return Ok(response);
    }
    bail!("{} answered {}: {}", response.url().clone(), response.status(), response.text().await.unwrap_or_default())
}
