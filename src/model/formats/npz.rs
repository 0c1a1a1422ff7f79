//! `.npz` archives as checkpoints: every array of `numpy.savez` is a tensor under its name.

use std::collections::BTreeMap;

use super::archive::{EntryContent, MappedArchive};
use super::error::FormatError;
use super::layout::{ByteSource, Layout, Packed, TensorEntry, TensorPlace, row_major_strides};
use super::npy;

/// What the name of an array's file ends with.
const SUFFIX: &str = ".npy";

/// Whether an archive holds arrays.
pub(super) fn is_npz(archive: &MappedArchive<'_>) -> bool {
    archive.names().any(|name| name.ends_with(SUFFIX))
}

/// Reads the arrays of `archive`; what else is in it is passed over.
pub(super) fn read(archive: &MappedArchive<'_>) -> Result<Layout, FormatError> {
    let names = archive.names().filter_map(|name| Some((name, name.strip_suffix(SUFFIX)?)));
    let entries = names.map(|(file, name)| array(archive, file, name)).collect::<Result<_, _>>()?;
    Layout::of(entries, BTreeMap::new())
}

/// The array `name` in `file`.
fn array(archive: &MappedArchive<'_>, file: &str, name: &str) -> Result<TensorEntry, FormatError> {
    let fault = |reason| FormatError::Npy { name: name.chars().take(80).collect(), reason };
    let front = archive.front(file, npy::FRONT_BYTES)?;
    let header = npy::read_header(&mut &front[..]).map_err(fault)?;
    let shape: Vec<u64> = header.shape.iter().map(|axis| *axis as u64).collect();
    let fortran: Vec<u64> = shape.iter().rev().copied().collect();
    let strides = if header.fortran {
        row_major_strides(&fortran).map(|strides| strides.into_iter().rev().collect())
    } else {
        row_major_strides(&shape)
    };
    let strides = strides.ok_or_else(|| fault(format!("the shape {shape:?} is larger than any file")))?;
    let content = archive.content(file)?;
    let elements = shape.iter().try_fold(header.dtype.size() as u64, |size, axis| size.checked_mul(*axis));
    if elements.and_then(|bytes| bytes.checked_add(header.bytes)) != Some(content.size()) {
        return Err(fault(format!("its shape {shape:?} does not fit its {} bytes", content.size())));
    }
    let plain = !header.big_endian && (!header.fortran || shape.len() < 2);
    let packed =
        |source, begin, strides| TensorPlace::Packed(Packed { source, begin, strides, big_endian: header.big_endian });
    let place = match content {
        EntryContent::Stored { begin, end } if plain => TensorPlace::Span { begin: begin + header.bytes, end },
        EntryContent::Stored { begin, .. } if !header.big_endian => {
            TensorPlace::Strided { begin: begin + header.bytes, strides }
        }
        EntryContent::Stored { begin, end } => packed(ByteSource::Plain { begin, end }, header.bytes, strides),
        EntryContent::Deflated(deflated) => packed(ByteSource::Deflated(deflated), header.bytes, strides),
    };
    Ok(TensorEntry { name: name.to_owned(), dtype: header.dtype, shape, place })
}
