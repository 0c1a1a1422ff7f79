//! What outlives a process: rows in SQLite, bytes in an object store below the data directory.

pub mod blobs;
pub mod database;
pub mod error;
pub mod idempotency;
pub mod jobs;
pub mod keys;
pub mod listing;
mod migrations;
pub mod workers;

pub use blobs::Blobs;
pub use database::Database;
pub use error::StoreError;
