//! Looking after a data directory: whether its files are whole, copies of it, another place for its blobs, what may go.

mod backup;
mod inventory;
mod moving;
mod pins;
mod retention;
mod verify;

pub use backup::{Copied, backup, restore};
pub use moving::Moving;
pub use pins::Pins;
pub use retention::{Doomed, Retention};
pub use verify::{Finding, Findings, Verifier};
