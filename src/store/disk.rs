//! The disk below a folder.

use std::path::Path;

use super::error::StoreError;

/// Bytes that may still be written below `folder`.
///
/// # Errors
/// When the file system does not say.
pub fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(folder).map_err(|error| StoreError::file(folder)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
