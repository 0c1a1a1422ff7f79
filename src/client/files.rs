//! Files of this machine on their way: hashed, and sent in constant memory.

use std::io::{Read, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Body, RequestBuilder, Response};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Length and SHA-256 of a file.
pub(crate) async fn hashed(file: &Path) -> std::io::Result<(u64, [u8; 32])> {
    let file = file.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let (mut content, mut digest) = (std::fs::File::open(file)?, Sha256::new());
        let (mut buffer, mut bytes) = (vec![0; BUFFER], 0);
        loop {
            match content.read(&mut buffer)? {
                0 => return Ok((bytes, digest.finalize().into())),
                read => {
                    digest.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    });
    hashing.await.map_err(std::io::Error::other)?
}

/// Sends the bytes `part` of a file as the body of a request; `advance` gets the place in the file up to which it has been read. The outer
/// error is the file's.
pub(crate) async fn send_part(
    request: RequestBuilder,
    file: &Path,
    part: Range<u64>,
    advance: &(dyn Fn(u64) + Sync),
) -> std::io::Result<reqwest::Result<Response>> {
    let length = part.end - part.start;
    let mut content = File::open(file).await?;
    content.seek(SeekFrom::Start(part.start)).await?;
    // The stream outlives this borrow of `advance`, so that it counts in a place of its own.
    let sent = Arc::new(AtomicU64::new(part.start));
    let counted = sent.clone();
    let stream = ReaderStream::with_capacity(content.take(length), BUFFER).inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        counted.fetch_add(length, Ordering::Relaxed);
    });
    let sending = request.header("Content-Length", length).body(Body::wrap_stream(stream)).send();
    tokio::pin!(sending);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            answer = &mut sending => return Ok(answer),
            _ = ticks.tick() => advance(sent.load(Ordering::Relaxed)),
        }
    }
}
