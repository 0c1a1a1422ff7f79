//! The gate in front of safetensors files: a header that passes describes the file exactly.
//!
//! The format (huggingface/safetensors, "Format"): eight bytes of header length N (little endian), N bytes of JSON that
//! maps names to `{dtype, shape, data_offsets}`, then the tensors, without holes.

use std::collections::BTreeMap;
use std::io::Read;

use crate::domain::problem::Code;
use crate::model::formats::error::FormatError;
use crate::model::formats::layout::{Layout, TensorEntry, TensorPlace, byte_size};
use crate::model::formats::limits::MAX_HEADER_BYTES;
use crate::model::formats::safetensors_json::{self, JsonEntry};
use crate::model::header::{CheckpointHeader, TensorInfo};
use crate::model::natural;

/// Bytes before the header: its length.
pub const PREFIX_BYTES: u64 = 8;

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
    read_layout(source, file_len).map(|layout| layout.without_counter().header)
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

/// Wide elements first, so that every tensor is aligned; natural order among equals.
pub fn sort_for_file(infos: &mut [TensorInfo]) {
    infos.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| natural::compare(&a.name, &b.name)));
}

/// Checks every tensor by itself, then their places against each other and the file.
fn lay_out(
    entries: Vec<JsonEntry>,
    metadata: BTreeMap<String, String>,
    data_start: u64,
    file_len: u64,
) -> Result<Layout, FormatError> {
    let entries: Vec<TensorEntry> =
        entries.into_iter().map(|entry| check_entry(entry, data_start)).collect::<Result<_, _>>()?;
    let layout = Layout::of(entries, metadata)?;
    check_places(&layout, data_start, file_len)?;
    Ok(layout)
}

/// Checks element type and size of one tensor.
fn check_entry(entry: JsonEntry, data_start: u64) -> Result<TensorEntry, FormatError> {
    let JsonEntry { name, dtype, shape, offsets: (begin, end) } = entry;
    let Some(dtype) = safetensors_json::dtype(&dtype) else {
        return Err(FormatError::UnknownDtype { name, dtype: dtype.chars().take(32).collect() });
    };
    let Some(expected) = byte_size(&shape, dtype) else {
        return Err(FormatError::ShapeTooLarge { name, shape });
    };
    if end.checked_sub(begin) != Some(expected) {
        return Err(FormatError::SizeMismatch { name, expected, begin, end });
    }
    // Beyond any file where it overflows; `check_places` says so.
    let place = TensorPlace::Span { begin: data_start.saturating_add(begin), end: data_start.saturating_add(end) };
    Ok(TensorEntry { name, dtype, shape, place })
}

/// Checks that the tensors fill the file without holes, overlaps and rests.
fn check_places(layout: &Layout, data_start: u64, file_len: u64) -> Result<(), FormatError> {
    let mut spans: Vec<_> = layout.spans().collect();
    spans.sort_by_key(|(_, begin, end)| (*begin, *end));
    let mut expected = data_start;
    for (info, begin, end) in spans {
        if begin != expected {
            let (begin, expected) = (begin - data_start, expected - data_start);
            return Err(FormatError::NotContiguous { name: info.name.clone(), begin, expected });
        }
        expected = end;
    }
    match expected.cmp(&file_len) {
        std::cmp::Ordering::Greater => Err(FormatError::Truncated { expected, len: file_len }),
        std::cmp::Ordering::Less => Err(FormatError::TrailingBytes { expected, len: file_len }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
