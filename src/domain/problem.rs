//! What went wrong, as RFC 9457 problem details: one table from code to status and title.

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use super::fault::{Fault, FaultCode};

/// Limits on open files, which have no [`ErrorKind`].
const TOO_MANY_FILES: i32 = Errno::MFILE.raw_os_error();
const TOO_MANY_FILES_IN_SYSTEM: i32 = Errno::NFILE.raw_os_error();

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal;)+) => {
        /// Stable machine-readable names of everything that can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it stands in answers.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// A short text that is the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    /// A body, header or query that cannot be read at all.
    BadRequest = "bad_request", 400, "The request cannot be read";
    /// A body that is not JSON.
    InvalidJson = "invalid_json", 400, "The body is not valid JSON";
    /// No key, or one that is unknown or revoked.
    Unauthorized = "unauthorized", 401, "A valid API key is required";
    /// The key's scope does not cover the operation.
    Forbidden = "forbidden", 403, "The API key's scope does not allow this";
    /// A request that a page of another site has made.
    CrossOrigin = "cross_origin", 403, "A page of another site may not do this";
    /// Nothing there, or not this tenant's.
    NotFound = "not_found", 404, "Not found";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    /// The client was too slow.
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time";
    /// The name is taken by other bytes.
    NameTaken = "name_taken", 409, "The name is taken by different content";
    /// A resumed upload starts at the wrong place.
    UploadOffsetMismatch = "upload_offset_mismatch", 409, "The upload continues at a different offset";
    /// Two uploads to one name at the same time.
    UploadInProgress = "upload_in_progress", 409, "Another request is uploading to this name";
    /// The resource is used by a live job.
    InUse = "in_use", 409, "The resource is in use by an unfinished job";
    /// An artifact of an unfinished job.
    JobNotFinished = "job_not_finished", 409, "The job has not finished";
    /// An artifact of a job that failed or was cancelled.
    JobNotSucceeded = "job_not_succeeded", 409, "The job ended without this result";
    /// An operation for finished jobs on an active one.
    JobActive = "job_active", 409, "The job is still active";
    /// A conditional request whose condition does not hold.
    PreconditionFailed = "precondition_failed", 412, "The precondition does not hold";
    /// A body over the limit.
    TooLarge = "too_large", 413, "The body is larger than the limit";
    /// Not JSON where JSON is expected.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
    /// A byte range outside the representation.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "The byte range cannot be satisfied";
    /// A request for a host that the server does not answer for.
    HostNotAllowed = "host_not_allowed", 421, "The server does not answer for this host";
    /// Faults in a JSON body, listed in `errors`.
    InvalidRequest = "invalid_request", 422, "The request is not valid";
    /// A value from the contract that is not built yet.
    NotSupportedYet = "not_supported_yet", 422, "This value is not supported yet";
    /// The same Idempotency-Key came with another body.
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The Idempotency-Key was used with a different request";
    /// A checkpoint file that cannot be used.
    InvalidCheckpoint = "invalid_checkpoint", 422, "The file is not a usable checkpoint";
    /// A dataset file that cannot be used.
    DatasetInvalid = "dataset_invalid", 422, "The file is not a usable dataset";
    /// The body's digest differs from `Repr-Digest`.
    DigestMismatch = "digest_mismatch", 422, "The content does not match its digest";
    /// A file elsewhere that is not to be had.
    SourceRefused = "source_refused", 422, "The file's source refuses it";
    /// A file elsewhere whose host does not answer as it should.
    SourceFailed = "source_failed", 502, "The file's source failed";
    /// A part of an upload whose digest is another one.
    ChecksumMismatch = "checksum_mismatch", 460, "A part of the upload does not match its checksum";
    /// Members that cannot be fused with one another.
    MembersIncompatible = "members_incompatible", 422, "The members do not fit together";
    /// Tensor names and shapes of no known network.
    ArchitectureUnknown = "architecture_unknown", 422, "The architecture was not recognised";
    /// Tensor names and shapes of more than one network.
    ArchitectureAmbiguous = "architecture_ambiguous", 422, "More than one architecture fits";
    /// No worker offers the device.
    NoSuchDevice = "no_such_device", 422, "No worker offers this device";
    /// More of something at a time than the tenant may have.
    TooMany = "too_many", 429, "Too many at a time";
    /// NaN or infinite weights.
    NonFiniteWeights = "non_finite_weights", 422, "A checkpoint has weights that are not finite";
    /// The concatenated network does not compute the members' mean.
    VerificationFailed = "verification_failed", 500, "The concatenated network differs from the ensemble";
    /// Training diverged.
    TrainingDiverged = "training_diverged", 500, "The loss is no longer finite";
    /// The job's time limit.
    MaxRuntimeExceeded = "max_runtime_exceeded", 500, "The job ran longer than max_runtime_s";
    /// The job allocated more than its worker allows.
    OutOfMemory = "out_of_memory", 500, "The job needs more memory than it may use";
    /// The job needs more disk than its worker allows.
    ScratchLimitExceeded = "scratch_limit_exceeded", 500, "The job needs more scratch space than it may use";
    /// The job's child process ends again and again.
    CrashLoop = "crash_loop", 500, "The job crashed repeatedly without progress";
    /// A bug of ours.
    Internal = "internal_error", 500, "Internal error";
    /// The server cannot take requests now.
    Unavailable = "unavailable", 503, "The service is not ready";
    /// The machine's disk or file system fails.
    StorageFailed = "storage_failed", 500, "The machine's storage failed";
    /// A stored file has other bytes than when it was stored.
    FileDamaged = "file_damaged", 500, "A stored file is damaged";
    /// The machine has no memory, threads or open files left.
    ResourcesExhausted = "resources_exhausted", 503, "The machine has run out of memory, threads or open files";
    /// The GPU does not answer any more.
    DeviceLost = "device_lost", 503, "The GPU was lost";
    /// The disk has no room for the upload or the job's files.
    DiskFull = "disk_full", 507, "Not enough disk space";
    /// The tenant has as much as it may have.
    QuotaExceeded = "quota_exceeded", 507, "The tenant's quota is used up";
}

impl Code {
    /// What a failure of the operating system comes to: what may pass by itself has a code of its own.
    #[must_use]
    pub fn of_system(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::DiskFull,
            ErrorKind::OutOfMemory | ErrorKind::WouldBlock | ErrorKind::ResourceBusy => Self::ResourcesExhausted,
            // These come back with every attempt.
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename
            | ErrorKind::Unsupported => Self::Internal,
            _ => match error.raw_os_error() {
                Some(TOO_MANY_FILES | TOO_MANY_FILES_IN_SYSTEM) => Self::ResourcesExhausted,
                Some(_) => Self::StorageFailed,
                None => Self::Internal,
            },
        }
    }

    /// The code of a request all of whose faults are of the kind `fault`, where it says more than that the request is not valid.
    fn of_faults(fault: FaultCode) -> Option<Self> {
        match fault {
            FaultCode::DatasetInvalid => Some(Self::DatasetInvalid),
            FaultCode::NoSuchDevice => Some(Self::NoSuchDevice),
            FaultCode::NotSupportedYet => Some(Self::NotSupportedYet),
            _ => None,
        }
    }

    /// Whether another attempt of the same job may do without: the machine was at fault, not the job.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::StorageFailed | Self::ResourcesExhausted | Self::DeviceLost | Self::Unavailable
        )
    }
}

/// RFC 9457 problem details without what only an HTTP answer has (`type`, `request_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable name.
    pub code: Code,
    /// What happened here, what was expected, what to do.
    pub detail: String,
    /// Every fault of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A problem without a list of faults.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// A body with faults: their common code where they share one that is known, else `invalid_request`. One fault
    /// lends its text to `detail`.
    #[must_use]
    pub fn faults(errors: Vec<Fault>) -> Self {
        let shared = errors.first().filter(|first| errors.iter().all(|fault| fault.code == first.code));
        let code = shared.and_then(|fault| Code::of_faults(fault.code)).unwrap_or(Code::InvalidRequest);
        let detail = match &errors[..] {
            [only] => format!("{}: {}", only.pointer, only.detail),
            many => format!("{} values are at fault; `errors` names each", many.len()),
        };
        Self { code, detail, errors }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.title(), self.detail)?;
        if self.errors.len() > 1 {
            for fault in &self.errors {
                write!(f, "\n  {}: {}", fault.pointer, fault.detail)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_machine_pass_and_mistakes_stay() {
        for (errno, code) in [
            (Errno::NOSPC, Code::DiskFull),
            (Errno::DQUOT, Code::DiskFull),
            (Errno::IO, Code::StorageFailed),
            (Errno::STALE, Code::StorageFailed),
            (Errno::NOMEM, Code::ResourcesExhausted),
            (Errno::AGAIN, Code::ResourcesExhausted),
            (Errno::MFILE, Code::ResourcesExhausted),
            (Errno::NFILE, Code::ResourcesExhausted),
            (Errno::NOENT, Code::Internal),
            (Errno::ACCESS, Code::Internal),
            (Errno::ROFS, Code::StorageFailed),
        ] {
            let found = Code::of_system(&io::Error::from_raw_os_error(errno.raw_os_error()));
            assert_eq!((found, found.is_transient()), (code, code != Code::Internal), "{errno}");
        }
        assert_eq!(Code::of_system(&io::Error::other("not the system's")), Code::Internal);
    }
}
