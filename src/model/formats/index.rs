//! The index of a model in several files of safetensors (`model.safetensors.index.json`): `{"metadata": {...}, "weight_map": {TENSOR:
//! FILE}}`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use super::files::is_plain_name;
use super::foreign::Foreign;
use super::limits::{MAX_FILES, MAX_INDEX_BYTES, MAX_NAME_BYTES, MAX_TENSORS};

/// The tensors that each shard holds, by the shards' file names.
pub type Shards = BTreeMap<String, BTreeSet<String>>;

/// Why a file is no index of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// JSON of another kind.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// Not what an index holds.
    #[error("the index of shards cannot be read: {0}")]
    EntryContent(String),
}

/// Reads the index `json`. Needs memory in proportion to it.
///
/// # Errors
/// When it is no index, names a tensor twice, more than is read, or anything but files beside it.
pub fn parse(json: &[u8]) -> Result<Shards, IndexError> {
    if json.len() as u64 > MAX_INDEX_BYTES {
        return Err(IndexError::EntryContent(format!(
            "it has {} bytes; at most {MAX_INDEX_BYTES} are read",
            json.len()
        )));
    }
    let index: Index = serde_json::from_slice(json).map_err(|error| IndexError::EntryContent(error.to_string()))?;
    let WeightMap(shards) = index.weight_map.ok_or(Foreign::Json)?;
    if shards.is_empty() {
        return Err(IndexError::EntryContent("it names no tensors".to_owned()));
    }
    Ok(shards)
}

#[derive(Deserialize)]
struct Index {
    weight_map: Option<WeightMap>,
}

struct WeightMap(Shards);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor).map(Self)
    }
}

struct MapVisitor;

impl<'de> Visitor<'de> for MapVisitor {
    type Value = Shards;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`weight_map` as an object of file names by tensor names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shards, A::Error> {
        let fault = |detail: String| Err(A::Error::custom(detail));
        let (mut shards, mut names) = (Shards::new(), BTreeSet::new());
        while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
            let shown = |name: &str| name.chars().take(80).collect::<String>();
            if tensor.is_empty() || tensor.len() > MAX_NAME_BYTES {
                return fault(format!("the tensor name `{}…` has {} bytes", shown(&tensor), tensor.len()));
            }
            if !is_plain_name(&shard) {
                return fault(format!("`{}` is not the name of a file beside the index", shown(&shard).escape_debug()));
            }
            if names.len() == MAX_TENSORS {
                return fault(format!("it names more than {MAX_TENSORS} tensors"));
            }
            if !names.insert(tensor.clone()) {
                return fault(format!("it names the tensor `{}` twice", shown(&tensor)));
            }
            shards.entry(shard).or_default().insert(tensor);
            if shards.len() > MAX_FILES {
                return fault(format!("it names more than {MAX_FILES} files"));
            }
        }
        Ok(shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_what_each_shard_holds() {
        let json = br#"{"metadata": {"total_size": 12}, "weight_map": {"b": "2.safetensors", "a": "1.safetensors", "c": "2.safetensors"}}"#;
        let shards = parse(json).unwrap();
        assert_eq!(shards.len(), 2);
        assert_eq!(shards["2.safetensors"], BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn what_is_no_index_is_refused_with_its_reason() {
        let many: Vec<String> = (0..=MAX_TENSORS).map(|at| format!("\"{at}\":\"s\"")).collect();
        let files: Vec<String> = (0..=MAX_FILES).map(|at| format!("\"{at}\":\"{at}\"")).collect();
        let map = |entries: &str| format!("{{\"weight_map\":{{{entries}}}}}");
        let long = format!("\"{}\":\"s\"", "x".repeat(600));
        for (json, said) in [
            ("{".to_owned(), "cannot be read"),
            ("{}".to_owned(), "JSON"),
            ("{\"weight_map\": 3}".to_owned(), "weight_map"),
            (map(""), "no tensors"),
            (map("\"a\":\"s\",\"a\":\"s\""), "twice"),
            (map("\"a\":\"../s\""), "not the name of a file"),
            (map("\"a\":\"/etc/passwd\""), "not the name of a file"),
            (map("\"a\":\"\""), "not the name of a file"),
            (map("\"a\":7"), "string"),
            (map(&long), "600 bytes"),
            (map(&many.join(",")), "more than 100000 tensors"),
            (map(&files.join(",")), "more than 1024 files"),
            (format!("{}{}", map("\"a\":\"s\""), " ".repeat(MAX_INDEX_BYTES as usize)), "at most"),
        ] {
            let error = parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
