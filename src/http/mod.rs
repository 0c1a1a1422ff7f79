//! The API: one file per resource, problems, wire types.

mod addressed;
pub mod auth;
mod checkpoints;
mod comparisons;
pub mod connection;
mod cookie;
mod cors;
mod datasets;
mod description;
pub mod download;
mod exports;
pub mod frame;
pub mod housekeeping;
mod idempotent;
mod jobs;
pub mod json;
pub mod listing;
pub mod live;
pub mod metrics;
mod origin;
mod pace;
mod page;
mod pins;
mod polling;
pub mod problem;
mod router;
mod service;
mod session;
mod shared_responses;
mod soundness;
pub mod state;
pub mod uploads;
pub mod views;

pub use auth::Caller;
pub use router::{document, router};
pub use state::AppState;
