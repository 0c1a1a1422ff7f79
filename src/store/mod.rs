//! What outlives a process: rows in a database, SQLite or PostgreSQL, and bytes in files below the data directory or in a bucket.

pub mod blobs;
pub mod census;
pub mod changes;
pub mod checkpoints;
pub mod comparisons;
pub mod database;
pub mod datasets;
pub mod disk;
pub mod error;
pub mod files;
pub mod idempotency;
mod identity;
pub mod imports;
pub mod intake;
pub mod jobs;
pub mod keys;
pub mod listing;
pub mod multipart;
pub mod publish;
pub mod readiness;
pub mod reserve;
mod sql;
pub mod staging;
mod steady;
pub mod sweep;
pub mod tenants;
pub mod trash;
pub mod upkeep;
pub mod uploads;
pub mod webhooks;
pub mod workers;

pub use blobs::{Backend, Blobs};
pub use database::Database;
#[cfg(test)]
pub(crate) use database::testing;
pub use error::StoreError;
