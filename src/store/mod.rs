//! What outlives a process: rows in SQLite, bytes in an object store below the data directory.

pub mod blobs;
pub mod database;
pub mod error;
pub mod keys;
mod migrations;

pub use blobs::Blobs;
pub use database::Database;
pub use error::StoreError;
