//! Downloads that go on where they were cut.

use std::path::Path;

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::retry::Pauses;
use super::{ClientError, Server, digest, retry};

impl Server {
    /// Writes the file at `path` below `/v1` to `to`, which must not exist; `advance` gets the bytes so far and all of them. What arrived is
    /// checked against the server's digest.
    ///
    /// # Errors
    /// The server's refusal, a file that cannot be written, or that nothing has come through for long.
    pub async fn download(
        &self,
        path: &str,
        to: &Path,
        advance: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<u64, ClientError> {
        let mut file = File::create_new(to).await.map_err(ClientError::file(to))?;
        let mut progress = Progress { hash: Sha256::new(), bytes: 0, tag: None };
        let mut pauses = Pauses::default();
        loop {
            let before = progress.bytes;
            match self.append(path, to, &mut file, &mut progress, advance).await {
                Ok(()) => break,
                Err(error) if error.is_passing() => {
                    if progress.bytes > before {
                        pauses.reset();
                    }
                    self.pause(&mut pauses, error, None).await?;
                }
                Err(error) => return Err(error),
            }
        }
        file.sync_all().await.map_err(ClientError::file(to))?;
        let got = hex::encode(progress.hash.finalize());
        match progress.tag {
            Some(expected) if expected != got => Err(ClientError::Damaged { expected, got }),
            _ => Ok(progress.bytes),
        }
    }

    /// Appends what is missing, as far as it comes.
    async fn append(
        &self,
        path: &str,
        to: &Path,
        file: &mut File,
        progress: &mut Progress,
        advance: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), ClientError> {
        let mut request = self.request(Method::GET, path);
        if let Some(tag) = progress.tag.as_ref().filter(|_| progress.bytes > 0) {
            let range = format!("bytes={}-", progress.bytes);
            request = request.header("Range", range).header("If-Range", format!("\"{tag}\""));
        }
        let answer = request.send().await.map_err(|error| ClientError::unreachable(&self.base, &error))?;
        if !answer.status().is_success() {
            if let Some(asked) = retry::after(&answer) {
                tokio::time::sleep(asked).await;
            }
            return Err(ClientError::refused(answer).await);
        }
        if answer.status() != StatusCode::PARTIAL_CONTENT && progress.bytes > 0 {
            let changed = "the file on the server has changed while it was downloaded: try again";
            return Err(ClientError::Unexpected(changed.to_owned()));
        }
        progress.tag = digest(&answer).or(progress.tag.take());
        if progress.tag.is_none() && !answer.url().as_str().starts_with(self.base.as_str()) {
            // A bucket that the server sent us to has entity tags of its own.
            let known = self.request(Method::HEAD, path).send().await;
            progress.tag = digest(&known.map_err(|error| ClientError::unreachable(&self.base, &error))?);
        }
        let whole = answer.content_length().map(|rest| progress.bytes + rest);
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| ClientError::unreachable(&self.base, &error))?;
            file.write_all(&chunk).await.map_err(ClientError::file(to))?;
            progress.hash.update(&chunk);
            progress.bytes += chunk.len() as u64;
            advance(progress.bytes, whole);
        }
        Ok(())
    }
}

/// What has been downloaded so far.
struct Progress {
    hash: Sha256,
    bytes: u64,
    /// SHA-256 of the whole file, in hexadecimal.
    tag: Option<String>,
}
