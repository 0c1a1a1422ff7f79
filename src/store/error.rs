//! What can go wrong with stored state.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::domain::problem::{Code, Problem};

/// A failure of the database or the blob store; never the client's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("database schema: {0}")]
    Migrate(#[from] MigrateError),
    /// The files beside the database are not its own.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A row says something that the code cannot have written.
    #[error("inconsistent row {id} in {table}: {detail}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The blob store failed.
    #[error("blob store: {0}")]
    Blob(#[from] object_store::Error),
    /// A bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// An object has other bytes than when it was stored.
    #[error("the object {key} has the SHA-256 {got}, stored as {expected}")]
    Damaged {
        /// Its key.
        key: String,
        /// The digest of its bytes.
        got: String,
        /// What they should be.
        expected: String,
    },
    /// A file below the data directory could not be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A bucket that cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// `AWS_PROFILE` names a profile that nothing is known of.
    #[error(
        "the profile `{0}` of AWS_PROFILE is in neither of the files of AWS_CONFIG_FILE (~/.aws/config) and AWS_SHARED_CREDENTIALS_FILE \
         (~/.aws/credentials): correct its name, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoProfile(String),
    /// A profile gets its credentials in a way that is not known here.
    #[error(
        "the profile `{profile}` gets its credentials by `{way}`, which is not supported: expected keys or `web_identity_token_file` with \
         `role_arn`. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, which `aws configure export-credentials --format \
         env` prints"
    )]
    UnknownCredentials {
        /// The profile.
        profile: String,
        /// Its entry.
        way: &'static str,
    },
    /// An upload is to be completed with parts that it does not have.
    #[error("the bucket does not have these parts")]
    OtherParts,
    /// It does not answer as a bucket should.
    #[error(
        "the bucket {bucket} cannot be used: {source}. Is it there, and may these credentials read, write, list and delete in it? \
         AWS_REGION names its region, AWS_ENDPOINT_URL another service than AWS"
    )]
    Unusable {
        /// The bucket.
        bucket: String,
        /// Why.
        source: Box<object_store::Error>,
    },
}

/// A data folder whose parts do not belong together.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The files are there, the database is not.
    #[error(
        "{blobs} holds files, but their database {database} is missing. Put it back (with its -wal file, if there is one), \
         or move {blobs} away to begin with an empty folder. Nothing was changed"
    )]
    WithoutDatabase {
        /// Where the files are.
        blobs: String,
        /// Where their database should be.
        database: PathBuf,
    },
    /// The database is there, its files are not.
    #[error(
        "the database {database} knows files, but {blobs} is not where they are: there is no `identity`. Is a volume not \
         mounted, or does `--blobs` not say where they are? Put the folder back, or restore both from one backup. Nothing was changed"
    )]
    WithoutFiles {
        /// Where the files should be.
        blobs: String,
        /// The database.
        database: PathBuf,
    },
    /// Both are there, and strangers.
    #[error(
        "the database {database} belongs to the data folder {of_database}, the files in {blobs} to {of_files}. Restore both from \
         one backup. Nothing was changed"
    )]
    Strangers {
        /// Where the files are.
        blobs: String,
        /// The database.
        database: PathBuf,
        /// The identity in the database.
        of_database: String,
        /// The identity beside the files.
        of_files: String,
    },
}

impl StoreError {
    /// Adds the path to an I/O error; for `map_err`.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// A row that the code cannot have written.
    pub fn inconsistent(table: &'static str, id: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self::Inconsistent { table, id: id.into(), detail: detail.to_string() }
    }

    /// Whether a file or an object is not there.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Blob(error) => matches!(error, object_store::Error::NotFound { .. }),
            _ => false,
        }
    }

    /// Whether a trigger of the schema refused the statement.
    #[must_use]
    pub fn is_refused_by_trigger(&self) -> bool {
        const SQLITE_CONSTRAINT_TRIGGER: &str = "1811";
        /// What our triggers raise in PostgreSQL.
        const REFUSED: &str = "EN001";
        let code = |error: &dyn sqlx::error::DatabaseError| {
            matches!(error.code().as_deref(), Some(SQLITE_CONSTRAINT_TRIGGER | REFUSED))
        };
        matches!(self, Self::Database(sqlx::Error::Database(error)) if code(error.as_ref()))
    }

    /// Whether the connection to a database server is gone, or the server is not there.
    pub(super) fn is_connection_lost(&self) -> bool {
        match self {
            Self::Database(error) | Self::Migrate(MigrateError::Execute(error)) => is_connection_lost(error),
            _ => false,
        }
    }

    /// Whether an insert met a row with the same key.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

impl StoreError {
    /// What it comes to for the caller.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Database(error) | Self::Migrate(MigrateError::Execute(error)) => code_of_database(error),
            Self::File { source, .. } => Code::of_system(source),
            Self::Blob(error) => code_of_blobs(error),
            Self::Bucket(BucketError::Unusable { source, .. }) => code_of_blobs(source),
            Self::Bucket(BucketError::OtherParts) => Code::StorageFailed,
            Self::Damaged { .. } => Code::FileDamaged,
            Self::Bucket(_) | Self::Migrate(_) | Self::Identity(_) | Self::Inconsistent { .. } => Code::Internal,
        }
    }
}

/// Whether the connection to a database server is gone, or the server is not there: the same may work on another connection, later.
pub(super) fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // Connection exceptions; a server that ends, was ended, or is starting; one that has become a standby.
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| {
            error.code().starts_with("08") || matches!(error.code(), "57P01" | "57P02" | "57P03" | "25006")
        }),
        _ => false,
    }
}

/// Whether a prepared statement does not fit the schema any more, which has changed since.
pub(super) fn is_plan_stale(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(FEATURE_NOT_SUPPORTED))
}

/// What PostgreSQL says to a plan whose result would have other columns.
const FEATURE_NOT_SUPPORTED: &str = "0A000";

/// What a failure of PostgreSQL comes to, by its SQLSTATE.
fn code_of_postgres(error: &PgDatabaseError) -> Code {
    match error.code() {
        "53100" => Code::DiskFull,
        // Out of memory.
        "53200" => Code::ResourcesExhausted,
        // Too many connections, locks not to be had in time, deadlocks and other transactions that may work when they are tried again.
        code if code.starts_with("53") || code.starts_with("40") => Code::Unavailable,
        "55P03" | "57014" | "25P03" | FEATURE_NOT_SUPPORTED => Code::Unavailable,
        // Errors of its storage, and data that its checksums refuse.
        code if code.starts_with("58") || code.starts_with("XX") => Code::StorageFailed,
        _ => Code::Internal,
    }
}

/// What a failure of the database comes to; of SQLite by its primary result code (the low byte of an extended one).
fn code_of_database(error: &sqlx::Error) -> Code {
    const BUSY: u32 = 5;
    const NO_MEMORY: u32 = 7;
    /// A disk that the system has made read-only after errors.
    const READ_ONLY: u32 = 8;
    const IO_ERROR: u32 = 10;
    /// What SQLite makes of a read that fails with EIO, too.
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;
    if let sqlx::Error::Database(failure) = error
        && let Some(failure) = failure.try_downcast_ref::<PgDatabaseError>()
    {
        return if is_connection_lost(error) { Code::Unavailable } else { code_of_postgres(failure) };
    }
    match error {
        sqlx::Error::Database(error) => {
            match error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
                Some(FULL) => Code::DiskFull,
                Some(READ_ONLY | IO_ERROR | CORRUPT | CANNOT_OPEN) => Code::StorageFailed,
                Some(NO_MEMORY) => Code::ResourcesExhausted,
                Some(BUSY) => Code::Unavailable,
                _ => Code::Internal,
            }
        }
        sqlx::Error::Io(error) if is_of_network(error) => Code::Unavailable,
        sqlx::Error::Io(error) => Code::of_system(error),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Code::Unavailable,
        _ => Code::Internal,
    }
}

fn is_of_network(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        NotConnected, TimedOut, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | NotConnected
            | TimedOut
            | UnexpectedEof
    )
}

/// What a failure of the blob store comes to. A service that does not answer, or not as it should, may do so again later; so may one
/// whose credentials have run out.
fn code_of_blobs(error: &object_store::Error) -> Code {
    match error {
        object_store::Error::Generic { store: "S3", .. }
        | object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Code::StorageFailed,
        error => of_system_below(error),
    }
}

/// Looks for the system's error that another library has wrapped.
fn of_system_below(error: &(dyn std::error::Error + 'static)) -> Code {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .map(Code::of_system)
        .next()
        .unwrap_or(Code::Internal)
}

/// The client learns whether it may try again, the log learns why.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "stored state failed");
        let code = error.code();
        Self::new(
            code,
            match code {
                Code::DiskFull => {
                    "The server's disk is full, so this was not done. What was acknowledged before is safe. Send it again \
                 when there is room: deleting files and jobs makes some."
                }
                Code::StorageFailed => {
                    "The server's storage failed, so this was not done. What was acknowledged before is safe. Send it again \
                 later; the log has the details under this request id."
                }
                Code::ResourcesExhausted | Code::Unavailable => {
                    "The server's storage is too busy for this now. Send it again later."
                }
                Code::FileDamaged => {
                    "The stored file has other bytes than when it was stored, so it is not used. The operator can restore it from a \
                 backup; `engraft verify` lists all such files."
                }
                _ => "The server's storage failed; the log has the details under this request id.",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_failing_one_and_both_from_our_own_mistakes() {
        let system = |errno: rustix::io::Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let full = || system(rustix::io::Errno::NOSPC);
        let blob = object_store::Error::Generic { store: "local", source: Box::new(full()) };
        assert_eq!(StoreError::Blob(blob).code(), Code::DiskFull);
        assert_eq!(StoreError::file("x")(full()).code(), Code::DiskFull);
        assert_eq!(StoreError::file("x")(system(rustix::io::Errno::IO)).code(), Code::StorageFailed);
        assert_eq!(StoreError::inconsistent("jobs", "j", "x").code(), Code::Internal);
        assert_eq!(StoreError::Database(sqlx::Error::PoolTimedOut).code(), Code::Unavailable);
    }
}
