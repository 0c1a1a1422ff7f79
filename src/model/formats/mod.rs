//! Checkpoint files: what they hold and where, checked before anything relies on it.

pub mod digest;
pub mod error;
pub mod foreign;
pub mod layout;
pub mod limits;
pub mod onnx;
pub mod protobuf;
pub mod safetensors;
mod safetensors_json;

pub use error::FormatError;
pub use foreign::{Foreign, Format, recognise};
pub use layout::{Entry, Layout, Place};

/// Reads what the whole file `bytes` (mapped, finished) holds, whatever its format. Needs memory in proportion to headers, and
/// to tensors that the format does not store plainly.
///
/// # Errors
/// The first fault; see [`FormatError`].
pub fn read_layout(bytes: &[u8]) -> Result<Layout, FormatError> {
    match recognise(bytes)? {
        Format::Safetensors => safetensors::read_layout(&mut &bytes[..], bytes.len() as u64),
        Format::Onnx => onnx::read_layout(bytes),
    }
}
