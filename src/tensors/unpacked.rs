//! The row-major, little-endian bytes of every tensor of a file: where they lie in it, or copied to memory.

use std::borrow::Cow;
use std::ops::Range;

use crate::model::formats::archive::{ArchiveError, Deflated};
use crate::model::formats::{FormatError, Packed, Place, Source};
use crate::model::header::TensorInfo;
use crate::tensors::strided::row_major;

/// Where the row-major bytes of a tensor are.
#[derive(Debug)]
pub(super) enum Stored {
    /// There, in the file.
    Mapped(Range<usize>),
    /// In memory.
    Owned(Vec<u8>),
}

/// The bytes of every tensor of the file `bytes`, in the order of `tensors`. No more than one deflated storage is held at a
/// time.
///
/// # Errors
/// When something deflated is damaged.
pub(super) fn stored(bytes: &[u8], tensors: &[TensorInfo], places: Vec<Place>) -> Result<Vec<Stored>, FormatError> {
    let mut stored: Vec<Stored> = places.iter().map(|_| Stored::Owned(Vec::new())).collect();
    let mut places: Vec<(usize, Place)> = places.into_iter().enumerate().collect();
    places.sort_by_key(|(_, place)| deflated(place).map(|source| source.begin));
    let mut inflated: Option<(Deflated, Vec<u8>)> = None;
    for (index, place) in places {
        let info = &tensors[index];
        stored[index] = match place {
            Place::Span { begin, end } => Stored::Mapped(begin as usize..end as usize),
            Place::Strided { begin, strides } => Stored::Owned(row_major(bytes, info, begin as usize, &strides)),
            Place::Owned(owned) => Stored::Owned(owned),
            Place::Packed(packed) => {
                let source = match packed.source {
                    Source::Plain { begin, end } => Cow::Borrowed(&bytes[begin as usize..end as usize]),
                    Source::Deflated(source) => {
                        let kept = inflated.take().filter(|(kept, _)| *kept == source);
                        let kept = kept.map_or_else(|| inflate(&source, bytes, &info.name), Ok)?;
                        Cow::Borrowed(&inflated.insert(kept).1[..])
                    }
                };
                Stored::Owned(turned(&source, info, &packed))
            }
        };
    }
    Ok(stored)
}

fn deflated(place: &Place) -> Option<Deflated> {
    match place {
        Place::Packed(Packed { source: Source::Deflated(deflated), .. }) => Some(*deflated),
        _ => None,
    }
}

fn inflate(source: &Deflated, bytes: &[u8], name: &str) -> Result<(Deflated, Vec<u8>), FormatError> {
    let unpacked = source.unpack(bytes).ok_or_else(|| ArchiveError::DamagedEntry(name.to_owned()))?;
    Ok((*source, unpacked))
}

/// The elements of a tensor in row-major order, each with its bytes in the order of this machine's files.
fn turned(source: &[u8], info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    let mut elements = row_major(source, info, packed.begin as usize, &packed.strides);
    if packed.big_endian {
        elements.chunks_exact_mut(info.dtype.size()).for_each(<[u8]>::reverse);
    }
    elements
}
