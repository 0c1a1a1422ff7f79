//! The API: one file per resource, problems, wire types.

pub mod auth;
mod checkpoints;
mod datasets;
pub mod download;
pub mod frame;
mod health;
pub mod housekeeping;
pub mod idempotency;
pub mod json;
pub mod listing;
pub mod problem;
mod router;
pub mod state;
pub mod uploads;
pub mod views;

pub use auth::Caller;
pub use router::{document, router};
pub use state::AppState;
