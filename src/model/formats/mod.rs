//! Checkpoint files: what they hold and where, checked before anything relies on it.

pub mod archive;
pub mod bundle;
pub mod digest;
pub mod error;
pub mod foreign;
pub mod layout;
pub mod limits;
pub mod npy;
mod npz;
pub mod onnx;
pub mod protobuf;
pub mod pytorch;
pub mod safetensors;
mod safetensors_json;

pub use error::FormatError;
pub use foreign::{Foreign, Format, recognise};
pub use layout::{Entry, Layout, Packed, Place, Source};

use archive::Archive;

/// Reads what the whole file `bytes` (mapped, finished) holds, whatever its format. Needs memory in proportion to headers, and
/// to tensors that the format does not store plainly.
///
/// # Errors
/// The first fault; see [`FormatError`].
pub fn read_layout(bytes: &[u8]) -> Result<Layout, FormatError> {
    let len = bytes.len() as u64;
    let layout = match recognise(bytes)? {
        Format::Safetensors => safetensors::read_layout(&mut &bytes[..], len)?,
        Format::Zip => read_zip(bytes)?.check_within(len)?,
        Format::Tar => {
            let archive = bundle::tar(bytes)?;
            let model = bundle::read(&archive)?.ok_or_else(|| bundle::nothing_in(&archive, Foreign::Tar))?;
            model.check_within(len)?
        }
        Format::PyTorchLegacy => pytorch::read_legacy(bytes)?.check_within(len)?,
        Format::Onnx => onnx::read_layout(bytes)?,
    };
    Ok(layout.without_counter())
}

/// Reads a checkpoint that is a zip archive.
fn read_zip(bytes: &[u8]) -> Result<Layout, FormatError> {
    let archive = Archive::open(bytes)?;
    let folder = pytorch::folder(&archive).map(str::to_owned);
    match folder {
        Some(folder) => pytorch::read_zip(&archive, &folder),
        None if archive.names().any(|name| name.ends_with("models/model.json")) => Err(Foreign::ExportedProgram.into()),
        None if npz::is_npz(&archive) => npz::read(&archive),
        None => bundle::read(&archive)?.ok_or_else(|| bundle::nothing_in(&archive, Foreign::Zip)),
    }
}
