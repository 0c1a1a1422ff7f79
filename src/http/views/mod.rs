//! What goes over the wire.

pub mod checkpoints;
pub mod comparisons;
pub mod datasets;
pub mod imports;
pub mod jobs;
pub mod network;
pub mod problem;
pub mod provenance;
pub mod webhooks;
pub mod workers;

use jiff::Timestamp;
use utoipa::openapi::Ref;

use crate::domain::clock::from_millis;

/// A stored time as it is shown: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn time(millis: i64) -> String {
    let time: Timestamp = from_millis(millis);
    format!("{time:.3}")
}

/// The schema of a job's description, which is that of the request with every default filled in.
fn requested() -> Ref {
    Ref::from_schema_name("JobRequest")
}
