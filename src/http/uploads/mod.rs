//! Uploads: `PUT` of raw bytes to a name, resumable with `Content-Range` (RFC 9110 section 14.5), with the offsets of the
//! resumable-uploads draft. Checkpoints and datasets share everything here.

mod announced;
mod answers;
mod incoming;
mod put;
mod receive;
mod refusal;
mod unfinished;

pub use answers::{FileBytes, download, file_headers, presence};
pub use put::{UploadOutcome, put};
pub use refusal::{Refusal, offset_headers};
pub use unfinished::routes;
