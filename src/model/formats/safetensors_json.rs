//! The JSON of a safetensors header, read with limits: a hostile header is refused while it is read, not afterwards.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::error::FormatError;
use super::limits::{MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS};
use crate::model::header::{DTYPES, Dtype};

/// The element type that the format calls `name`.
pub(super) fn dtype(name: &str) -> Option<Dtype> {
    DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

/// What the format calls `dtype`.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    DTYPES.iter().find(|(_, known)| *known == dtype).map_or("F32", |(name, _)| *name)
}

/// One tensor as the header has it.
#[derive(Debug)]
pub(super) struct JsonEntry {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) offsets: (u64, u64),
}

/// The header as it stands, nothing but its limits checked.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) entries: Vec<JsonEntry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads the header's JSON.
pub(super) fn parse(json: &[u8]) -> Result<Parsed, FormatError> {
    if json.first() != Some(&b'{') {
        return Err(FormatError::Header("it does not begin with `{`".to_owned()));
    }
    let mut parsed = Parsed::default();
    let mut limit = None;
    let mut source = serde_json::Deserializer::from_slice(json);
    let seed = HeaderSeed { parsed: &mut parsed, limit: &mut limit };
    let outcome = seed.deserialize(&mut source).and_then(|()| source.end());
    match (limit, outcome) {
        (Some(limit), _) => Err(limit),
        (None, Err(error)) => Err(FormatError::Header(error.to_string())),
        (None, Ok(())) => Ok(parsed),
    }
}

/// Fills `parsed`; a limit that was broken is left in `limit`, because serde's own errors are only text.
struct HeaderSeed<'a> {
    parsed: &'a mut Parsed,
    limit: &'a mut Option<FormatError>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(A::Error::custom("`__metadata__` appears twice"));
                }
                self.parsed.metadata = map.next_value::<Metadata>()?.0;
                continue;
            }
            if let Some(limit) = broken_limit(&name, self.parsed.entries.len()) {
                *self.limit = Some(limit);
                return Err(A::Error::custom("limit"));
            }
            let entry = map.next_value::<RawEntry>()?;
            let Some(shape) = entry.shape.0 else {
                *self.limit = Some(FormatError::RankTooHigh(name));
                return Err(A::Error::custom("limit"));
            };
            self.parsed.entries.push(JsonEntry { name, dtype: entry.dtype, shape, offsets: entry.data_offsets });
        }
        Ok(())
    }
}

/// The limit that one more tensor called `name` would break.
fn broken_limit(name: &str, tensors: usize) -> Option<FormatError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Some(FormatError::BadName { start: name.chars().take(32).collect(), len: name.len() });
    }
    (tensors >= MAX_TENSORS).then_some(FormatError::TooManyTensors)
}

/// A tensor's value in the header; serde refuses unknown and repeated keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: RawShape,
    data_offsets: (u64, u64),
}

/// A shape, or `None` where it has more than [`MAX_RANK`] axes.
struct RawShape(Option<Vec<u64>>);

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = RawShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawShape, A::Error> {
                let mut shape = Vec::new();
                let mut rank = 0_usize;
                while let Some(axis) = list.next_element::<u64>()? {
                    rank += 1;
                    if rank <= MAX_RANK {
                        shape.push(axis);
                    }
                }
                Ok(RawShape((rank <= MAX_RANK).then_some(shape)))
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

/// A map of text to text without repeated keys.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`__metadata__` as an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut metadata = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if metadata.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key of `__metadata__` appears twice"));
                    }
                }
                Ok(Metadata(metadata))
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}
