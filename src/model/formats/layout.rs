//! Where every tensor of a checkpoint file lies: what all formats are read to.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::formats::archive::Deflated;
use crate::model::formats::error::FormatError;
use crate::model::formats::files::Files;
use crate::model::formats::limits::{MAX_COPIED_BYTES, MAX_INFLATION, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS};
use crate::model::header::{CheckpointHeader, Dtype, HELD_OUT_KEY, STATED_KEY, TensorInfo};
use crate::model::natural;

/// The counter that `torch.optim.swa_utils.AveragedModel` keeps beside its network, and what it calls that.
const AVERAGED: &str = "n_averaged";
const AVERAGED_MODEL: &str = "module.";

/// What files of known lengths hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The tensors, in natural order of their names.
    pub header: CheckpointHeader,
    /// The place of each tensor, in the order of `header.tensors`.
    pub places: Vec<TensorPlace>,
    /// The file's own notes.
    pub metadata: BTreeMap<String, String>,
}

/// Where the elements of one tensor are, little endian. Offsets count bytes from the front of the first file, at any alignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorPlace {
    /// Row-major in the file.
    Span {
        /// First byte.
        begin: u64,
        /// Last byte + 1.
        end: u64,
    },
    /// In the file in another order of axes, or with gaps or repetitions.
    Strided {
        /// First byte of the first element.
        begin: u64,
        /// Elements between neighbours along each axis.
        strides: Vec<u64>,
    },
    /// In bytes that have to be unpacked or turned round before they can be read.
    Packed(Packed),
    /// Not plainly in the file: the row-major bytes themselves.
    Owned(Vec<u8>),
}

/// Elements in bytes that cannot be read where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The bytes.
    pub source: ByteSource,
    /// First byte of the first element in what is unpacked.
    pub begin: u64,
    /// Elements between neighbours along each axis.
    pub strides: Vec<u64>,
    /// The bytes of each element stand the other way round.
    pub big_endian: bool,
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteSource {
    /// As they are, from the first to the last + 1.
    Plain {
        /// First byte.
        begin: u64,
        /// Last byte + 1.
        end: u64,
    },
    /// Deflated, as in a zip archive.
    Deflated(Deflated),
}

impl ByteSource {
    /// Length when unpacked.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Plain { begin, end } => end - begin,
            Self::Deflated(deflated) => deflated.size,
        }
    }
}

/// One tensor as a reader finds it; [`Layout::of`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name in the `state_dict`.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, PyTorch's order.
    pub shape: Vec<u64>,
    /// Its elements.
    pub place: TensorPlace,
}

impl Layout {
    /// Checks every name, rank and size, and puts the tensors into natural order. That spans lie within the file and are as long
    /// as the shape says is checked by [`Self::check_within`], but for formats that promise more.
    ///
    /// # Errors
    /// The first fault.
    pub fn of(entries: Vec<TensorEntry>, metadata: BTreeMap<String, String>) -> Result<Self, FormatError> {
        if entries.is_empty() {
            return Err(FormatError::NoTensors);
        }
        if entries.len() > MAX_TENSORS {
            return Err(FormatError::TooManyTensors);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
            return Err(FormatError::DuplicateName(twice.name.clone()));
        }
        let mut tensors = entries.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by(|(a, _), (b, _)| natural::compare(&a.name, &b.name));
        let (tensors, places) = tensors.into_iter().unzip();
        // What is no JSON stays a text, which is no graph either: whoever needs the network refuses it with a reason.
        let stated =
            metadata.get(STATED_KEY).map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()));
        // What cannot be read says nothing: it only ever makes a validation split trusted.
        let held_out = metadata.get(HELD_OUT_KEY).and_then(|text| serde_json::from_str(text).ok());
        let header = CheckpointHeader { stated, held_out, ..CheckpointHeader::new(tensors) };
        Ok(Self { header, places, metadata })
    }

    /// Without the counter of an averaged model, whose network is all else in the file.
    #[must_use]
    pub(super) fn without_counter(mut self) -> Self {
        let header = &mut self.header;
        let averaged = |info: &TensorInfo| info.name == AVERAGED || info.name.starts_with(AVERAGED_MODEL);
        if header.tensors.len() > 1
            && header.tensors.iter().all(averaged)
            && let Some(index) = header.tensors.iter().position(|info| info.name == AVERAGED)
        {
            header.tensors.remove(index);
            self.places.remove(index);
            header.notes.push(format!("`{AVERAGED}`, the counter of an averaged model, is left out"));
        }
        self
    }

    /// Checks that every tensor has the bytes that its shape needs, within one of `files`, and that no more has to be copied to
    /// memory than fits such files.
    ///
    /// # Errors
    /// Names the first tensor that has not.
    pub fn check_within(mut self, files: &Files<'_>) -> Result<Self, FormatError> {
        let len = files.len();
        let limit = len.saturating_mul(MAX_INFLATION).saturating_add(MAX_COPIED_BYTES);
        let (mut copied, mut unpacked) = (0_u64, BTreeSet::new());
        for (info, place) in self.header.tensors.iter().zip(&self.places) {
            let name = || info.name.clone();
            let expected = (info.elements() * info.dtype.size()) as u64;
            let file_end = |begin: u64| files.from(begin).map_or(len, |rest| begin + rest.len() as u64);
            let (end, len) = match place {
                TensorPlace::Span { begin, end } if end.checked_sub(*begin) == Some(expected) => {
                    (Some(*end), file_end(*begin))
                }
                TensorPlace::Owned(bytes) if bytes.len() as u64 == expected => (Some(0), len),
                TensorPlace::Span { begin, end } => return Err(mismatch(name(), expected, *begin, *end)),
                TensorPlace::Owned(bytes) => return Err(mismatch(name(), expected, 0, bytes.len() as u64)),
                TensorPlace::Strided { begin, strides } => (strided_end(*begin, info, strides), file_end(*begin)),
                TensorPlace::Packed(Packed { source, begin, strides, .. }) => {
                    if matches!(source, ByteSource::Deflated(deflated) if unpacked.insert(*deflated)) {
                        copied = copied.saturating_add(source.size());
                    }
                    (strided_end(*begin, info, strides), source.size())
                }
            };
            if end.is_none_or(|end| end > len) {
                return Err(FormatError::Outside { name: name(), end: end.unwrap_or(u64::MAX), len });
            }
            if !matches!(place, TensorPlace::Span { .. }) {
                copied = copied.saturating_add(expected);
            }
            if copied > limit {
                return Err(FormatError::CopiesTooLarge { name: name(), bytes: copied, limit });
            }
        }
        self.header.copied_bytes = copied;
        Ok(self)
    }

    /// The tensors that lie row-major in the file, each with its first and last byte + 1.
    pub fn spans(&self) -> impl Iterator<Item = (&TensorInfo, u64, u64)> {
        self.header.tensors.iter().zip(&self.places).filter_map(|(info, place)| match *place {
            TensorPlace::Span { begin, end } => Some((info, begin, end)),
            TensorPlace::Strided { .. } | TensorPlace::Packed(_) | TensorPlace::Owned(_) => None,
        })
    }
}

fn mismatch(name: String, expected: u64, begin: u64, end: u64) -> FormatError {
    FormatError::SizeMismatch { name, expected, begin, end }
}

/// Behind the last byte that a strided tensor reads; `None` where that overflows, or an axis lacks its stride.
fn strided_end(begin: u64, info: &TensorInfo, strides: &[u64]) -> Option<u64> {
    let shape: Vec<u64> = info.shape.iter().map(|axis| *axis as u64).collect();
    extent(&shape, strides)?.checked_mul(info.dtype.size() as u64)?.checked_add(begin)
}

/// Elements from the first to the last one of a strided tensor, both included; `None` where that overflows, or an axis lacks its
/// stride.
pub(super) fn extent(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let axes = shape.iter().zip(strides);
    let last = axes.map(|(axis, stride)| (axis - 1).checked_mul(*stride));
    last.into_iter().try_fold(1_u64, |sum, part| sum.checked_add(part?))
}

/// The strides of a tensor that lies row by row; `None` where they overflow.
pub(super) fn row_major_strides(shape: &[u64]) -> Option<Vec<u64>> {
    let mut strides = vec![1_u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].checked_mul(shape[axis])?;
    }
    Some(strides)
}

/// Whether a strided tensor lies row by row, without gaps; the strides of axes of length 1 do not matter.
#[must_use]
pub fn is_row_major(shape: &[u64], strides: &[u64]) -> bool {
    let Some(expected) = row_major_strides(shape) else { return false };
    let mut axes = shape.iter().zip(strides.iter().zip(&expected));
    shape.contains(&0) || axes.all(|(axis, (stride, expected))| *axis == 1 || stride == expected)
}

/// Checks name, rank and shape of one tensor.
fn checked(entry: TensorEntry) -> Result<(TensorInfo, TensorPlace), FormatError> {
    let TensorEntry { name, dtype, shape, place } = entry;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(FormatError::BadName { start: name.chars().take(32).collect(), len: name.len() });
    }
    if shape.len() > MAX_RANK {
        return Err(FormatError::RankTooHigh(name));
    }
    if byte_size(&shape, dtype).is_none() {
        return Err(FormatError::ShapeTooLarge { name, shape });
    }
    let shape = shape.into_iter().map(|axis| axis as usize).collect();
    Ok((TensorInfo { name, dtype, shape }, place))
}

/// Bytes of a tensor; `None` where any product of its axes (zeros left out) overflows what memory could address.
pub(super) fn byte_size(shape: &[u64], dtype: Dtype) -> Option<u64> {
    let size = dtype.size() as u64;
    let bound = shape.iter().try_fold(size, |product, &axis| product.checked_mul(axis.max(1)))?;
    i64::try_from(bound).ok()?;
    Some(shape.iter().fold(size, |product, &axis| product * axis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[u64], place: TensorPlace) -> Result<Layout, FormatError> {
        let entry = TensorEntry { name: "w".to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), place };
        Layout::of(vec![entry], BTreeMap::new())?.check_within(&Files::one(&[0; 100]))
    }

    #[test]
    fn tensors_lie_within_the_file() {
        let strided = |begin, strides: &[u64]| TensorPlace::Strided { begin, strides: strides.to_vec() };
        assert!(layout(&[5, 5], TensorPlace::Span { begin: 0, end: 100 }).is_ok());
        assert!(matches!(layout(&[5, 5], TensorPlace::Span { begin: 4, end: 104 }), Err(FormatError::Outside { .. })));
        assert!(matches!(layout(&[5], TensorPlace::Span { begin: 4, end: 28 }), Err(FormatError::SizeMismatch { .. })));
        assert!(matches!(layout(&[5], TensorPlace::Owned(vec![0; 16])), Err(FormatError::SizeMismatch { .. })));
        assert!(layout(&[5, 5], strided(0, &[1, 5])).is_ok());
        assert!(layout(&[1 << 20, 5], strided(80, &[0, 1])).is_ok(), "one row, over and over");
        let endless = layout(&[1 << 40, 5], strided(80, &[0, 1]));
        assert!(matches!(endless, Err(FormatError::CopiesTooLarge { .. })));
        assert!(layout(&[0, 5], strided(100, &[9, 9])).is_ok());
        for (shape, place) in [
            (&[5, 5][..], strided(4, &[1, 5])),
            (&[5], strided(0, &[1, 5])),
            (&[5, 5], strided(0, &[u64::MAX, 1])),
            (&[2], strided(u64::MAX, &[1])),
        ] {
            assert!(matches!(layout(shape, place), Err(FormatError::Outside { .. })));
        }
    }

    #[test]
    fn names_ranks_and_sizes_are_bounded() {
        let place = || TensorPlace::Span { begin: 0, end: 0 };
        assert!(matches!(layout(&[0; 9], place()), Err(FormatError::RankTooHigh(_))));
        assert!(matches!(layout(&[1 << 32, 1 << 32], place()), Err(FormatError::ShapeTooLarge { .. })));
        let named =
            |name: &str| TensorEntry { name: name.to_owned(), dtype: Dtype::U8, shape: vec![0], place: place() };
        for (entries, twice) in [(vec![named("")], false), (vec![named("a"), named("a")], true), (Vec::new(), false)] {
            let error = Layout::of(entries, BTreeMap::new()).unwrap_err();
            assert_eq!(matches!(error, FormatError::DuplicateName(_)), twice, "{error}");
        }
    }
}
