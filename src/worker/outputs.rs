//! Files that a child has written become blobs: first the bytes, under a key that only this attempt uses, then the row
//! that refers to them.

use std::io::ErrorKind;
use std::path::Path;

use crate::domain::job::Fence;
use crate::domain::problem::Code;
use crate::process::protocol::OutputFile;
use crate::store::jobs::{Artifact, JobError, Jobs};
use crate::store::{Blobs, StoreError};

/// A child's file that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// The child points somewhere else.
    #[error("the child says that its {name} is {path}, which is not in its scratch folder")]
    Outside {
        /// What it is.
        name: String,
        /// Where it points.
        path: String,
    },
    /// The bytes cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row cannot be written.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl OutputError {
    /// What it comes to; see [`Code::of_system`].
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Store(StoreError::File { source, .. }) => Code::of_system(source),
            _ => Code::Internal,
        }
    }
}

/// Makes `file` the checkpoint from which the next attempt goes on; `number` tells this attempt's checkpoints apart. A child
/// that is faster than the disk removes a checkpoint when it has a later one: that is then about to be announced.
pub(super) async fn save_checkpoint(
    (jobs, blobs): (&Jobs, &Blobs),
    fence: Fence,
    (number, epoch): (usize, usize),
    (scratch, file): (&Path, &OutputFile),
) -> Result<(), OutputError> {
    let key = Jobs::blob_key(fence, &format!("checkpoint-{number}"));
    match take_over(blobs, scratch, file, &key).await {
        Err(OutputError::Store(StoreError::File { source, .. })) if source.kind() == ErrorKind::NotFound => {
            return Ok(());
        }
        taken => taken?,
    }
    let saved = jobs.save_checkpoint(fence, epoch, &key).await;
    let superseded = match &saved {
        Ok(old) => old.as_deref(),
        Err(_) => Some(key.as_str()),
    };
    if let Some(superseded) = superseded {
        jobs.drop_blob(blobs, superseded).await?;
    }
    saved?;
    Ok(())
}

/// Ends the job with `files` as its results.
pub(super) async fn publish(
    (jobs, blobs): (&Jobs, &Blobs),
    fence: Fence,
    (scratch, files): (&Path, &[OutputFile]),
) -> Result<(), OutputError> {
    let mut artifacts = Vec::with_capacity(files.len());
    for file in files {
        let blob_key = Jobs::blob_key(fence, &file.name);
        take_over(blobs, scratch, file, &blob_key).await?;
        artifacts.push(Artifact {
            name: file.name.clone(),
            blob_key,
            sha256: file.sha256.clone(),
            bytes: file.bytes,
            media_type: file.media_type.clone(),
        });
    }
    Ok(jobs.publish(fence, &artifacts).await?)
}

/// The child is our own program, yet a wrong path must not move a file that is not its own.
async fn take_over(blobs: &Blobs, scratch: &Path, file: &OutputFile, key: &str) -> Result<(), OutputError> {
    let inside = file.path.parent() == Some(scratch) && file.path.file_name().is_some();
    if !inside {
        return Err(OutputError::Outside { name: file.name.clone(), path: file.path.display().to_string() });
    }
    Ok(blobs.put_file(&file.path, key).await?)
}
