//! The row-major, little-endian bytes of every tensor of some files: where they lie in them, or copied to memory.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

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

/// A deflated storage may be larger than its only tensor by so much, and others are still unpacked at the same time.
const MAX_SURPLUS: u64 = 1 << 16;

/// A tensor in something deflated.
#[derive(Debug)]
struct DeflatedTensor {
    /// Its place in the list of tensors.
    index: usize,
    packed: Packed,
}

/// The bytes of every tensor of `files`, in the order of `tensors`. A deflated storage that is one tensor becomes its bytes, several at the
/// same time; of the others no more than one is held at a time, and none beside the last tensor in it that lies there row by row.
///
/// # Errors
/// When something deflated is damaged.
pub(super) fn stored(
    files: &Files<'_>,
    tensors: &[TensorInfo],
    places: Vec<TensorPlace>,
) -> Result<Vec<UnpackedBytes>, FormatError> {
    let mut stored = Vec::with_capacity(places.len());
    let mut storages: BTreeMap<Deflated, Vec<DeflatedTensor>> = BTreeMap::new();
    for (index, place) in places.into_iter().enumerate() {
        let info = &tensors[index];
        let outside = |end| FormatError::Outside { name: info.name.clone(), end, len: files.len() };
        stored.push(match place {
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
                ByteSource::Deflated(storage) => {
                    storages.entry(storage).or_default().push(DeflatedTensor { index, packed });
                    Vec::new()
                }
            }),
        });
    }
    let is_own = |storage: &Deflated, held: &[DeflatedTensor]| match held {
        [only] => is_all_of_its_storage(storage, &tensors[only.index], &only.packed),
        _ => false,
    };
    let (own, shared): (Vec<_>, Vec<_>) = storages.into_iter().partition(|(storage, held)| is_own(storage, held));
    let unpacked = own.into_par_iter().flat_map_iter(|(storage, held)| {
        held.into_iter().map(move |DeflatedTensor { index, packed }| {
            let info = &tensors[index];
            (index, inflate(&storage, files, info).map(|storage| taken(storage, info, &packed)))
        })
    });
    // All of them before the first fault is looked for: which one is named does not depend on who is faster.
    for (index, bytes) in unpacked.collect::<Vec<_>>() {
        stored[index] = UnpackedBytes::Owned(bytes?);
    }
    for (storage, mut held) in shared {
        let Some(last) = held.pop() else { continue };
        let info = &tensors[last.index];
        let unpacked = inflate(&storage, files, info)?;
        for DeflatedTensor { index, packed } in held {
            stored[index] = UnpackedBytes::Owned(turned(&unpacked, &tensors[index], &packed));
        }
        stored[last.index] = UnpackedBytes::Owned(taken(unpacked, info, &last.packed));
    }
    Ok(stored)
}

/// Whether a storage holds little more than this tensor, row by row.
fn is_all_of_its_storage(storage: &Deflated, info: &TensorInfo, packed: &Packed) -> bool {
    let bytes = (info.elements() * info.dtype.size()) as u64;
    lies_row_by_row(info, packed) && storage.size <= bytes.saturating_add(MAX_SURPLUS)
}

fn lies_row_by_row(info: &TensorInfo, packed: &Packed) -> bool {
    let shape: Vec<u64> = info.shape.iter().map(|axis| *axis as u64).collect();
    is_row_major(&shape, &packed.strides)
}

fn inflate(storage: &Deflated, files: &Files<'_>, info: &TensorInfo) -> Result<Vec<u8>, FormatError> {
    Ok(storage.unpack(files).ok_or_else(|| ArchiveError::DamagedEntry(info.name.clone()))?)
}

/// The elements of a tensor in row-major order, each with its bytes in the order of this machine's files.
fn turned(source: &[u8], info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    little_endian(row_major(source, info, packed.begin as usize, &packed.strides), info, packed)
}

/// The same of a source that nobody needs any more: without a copy where the tensor lies in it row by row.
fn taken(mut source: Vec<u8>, info: &TensorInfo, packed: &Packed) -> Vec<u8> {
    if !lies_row_by_row(info, packed) {
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
