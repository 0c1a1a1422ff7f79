//! The gate in front of safetensors files: a header that passes describes the file exactly.
//!
//! The format (huggingface/safetensors, "Format"): eight bytes of header length N (little endian), N bytes of JSON that
//! maps names to `{dtype, shape, data_offsets}`, then the tensors, without holes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::domain::problem::Code;
use crate::model::formats::safetensors_json::{self, TensorEntry};
use crate::model::header::{CheckpointHeader, Dtype, STATED_KEY, TensorInfo};
use crate::model::natural;

/// Longest header that is read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 100_000;
/// Most axes of one tensor.
pub const MAX_RANK: usize = 8;
/// Longest tensor name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Bytes before the header: its length.
pub const PREFIX_BYTES: u64 = 8;

/// Why a file is not a usable safetensors file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Reading failed.
    #[error("the file cannot be read: {detail}")]
    Io {
        /// What kind of failure it is.
        code: Code,
        /// What the system said.
        detail: String,
    },
    /// Not even a header length.
    #[error("the file has {len} bytes; a safetensors file begins with 8 bytes of header length and its header")]
    TooShort {
        /// Length of the file.
        len: u64,
    },
    /// The header would end behind the file.
    #[error(
        "the first 8 bytes announce a header of {header} bytes, but the file has only {len}: it is truncated or not a safetensors file"
    )]
    HeaderOutside {
        /// Announced length.
        header: u64,
        /// Length of the file.
        len: u64,
    },
    /// A header over [`MAX_HEADER_BYTES`].
    #[error("the header has {0} bytes; at most {MAX_HEADER_BYTES} are accepted")]
    HeaderTooLarge(u64),
    /// Not the JSON of the format.
    #[error("the header is not valid: {0}")]
    Header(String),
    /// Two tensors of one name.
    #[error("the header names tensor `{0}` twice")]
    DuplicateName(String),
    /// More than [`MAX_TENSORS`] tensors.
    #[error("the header names more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// No tensor at all.
    #[error("the file holds no tensors")]
    NoTensors,
    /// A name that is empty or over [`MAX_NAME_BYTES`].
    #[error("the tensor name `{start}…` has {len} bytes; 1 to {MAX_NAME_BYTES} are accepted")]
    BadName {
        /// How the name begins.
        start: String,
        /// Its length in bytes.
        len: usize,
    },
    /// More than [`MAX_RANK`] axes.
    #[error("tensor `{0}` has more than {MAX_RANK} axes")]
    RankTooHigh(String),
    /// An element type that we cannot read.
    #[error("tensor `{name}` has the element type `{dtype}`; known are {known}", known = safetensors_json::DTYPE_NAMES.join(", "))]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// What the header says.
        dtype: String,
    },
    /// A shape whose size overflows.
    #[error("the shape {shape:?} of tensor `{name}` is larger than any file")]
    ShapeTooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets that do not match the shape.
    #[error("tensor `{name}` has {expected} bytes by its shape and element type, but its offsets span {begin}..{end}")]
    SizeMismatch {
        /// The tensor.
        name: String,
        /// Bytes by shape and element type.
        expected: u64,
        /// First offset.
        begin: u64,
        /// Last offset.
        end: u64,
    },
    /// A hole or an overlap.
    #[error("tensor `{name}` begins at offset {begin}, but the tensor before it ends at {expected}")]
    NotContiguous {
        /// The tensor.
        name: String,
        /// Where it begins.
        begin: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// The file ends before its last tensor does.
    #[error("the file is truncated: its header describes {expected} bytes, it has {len}")]
    Truncated {
        /// Length by the header.
        expected: u64,
        /// Length of the file.
        len: u64,
    },
    /// The file goes on behind its last tensor.
    #[error(
        "the file has {len} bytes, but its header describes only {expected}: there are bytes behind the last tensor"
    )]
    TrailingBytes {
        /// Length by the header.
        expected: u64,
        /// Length of the file.
        len: u64,
    },
}

/// Where everything lies in a safetensors file of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The tensors, in natural order of their names.
    pub header: CheckpointHeader,
    /// First and last byte + 1 of each tensor in the file, in the order of `header.tensors`.
    pub spans: Vec<(u64, u64)>,
    /// The file's own notes (`__metadata__`).
    pub metadata: BTreeMap<String, String>,
}

/// Length of the whole header (with its 8-byte prefix) of a file that begins with `prefix` and has `file_len` bytes.
///
/// # Errors
/// When the header would be too large or lie outside the file.
pub fn header_bytes(prefix: [u8; 8], file_len: u64) -> Result<u64, FormatError> {
    let header = u64::from_le_bytes(prefix);
    if file_len < PREFIX_BYTES {
        return Err(FormatError::TooShort { len: file_len });
    }
    if header > file_len - PREFIX_BYTES {
        return Err(FormatError::HeaderOutside { header, len: file_len });
    }
    if header > MAX_HEADER_BYTES {
        return Err(FormatError::HeaderTooLarge(header));
    }
    Ok(PREFIX_BYTES + header)
}

/// Reads and checks the header at the front of `source`, a file of `file_len` bytes. Reads no further than the header, so
/// that an upload can be refused by its first bytes.
///
/// # Errors
/// The first fault; see [`FormatError`]. Needs memory in proportion to the header, at most a few times [`MAX_HEADER_BYTES`].
pub fn read_header(source: &mut impl Read, file_len: u64) -> Result<CheckpointHeader, FormatError> {
    read_layout(source, file_len).map(|layout| layout.header)
}

/// As [`read_header`], with the place of each tensor and the file's metadata.
///
/// # Errors
/// The first fault; see [`FormatError`].
pub fn read_layout(source: &mut impl Read, file_len: u64) -> Result<Layout, FormatError> {
    if file_len < PREFIX_BYTES {
        return Err(FormatError::TooShort { len: file_len });
    }
    let io = |error: std::io::Error| FormatError::Io { code: Code::of_system(&error), detail: error.to_string() };
    let mut prefix = [0; 8];
    source.read_exact(&mut prefix).map_err(io)?;
    let data_start = header_bytes(prefix, file_len)?;
    let mut json = Vec::new();
    let read = source.take(data_start - PREFIX_BYTES).read_to_end(&mut json).map_err(io)?;
    if read as u64 != data_start - PREFIX_BYTES {
        return Err(FormatError::Truncated { expected: data_start, len: PREFIX_BYTES + read as u64 });
    }
    let parsed = safetensors_json::parse(&json)?;
    lay_out(parsed.entries, parsed.metadata, data_start, file_len)
}

/// The front of a file that holds `tensors` in this order: length prefix and header, padded to a multiple of 8 bytes.
#[must_use]
pub fn encode_header(tensors: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut begin = 0;
    for info in tensors {
        let end = begin + info.elements() * info.dtype.size();
        let dtype = safetensors_json::dtype_name(info.dtype);
        let entry = serde_json::json!({"dtype": dtype, "shape": info.shape, "data_offsets": [begin, end]});
        entries.insert(info.name.clone(), entry);
        begin = end;
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Checks every tensor by itself, then their places against each other and the file.
fn lay_out(
    entries: Vec<TensorEntry>,
    metadata: BTreeMap<String, String>,
    data_start: u64,
    file_len: u64,
) -> Result<Layout, FormatError> {
    if entries.is_empty() {
        return Err(FormatError::NoTensors);
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
        return Err(FormatError::DuplicateName(twice.name.clone()));
    }
    let mut tensors = entries.into_iter().map(check_entry).collect::<Result<Vec<_>, _>>()?;
    check_places(&mut tensors, data_start, file_len)?;
    tensors.sort_by(|(a, _), (b, _)| natural::compare(&a.name, &b.name));
    let (infos, offsets): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    let spans = offsets.into_iter().map(|(begin, end)| (data_start + begin, data_start + end)).collect();
    // What is no JSON stays a text, which is no graph either: whoever needs the network refuses it with a reason.
    let stated =
        metadata.get(STATED_KEY).map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()));
    Ok(Layout { header: CheckpointHeader { tensors: infos, stated }, spans, metadata })
}

/// One tensor with its offsets.
type Placed = (TensorInfo, (u64, u64));

/// Checks element type, shape and size of one tensor.
fn check_entry(entry: TensorEntry) -> Result<Placed, FormatError> {
    let TensorEntry { name, dtype, shape, offsets: (begin, end) } = entry;
    let Some(dtype) = safetensors_json::dtype(&dtype) else {
        return Err(FormatError::UnknownDtype { name, dtype: dtype.chars().take(32).collect() });
    };
    let Some(expected) = byte_size(&shape, dtype) else {
        return Err(FormatError::ShapeTooLarge { name, shape });
    };
    if end.checked_sub(begin) != Some(expected) {
        return Err(FormatError::SizeMismatch { name, expected, begin, end });
    }
    let shape = shape.into_iter().map(|axis| axis as usize).collect();
    Ok((TensorInfo { name, dtype, shape }, (begin, end)))
}

/// Bytes of a tensor; `None` where any product of its axes (zeros left out) overflows what memory could address.
fn byte_size(shape: &[u64], dtype: Dtype) -> Option<u64> {
    let size = dtype.size() as u64;
    let bound = shape.iter().try_fold(size, |product, &axis| product.checked_mul(axis.max(1)))?;
    i64::try_from(bound).ok()?;
    Some(shape.iter().fold(size, |product, &axis| product * axis))
}

/// Checks that the tensors fill the file without holes, overlaps and rests.
fn check_places(tensors: &mut [Placed], data_start: u64, file_len: u64) -> Result<(), FormatError> {
    tensors.sort_by_key(|(_, offsets)| *offsets);
    let mut expected = 0;
    for (info, (begin, end)) in &*tensors {
        if *begin != expected {
            return Err(FormatError::NotContiguous { name: info.name.clone(), begin: *begin, expected });
        }
        expected = *end;
    }
    let described = data_start.saturating_add(expected);
    match described.cmp(&file_len) {
        std::cmp::Ordering::Greater => Err(FormatError::Truncated { expected: described, len: file_len }),
        std::cmp::Ordering::Less => Err(FormatError::TrailingBytes { expected: described, len: file_len }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
