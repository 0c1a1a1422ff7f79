//! Uploads: `PUT` of raw bytes to a name, resumable with `Content-Range` (RFC 9110 section 14.5), with the offsets of the
//! resumable-uploads draft. Checkpoints and datasets share everything here.

mod announced;
mod answers;
mod assembled;
mod direct;
mod fetched;
mod incoming;
mod put;
mod receive;
mod refusal;
mod tus;
mod unfinished;

pub use answers::{FileBytes, absent, deleted, download, uploaded};
pub(super) use answers::{file_headers, presence};
pub(super) use assembled::{Assembled, assembled};
pub(super) use fetched::{Fetched, fetched};
pub use put::UploadOutcome;
pub(super) use put::put;
pub use refusal::Refusal;
pub(super) use tus::{OFFSET_STREAM, routes};
