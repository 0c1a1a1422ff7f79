//! Whether stored files still have the bytes that were stored: each is read through once, before it is sent for the first time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::domain::problem::{Code, Problem};
use crate::store::Blobs;

/// The blobs that were found whole since the start.
#[derive(Debug, Default)]
pub struct Soundness(Mutex<HashSet<String>>);

impl Soundness {
    /// Checks that the blob `key` has the digest `sha256`, unless that was done before.
    ///
    /// # Errors
    /// `file_damaged`; or when it cannot be read.
    pub async fn check(&self, blobs: &Blobs, key: &str, sha256: &str) -> Result<(), Problem> {
        if self.known().contains(key) {
            return Ok(());
        }
        if blobs.bucket().is_some() {
            // An object is compared while its copy is fetched.
            blobs.local(key, Some(sha256)).await?;
            self.known().insert(key.to_owned());
            return Ok(());
        }
        let got = blobs.digest(key).await?;
        if got != sha256 {
            tracing::error!(key, %got, expected = sha256, "a stored file has other bytes than when it was stored");
            return Err(damaged());
        }
        self.known().insert(key.to_owned());
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The problem of a stored file whose bytes have changed.
pub(super) fn damaged() -> Problem {
    let detail = "The stored file has other bytes than when it was stored, so it is not sent. The operator can restore it from a backup; \
                  `engraft verify` lists all such files.";
    Problem::new(Code::FileDamaged, detail)
}
