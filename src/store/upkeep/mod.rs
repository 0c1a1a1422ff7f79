//! Looking after a data directory: whether its files are whole, copies of it, what may go.

mod backup;
mod inventory;
mod pins;
mod retention;
mod verify;

pub use backup::{Copied, backup, restore};
pub use pins::Pins;
pub use retention::{Doomed, Retention};
pub use verify::{Finding, Findings, Verifier};
