//! What can go wrong with stored state.

use std::path::PathBuf;

use crate::domain::problem::{Code, Problem};

/// A failure of the database or the blob store; never the client's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("database schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
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
    /// A file below the data directory could not be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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

    /// Whether a trigger of the schema refused the statement.
    #[must_use]
    pub fn is_refused_by_trigger(&self) -> bool {
        const SQLITE_CONSTRAINT_TRIGGER: &str = "1811";
        let code = |error: &dyn sqlx::error::DatabaseError| error.code().as_deref() == Some(SQLITE_CONSTRAINT_TRIGGER);
        matches!(self, Self::Database(sqlx::Error::Database(error)) if code(error.as_ref()))
    }

    /// Whether an insert met a row with the same key.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// The client learns that it was not its fault, the log learns why.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "stored state failed");
        Self::new(Code::Internal, "The server's storage failed; the log has the details under this request id.")
    }
}
