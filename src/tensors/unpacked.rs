//! The row-major, little-endian bytes of every tensor of some files: where they lie in them, or copied to memory.

use std::ops::Range;

use crate::model::formats::archive::{ArchiveError, Deflated};
use crate::model::formats::layout::is_row_major;
use crate::model::formats::{ByteSource, Files, FormatError, Packed, TensorPlace};
use crate::model::header::TensorInfo;
use crate::tensors::strided::row_major;

/// Where the row-major bytes of a tensor are.
#[derive(Debug)]
pub(super) enum UnpackedBytes {
    /// There, in a file.
    Mapped {
        /// Its place in the list of files.
        file: usize,
        /// Where in it.
        range: Range<usize>,
    },
    /// In memory.
    Owned(Vec<u8>),
}

/// The bytes of every tensor of `files`, in the order of `tensors`. No more than one deflated storage is held at a time, and none
/// beside the last tensor in it that lies there row by row.
///
/// # Errors
/// When something deflated is damaged.
pub(super) fn stored(
    files: &Files<'_>,
    tensors: &[TensorInfo],
    places: Vec<TensorPlace>,
) -> Result<Vec<UnpackedBytes>, FormatError> {
    let mut stored: Vec<UnpackedBytes> = places.iter().map(|_| UnpackedBytes::Owned(Vec::new())).collect();
    let mut places: Vec<(usize, TensorPlace)> = places.into_iter().enumerate().collect();
    places.sort_by_key(|(_, place)| deflated(place).map(|source| source.begin));
    let mut inflated: Option<(Deflated, Vec<u8>)> = None;
    let mut places = places.into_iter().peekable();
    while let Some((index, place)) = places.next() {
        let info = &tensors[index];
        let outside = |end| FormatError::Outside { name: info.name.clone(), end, len: files.len() };
        stored[index] = match place {
            TensorPlace::Span { begin, end } => {
                let (file, first) = files.locate(begin).ok_or_else(|| outside(end))?;
                UnpackedBytes::Mapped { file, range: first..first + (end - begin) as usize }
            }
            TensorPlace::Strided { begin, strides } => {
                let bytes = files.from(begin).ok_or_else(|| outside(begin))?;
                UnpackedBytes::Owned(row_major(bytes, info, 0, &strides))
            }
            TensorPlace::Owned(owned) => UnpackedBytes::Owned(owned),
            TensorPlace::Packed(packed) => UnpackedBytes::Owned(match packed.source {
                ByteSource::Plain { begin, end } => {
                    turned(files.get(begin, end).ok_or_else(|| outside(end))?, info, &packed)
                }
                ByteSource::Deflated(source) => {
                    let kept = inflated.take().filter(|(kept, _)| *kept == source);
                    let kept = kept.map_or_else(|| inflate(&source, files, &info.name), Ok)?;
                    if places.peek().is_some_and(|(_, next)| deflated(next) == Some(source)) {
                        turned(&inflated.insert(kept).1, info, &packed)
                    } else {
                        taken(kept.1, info, &packed)
                    }
                }
            }),
        };
    }
    Ok(stored)
}

fn deflated(place: &TensorPlace) -> Option<Deflated> {
    match place {
        TensorPlace::Packed(Packed { source: ByteSource::Deflated(deflated), .. }) => Some(*deflated),
        _ => None,
    }
}

fn inflate(source: &Deflated, files: &Files<'_>, name: &str) -> Result<(Deflated, Vec<u8>), FormatError> {
    let unpacked = source.unpack(files).ok_or_else(|| ArchiveError::DamagedEntry(name.to_owned()))?;
    Ok((*source, unpacked))
}

/// The elements of a tensor in row-major order, each with its bytes in the order of this machine's files.
fn turned(source: &[u8], info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    little_endian(row_major(source, info, packed.begin as usize, &packed.strides), info, packed)
}

/// The same of a source that nobody needs any more: without a copy where the tensor lies in it row by row.
fn taken(mut source: Vec<u8>, info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    let shape: Vec<u64> = info.shape.iter().map(|axis| *axis as u64).collect();
    if !is_row_major(&shape, &packed.strides) {
        return turned(&source, info, packed);
    }
    let len = info.elements() * info.dtype.size();
    source.drain(..(packed.begin as usize).min(source.len()));
    source.truncate(len);
    little_endian(source, info, packed)
}

fn little_endian(mut elements: Vec<u8>, info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    if packed.big_endian {
        elements.chunks_exact_mut(info.dtype.size()).for_each(<[u8]>::reverse);
    }
    elements
}
