//! What goes over the wire.

pub mod checkpoints;
pub mod comparisons;
pub mod datasets;
pub mod jobs;
pub mod problem;
pub mod workers;

use jiff::Timestamp;

use crate::domain::clock::from_millis;

/// A stored time as it is shown: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn time(millis: i64) -> String {
    let time: Timestamp = from_millis(millis);
    format!("{time:.3}")
}
