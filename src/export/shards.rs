//! Weights as several files of safetensors and their index, in a tar archive: a folder as the Hugging Face Hub has it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::json;

use super::tar;
use crate::model::families;
use crate::model::formats::limits::MAX_FILES;
use crate::model::formats::safetensors::{encode_header, sort_for_file};
use crate::model::graph::Graph;
use crate::model::header::{SHARDS_KEY, TensorInfo};
use crate::tensors::Checkpoint;

/// Most bytes of a shard where no number of them is given.
const SHARD_BYTES: u64 = 5_000_000_000;
const INDEX: &str = "model.safetensors.index.json";

/// Whether the file of a model notes that its members came in shards; not where it cannot be read.
#[must_use]
pub fn came_in_shards(model: &Path) -> bool {
    Checkpoint::open(model).is_ok_and(|model| shards_of(&model).is_some())
}

/// How many shards `checkpoint` was put together from, or its first member was, as its notes say.
#[must_use]
pub fn shards_of(checkpoint: &Checkpoint) -> Option<NonZeroUsize> {
    let names: Vec<String> = serde_json::from_str(checkpoint.metadata().get(SHARDS_KEY)?).ok()?;
    NonZeroUsize::new(names.len())
}

/// Writes the tensors of a checkpoint as at most `shards` files of about the same size, or as many as keep them below 5 GB. The first
/// one states the network.
pub(super) fn write(
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
    shards: Option<NonZeroUsize>,
    out: &mut impl Write,
) -> io::Result<()> {
    let tensors = &checkpoint.header().tensors;
    let total: u64 = tensors.iter().map(bytes).sum();
    let wanted = shards.map_or_else(|| total.div_ceil(SHARD_BYTES), |shards| shards.get() as u64);
    let parts = parts(tensors, wanted.clamp(1, MAX_FILES as u64));
    let name = |place: usize| format!("model-{:05}-of-{:05}.safetensors", place + 1, parts.len());
    let mut map = BTreeMap::new();
    for (place, part) in parts.iter().enumerate() {
        let mut notes = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        if place == 0 {
            notes.extend(graph.map(families::metadata).unwrap_or_default());
        }
        map.extend(part.iter().map(|info| (info.name.clone(), name(place))));
        let front = encode_header(part, &notes);
        let len = front.len() as u64 + part.iter().map(bytes).sum::<u64>();
        tar::file(out, &name(place), len, |out| {
            out.write_all(&front)?;
            part.iter().try_for_each(|info| {
                let (_, bytes) = checkpoint.bytes(&info.name).map_err(io::Error::other)?;
                out.write_all(bytes)
            })
        })?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map}).to_string();
    tar::file(out, INDEX, index.len() as u64, |out| out.write_all(index.as_bytes()))?;
    tar::end(out)
}

fn bytes(info: &TensorInfo) -> u64 {
    info.elements() as u64 * info.dtype.size() as u64
}

/// The tensors of each shard in the order of its file; each tensor is where its middle falls when all are cut into `wanted` equal parts.
fn parts(tensors: &[TensorInfo], wanted: u64) -> Vec<Vec<TensorInfo>> {
    let total = tensors.iter().map(|info| u128::from(bytes(info))).sum::<u128>().max(1);
    let mut parts: BTreeMap<u128, Vec<TensorInfo>> = BTreeMap::new();
    let mut before = 0;
    for info in tensors {
        let own = u128::from(bytes(info));
        let place = ((2 * before + own) * u128::from(wanted) / (2 * total)).min(u128::from(wanted) - 1);
        parts.entry(place).or_default().push(info.clone());
        before += own;
    }
    let mut parts: Vec<Vec<TensorInfo>> = parts.into_values().collect();
    for part in &mut parts {
        sort_for_file(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::header::Dtype;

    #[test]
    fn shards_are_of_about_the_same_size() {
        let tensor = |name: &str, len: usize| TensorInfo { name: name.to_owned(), dtype: Dtype::F32, shape: vec![len] };
        let sizes = |lens: &[usize], wanted| -> Vec<usize> {
            let tensors: Vec<TensorInfo> =
                lens.iter().enumerate().map(|(place, len)| tensor(&format!("{place}"), *len)).collect();
            parts(&tensors, wanted).iter().map(|part| part.iter().map(TensorInfo::elements).sum()).collect()
        };
        assert_eq!(sizes(&[1; 12], 3), [4, 4, 4]);
        assert_eq!(sizes(&[1; 3], 9), [1, 1, 1], "no shard is empty");
        assert_eq!(sizes(&[1, 1, 100, 1, 1], 2), [2, 102]);
        assert_eq!(sizes(&[0, 0], 2), [0], "no bytes at all");
        assert_eq!(sizes(&[5, 7], 1), [12]);
    }
}
