//! `Upload-Checksum`: a part of an upload counts only if it has the digest that its client says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::domain::problem::{Code, Problem};

const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// What may be used.
pub(super) const ALGORITHMS: &str = "sha1,sha256";

/// The digest that a part must have.
#[derive(Debug)]
pub(super) struct Checksum {
    hasher: Hasher,
    expected: Vec<u8>,
}

#[derive(Debug)]
enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

/// Whether a part turned out to be another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Differs(Arc<AtomicBool>);

impl Differs {
    pub(super) fn was_seen(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Checksum {
    /// Reads the header, if there is one.
    ///
    /// # Errors
    /// `bad_request` for another algorithm, or what is no digest of it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(UPLOAD_CHECKSUM) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        let bad = || {
            let detail =
                format!("Expected `Upload-Checksum: ALGORITHM BASE64`, with one of {ALGORITHMS}, got `{text}`.");
            Problem::new(Code::BadRequest, detail)
        };
        let (algorithm, digest) = text.split_once(' ').ok_or_else(bad)?;
        let expected = STANDARD.decode(digest.trim()).map_err(|_| bad())?;
        let (hasher, length) = match algorithm {
            "sha1" => (Hasher::Sha1(Sha1::new()), 20),
            "sha256" => (Hasher::Sha256(Sha256::new()), 32),
            _ => return Err(bad()),
        };
        if expected.len() == length { Ok(Some(Self { hasher, expected })) } else { Err(bad()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn holds(self) -> bool {
        match self.hasher {
            Hasher::Sha1(hasher) => hasher.finalize().as_slice() == self.expected,
            Hasher::Sha256(hasher) => hasher.finalize().as_slice() == self.expected,
        }
    }

    /// The same body, which breaks off at its end where its bytes have another digest.
    pub(super) fn check(self, body: Body) -> (Body, Differs) {
        let differs = Differs::default();
        let flag = differs.clone();
        let start = (body.into_data_stream(), Some(self));
        let checked = stream::unfold(start, move |(mut bytes, checksum)| {
            let flag = flag.clone();
            async move {
                let mut checksum = checksum?;
                match bytes.next().await {
                    Some(Ok(piece)) => {
                        checksum.update(&piece);
                        Some((Ok(piece), (bytes, Some(checksum))))
                    }
                    Some(Err(error)) => Some((Err(std::io::Error::other(error)), (bytes, None))),
                    None if checksum.holds() => None,
                    None => {
                        flag.0.store(true, Ordering::Release);
                        Some((Err(std::io::Error::other("another digest")), (bytes, None)))
                    }
                }
            }
        });
        (Body::from_stream(checked), differs)
    }
}
