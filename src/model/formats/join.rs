//! One file of safetensors made of several: its header, and where in them each piece of its tensors lies.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bundle::merged;
use super::error::FormatError;
use super::layout::Layout;
use super::limits::MAX_HEADER_BYTES;
use super::safetensors::{PREFIX_BYTES, encode_header, sort_for_file};
use crate::model::header::SHARDS_KEY;

/// What a file is put together from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// How the file begins: length and header.
    pub front: Vec<u8>,
    /// What follows: bytes of the shard in that place of the list.
    pub parts: Vec<(usize, Range<u64>)>,
}

impl Joined {
    /// Length of the file, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.front.len() as u64 + self.parts.iter().map(|(_, range)| range.end - range.start).sum::<u64>()
    }
}

/// Puts `shards`, files of safetensors by their names, together to one.
///
/// # Errors
/// When two hold one tensor, or all together more than one file may.
pub fn join(shards: Vec<(&str, Layout)>) -> Result<Joined, FormatError> {
    let (mut places, mut tensors) = (BTreeMap::new(), Vec::new());
    for (index, (_, layout)) in shards.iter().enumerate() {
        for (info, begin, end) in layout.spans() {
            if places.insert(info.name.clone(), (index, begin..end)).is_some() {
                return Err(FormatError::DuplicateName(info.name.clone()));
            }
            tensors.push(info.clone());
        }
    }
    sort_for_file(&mut tensors);
    let names: Vec<&str> = shards.iter().map(|(name, _)| *name).collect();
    let names = serde_json::json!(names).to_string();
    let mut metadata = merged(shards.into_iter().map(|(_, layout)| layout.metadata));
    metadata.insert(SHARDS_KEY.to_owned(), names);
    let front = encode_header(&tensors, &metadata);
    if front.len() as u64 > PREFIX_BYTES + MAX_HEADER_BYTES {
        return Err(FormatError::HeaderTooLarge(front.len() as u64 - PREFIX_BYTES));
    }
    let mut parts: Vec<(usize, Range<u64>)> = Vec::new();
    for (index, range) in tensors.iter().filter_map(|info| places.remove(&info.name)) {
        match parts.last_mut() {
            Some((last, before)) if *last == index && before.end == range.start => before.end = range.end,
            _ => parts.push((index, range)),
        }
    }
    Ok(Joined { front, parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::formats::read_layout;
    use crate::model::formats::safetensors::encode_header;
    use crate::model::header::{Dtype, TensorInfo};

    /// A file of these tensors, each filled with one byte.
    fn file(tensors: &[(&str, Dtype, usize, u8)], notes: &[(&str, &str)]) -> Vec<u8> {
        let info = |(name, dtype, len, _): &(&str, Dtype, usize, u8)| TensorInfo {
            name: (*name).to_owned(),
            dtype: *dtype,
            shape: vec![*len],
        };
        let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
        let mut bytes = encode_header(&infos, &notes);
        for (_, dtype, len, byte) in tensors {
            bytes.extend(std::iter::repeat_n(*byte, dtype.size() * len));
        }
        bytes
    }

    #[test]
    fn files_are_put_together_to_one_that_is_read() {
        let first = file(&[("a", Dtype::F32, 2, 1), ("n", Dtype::I64, 1, 2)], &[("format", "pt"), ("x", "1")]);
        let second = file(&[("b", Dtype::F32, 1, 3), ("c", Dtype::F32, 3, 4)], &[("format", "pt"), ("x", "2")]);
        let files = [&first[..], &second];
        let shards = files.iter().zip(["1.safetensors", "2.safetensors"]);
        let shards = shards.map(|(bytes, name)| (name, read_layout(bytes).unwrap())).collect();
        let joined = join(shards).unwrap();
        assert_eq!(joined.parts.len(), 3, "neighbours are one piece: {:?}", joined.parts);
        let mut whole = joined.front.clone();
        for (shard, range) in &joined.parts {
            whole.extend_from_slice(&files[*shard][range.start as usize..range.end as usize]);
        }
        assert_eq!(whole.len() as u64, joined.bytes());
        let layout = read_layout(&whole).unwrap();
        for (info, begin, end) in layout.spans() {
            let expected = match info.name.as_str() {
                "a" => 1,
                "n" => 2,
                "b" => 3,
                _ => 4,
            };
            assert!(whole[begin as usize..end as usize].iter().all(|byte| *byte == expected), "{}", info.name);
        }
        assert_eq!(layout.metadata["format"], "pt");
        assert_eq!(layout.metadata.get("x"), None, "they do not agree");
        assert_eq!(layout.metadata[SHARDS_KEY], r#"["1.safetensors","2.safetensors"]"#);
    }

    #[test]
    fn a_tensor_is_in_one_shard_only() {
        let bytes = file(&[("a", Dtype::F32, 2, 1)], &[]);
        let twice = vec![("1", read_layout(&bytes).unwrap()), ("2", read_layout(&bytes).unwrap())];
        assert_eq!(join(twice), Err(FormatError::DuplicateName("a".to_owned())));
    }
}
