//! Checkpoint files: what they hold and where, checked before anything relies on it.

pub mod archive;
pub mod bundle;
pub mod digest;
pub mod error;
pub mod files;
pub mod foreign;
pub mod index;
pub mod join;
pub mod layout;
pub mod limits;
pub mod npy;
mod npz;
pub mod onnx;
pub mod protobuf;
pub mod pytorch;
pub mod safetensors;
mod safetensors_json;

use std::collections::BTreeSet;

pub use error::FormatError;
pub use files::Files;
pub use foreign::{Foreign, Format, recognise};
pub use layout::{ByteSource, Layout, Packed, TensorEntry, TensorPlace};

use archive::{EntryContent, MappedArchive};

/// Reads what the whole file `bytes` (mapped, finished) holds, whatever its format. Needs memory in proportion to headers, and
/// to tensors that the format does not store plainly.
///
/// # Errors
/// The first fault; see [`FormatError`].
pub fn read_layout(bytes: &[u8]) -> Result<Layout, FormatError> {
    read_files(bytes, &[])
}

/// The names of the files beside the file `bytes` that hold a part of the checkpoint: shards that an index names, and data of an ONNX
/// model.
///
/// # Errors
/// When the file is no checkpoint, or names anything but files beside it.
pub fn beside(bytes: &[u8]) -> Result<BTreeSet<String>, FormatError> {
    Ok(match recognise(bytes)? {
        Format::Index => index::parse(bytes)?.into_keys().collect(),
        Format::Onnx => onnx::files(bytes)?,
        Format::Safetensors | Format::Zip | Format::Tar | Format::PyTorchLegacy => BTreeSet::new(),
    })
}

/// As [`read_layout`], with files beside `bytes` and their names. Places count from the front of `bytes`, which the others follow in
/// their order.
///
/// # Errors
/// The first fault; see [`FormatError`].
pub fn read_files(bytes: &[u8], beside: &[(&str, &[u8])]) -> Result<Layout, FormatError> {
    let files = Files::one(bytes);
    let layout = match recognise(bytes)? {
        Format::Safetensors => safetensors::read_layout(&mut &bytes[..], files.len())?,
        Format::Zip => read_zip(bytes)?.check_within(&files)?,
        Format::Tar => {
            let archive = bundle::tar(bytes)?;
            let model = bundle::read(&archive)?.ok_or_else(|| bundle::nothing_in(&archive, Foreign::Tar))?;
            model.check_within(&files)?
        }
        Format::PyTorchLegacy => pytorch::read_legacy(bytes)?.check_within(&files)?,
        Format::Index => {
            let folder = loose(files, beside)?;
            bundle::indexed(&folder, MAIN)?.check_within(folder.files())?
        }
        Format::Onnx => {
            let folder = loose(files, beside)?;
            bundle::onnx(&folder, MAIN)?.check_within(folder.files())?
        }
    };
    Ok(layout.without_counter())
}

/// The name, among those of the files beside it, of the file that names them: one that no file has.
const MAIN: &str = "";

/// A file and those beside it as what an archive of them would be.
fn loose<'a>(mut files: Files<'a>, beside: &[(&str, &'a [u8])]) -> Result<MappedArchive<'a>, FormatError> {
    let mut entries = vec![(MAIN.to_owned(), EntryContent::Stored { begin: 0, end: files.len() })];
    for (name, bytes) in beside {
        let place = files.push(bytes);
        entries.push(((*name).to_owned(), EntryContent::Stored { begin: place.start, end: place.end }));
    }
    Ok(MappedArchive::of(files, entries)?)
}

/// Reads a checkpoint that is a zip archive.
fn read_zip(bytes: &[u8]) -> Result<Layout, FormatError> {
    let archive = MappedArchive::open(bytes)?;
    let folder = pytorch::folder(&archive).map(str::to_owned);
    match folder {
        Some(folder) => pytorch::read_zip(&archive, &folder),
        None if archive.names().any(|name| name.ends_with("models/model.json")) => Err(Foreign::ExportedProgram.into()),
        None if npz::is_npz(&archive) => npz::read(&archive),
        None => bundle::read(&archive)?.ok_or_else(|| bundle::nothing_in(&archive, Foreign::Zip)),
    }
}
