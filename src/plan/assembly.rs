//! One checkpoint put together from an index and its shards: which file is which shard.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::name::FileName;
use crate::domain::problem::{Fault, FaultCode};
use crate::model::formats::bundle::check_shard;
use crate::model::header::CheckpointHeader;

/// What is to be put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembly {
    /// The id or name of the index.
    pub index: String,
    /// The ids or names of the shards; where there are none, they are found by the names that the index has for them.
    pub shards: Vec<String>,
    /// What the checkpoint will be called.
    pub name: FileName,
    /// The client's own marks on it.
    pub labels: BTreeMap<String, String>,
}

/// A checkpoint that may be a shard.
#[derive(Debug, Clone, Copy)]
pub struct PossibleShard<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: &'a str,
    /// Its tensors.
    pub header: &'a CheckpointHeader,
}

/// The place among `candidates` of each of the `shards` that an index names, in the order of their names. A candidate is the shard
/// whose tensors it holds, all of them and no others, whatever its name.
///
/// # Errors
/// A fault for each candidate that is no shard, for shards that several different files could be, and one for all that are missing.
/// `pointer` says where in the request a candidate stands.
pub fn assign(
    shards: &BTreeMap<String, BTreeSet<String>>,
    candidates: &[PossibleShard<'_>],
    pointer: impl Fn(usize) -> String,
) -> Result<Vec<usize>, Vec<Fault>> {
    let tensors = shards.iter().flat_map(|(shard, tensors)| tensors.iter().map(move |tensor| (tensor.as_str(), shard)));
    let shard_of: BTreeMap<&str, &String> = tensors.collect();
    let mut found: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let first = candidate.header.tensors.iter().find_map(|info| shard_of.get(info.name.as_str()));
        let held = candidate.header.tensors.iter().map(|info| info.name.as_str());
        let wrong = match first {
            Some(shard) => check_shard(shard, &shards[*shard], held).err().map(|fault| fault.to_string()),
            None => Some("it holds no tensor that the index names".to_owned()),
        };
        match (first, wrong) {
            (Some(shard), None) => found.entry(shard).or_default().push(place),
            (_, wrong) => {
                let detail = format!("`{}` is no shard of the index: {}", candidate.name, wrong.unwrap_or_default());
                faults.push(Fault::new(pointer(place), FaultCode::InvalidValue, detail));
            }
        }
    }
    for (shard, places) in &found {
        let digests: BTreeSet<&str> = places.iter().map(|place| candidates[*place].sha256).collect();
        if digests.len() > 1 {
            let each = places.iter().map(|place| &candidates[*place]);
            let each: Vec<String> = each.map(|file| format!("{} (SHA-256 {})", file.id, file.sha256)).collect();
            let detail = format!("several files hold the tensors of `{shard}`: {}; name one of them", each.join(", "));
            faults.push(Fault::new(pointer(places[places.len() - 1]), FaultCode::InvalidValue, detail));
        }
    }
    let missing = shards.iter().filter(|(name, _)| !found.contains_key(name));
    let missing: Vec<String> = missing.map(|(name, held)| format!("`{name}` ({} tensors)", held.len())).collect();
    if !missing.is_empty() {
        let detail = format!(
            "shards are missing: {}; upload them under these names, or name them in `shards`",
            missing.join(", ")
        );
        faults.push(Fault::new("/shards", FaultCode::UnknownCheckpoint, detail));
    }
    if faults.is_empty() { Ok(found.into_values().map(|places| places[0]).collect()) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> BTreeMap<String, BTreeSet<String>> {
        let shard = |name: &str, tensors: &[&str]| {
            (name.to_owned(), tensors.iter().map(|tensor| (*tensor).to_owned()).collect())
        };
        BTreeMap::from([shard("1", &["a", "b"]), shard("2", &["c"])])
    }

    fn details(candidates: &[(&str, &[&str], &str)]) -> Result<Vec<usize>, String> {
        let headers: Vec<CheckpointHeader> = candidates
            .iter()
            .map(|(_, tensors, _)| {
                CheckpointHeader::of_floats(&tensors.iter().map(|name| (*name, &[1][..])).collect::<Vec<_>>())
            })
            .collect();
        let files: Vec<PossibleShard<'_>> = candidates
            .iter()
            .zip(&headers)
            .map(|((id, _, sha256), header)| PossibleShard { id, name: id, sha256, header })
            .collect();
        let said = |fault: &Fault| format!("{} {}", fault.pointer, fault.detail);
        assign(&index(), &files, |place| format!("/shards/{place}"))
            .map_err(|faults| faults.iter().map(said).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_file_is_the_shard_whose_tensors_it_holds() {
        assert_eq!(details(&[("x", &["c"], "0"), ("y", &["a", "b"], "1")]), Ok(vec![1, 0]));
        assert_eq!(details(&[("x", &["c"], "0"), ("y", &["a", "b"], "1"), ("z", &["c"], "0")]), Ok(vec![1, 0]));
    }

    #[test]
    fn every_fault_is_named() {
        let error =
            details(&[("x", &["c"], "0"), ("y", &["a"], "1"), ("z", &["c"], "2"), ("v", &["o"], "3")]).unwrap_err();
        for part in [
            "/shards/1 `y` is no shard of the index: the index says that `1` holds the tensor `b`",
            "/shards/3 `v` is no shard of the index: it holds no tensor",
            "/shards/2 several files hold the tensors of `2`: x (SHA-256 0), z (SHA-256 2)",
            "/shards shards are missing: `1` (2 tensors)",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let error = details(&[("x", &["a", "b", "c"], "0")]).unwrap_err();
        assert!(error.contains("does not name there") && error.contains("`1` (2 tensors), `2` (1 tensors)"), "{error}");
    }
}
