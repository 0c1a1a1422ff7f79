//! What the server requests from others by itself, at addresses that its tenants name: which of them it may reach, where files are, and the
//! calls of webhooks.

mod client;
mod networks;
pub mod sources;
pub mod webhooks;

pub use client::{Outbound, OutboundError};
pub use networks::Networks;
