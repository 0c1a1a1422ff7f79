//! Files that a child has written become blobs: first the bytes, under a key that only this attempt uses, then the row
//! that refers to them.

use std::io::ErrorKind;
use std::path::Path;

use crate::domain::job::{Fence, TransitionError};
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
    /// What it comes to for the job.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Job(error) => error.code(),
            Self::Outside { .. } => Code::Internal,
        }
    }

    /// Whether another attempt has taken over, so that nothing may be written any more.
    pub(super) fn is_fence_lost(&self) -> bool {
        matches!(self, Self::Job(JobError::Transition(TransitionError::FenceLost { .. })))
    }
}

/// Where the files of one attempt come from and go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outputs<'a> {
    pub(super) jobs: &'a Jobs,
    pub(super) blobs: &'a Blobs,
    pub(super) fence: Fence,
    /// The folder in which the child writes.
    pub(super) scratch: &'a Path,
}

impl Outputs<'_> {
    /// Makes `file` the checkpoint after `epoch`, from which the next attempt goes on; `number` distinguishes this attempt's
    /// checkpoints. A child that is faster than the disk removes a checkpoint when it has a later one: that is then about to
    /// be announced.
    pub(super) async fn save_checkpoint(
        &self,
        number: usize,
        epoch: usize,
        file: &OutputFile,
    ) -> Result<(), OutputError> {
        let key = Jobs::blob_key(self.fence, &format!("checkpoint-{number}"));
        match self.take_over(file, &key).await {
            Err(OutputError::Store(StoreError::File { source, .. })) if source.kind() == ErrorKind::NotFound => {
                return Ok(());
            }
            taken => taken?,
        }
        // Where the commit fails the blob stays until it is swept: should the machine stop now, it may turn out to be written.
        if let Some(superseded) = self.jobs.save_checkpoint(self.fence, epoch, &key).await? {
            self.jobs.drop_blob(self.blobs, &superseded).await;
        }
        Ok(())
    }

    /// Ends the job with `files` as its results. A repetition after a failure goes on where that was.
    pub(super) async fn publish(&self, files: &[OutputFile]) -> Result<(), OutputError> {
        let mut artifacts = Vec::with_capacity(files.len());
        for file in files {
            let blob_key = Jobs::blob_key(self.fence, &file.name);
            self.take_over(file, &blob_key).await?;
            artifacts.push(Artifact {
                name: file.name.clone(),
                blob_key,
                sha256: file.sha256.clone(),
                bytes: file.bytes,
                media_type: file.media_type.clone(),
            });
        }
        let published = self.jobs.publish(self.fence, &artifacts).await;
        match published.map_err(OutputError::from) {
            Ok(checkpoint) => {
                if let Some(checkpoint) = checkpoint {
                    self.jobs.drop_blob(self.blobs, &checkpoint).await;
                }
                Ok(())
            }
            Err(error) => {
                if error.is_fence_lost() {
                    for artifact in &artifacts {
                        self.jobs.drop_blob(self.blobs, &artifact.blob_key).await;
                    }
                }
                Err(error)
            }
        }
    }

    /// The child is our own program, yet a wrong path must not move a file that is not its own.
    async fn take_over(&self, file: &OutputFile, key: &str) -> Result<(), OutputError> {
        let inside = file.path.parent() == Some(self.scratch) && file.path.file_name().is_some();
        if !inside {
            return Err(OutputError::Outside { name: file.name.clone(), path: file.path.display().to_string() });
        }
        Ok(self.blobs.put_file(&file.path, key).await?)
    }
}
