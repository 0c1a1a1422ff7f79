//! A folder of the Hugging Face Hub as one zip or tar archive: `model.safetensors`, or its shards and their index.

pub mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use serde::Deserialize;

use self::error::BundleError;
use super::archive::{Archive, Content, shown};
use super::error::FormatError;
use super::foreign::Foreign;
use super::layout::{Entry, Layout, Packed, Place, Source, row_major_strides};
use super::limits::{MAX_ARCHIVE_ENTRIES, MAX_HEADER_BYTES};
use super::safetensors::{self, PREFIX_BYTES};

/// What the names of an index and of its shards end with.
const INDEX: &str = ".safetensors.index.json";
const SHARD: &str = ".safetensors";
/// What the names of PyTorch's files end with.
const TORCH: [&str; 2] = [".bin", ".pt"];
/// Longest index that is read, in bytes.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Which shard holds each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The entries of the tar archive `bytes` that are files.
pub(super) fn tar(bytes: &[u8]) -> Result<Archive<'_>, FormatError> {
    let damaged = |error: std::io::Error| BundleError::Tar(error.to_string());
    let mut tar = tar::Archive::new(Cursor::new(bytes));
    let mut entries = Vec::new();
    // Without the long names of extension headers, which no name that matters needs.
    for entry in tar.entries_with_seek().map_err(damaged)?.raw(true).take(MAX_ARCHIVE_ENTRIES) {
        let entry = entry.map_err(damaged)?;
        if entry.header().entry_type().is_file() {
            let (begin, name) = (entry.raw_file_position(), String::from_utf8_lossy(&entry.path_bytes()).into_owned());
            let end = begin.checked_add(entry.size()).filter(|end| *end <= bytes.len() as u64);
            let end = end.ok_or_else(|| BundleError::Tar(format!("it ends within `{}`", shown(&name))))?;
            entries.push((name, Content::Stored { begin, end }));
        }
    }
    Ok(Archive::of(bytes, entries)?)
}

/// Reads the model in `archive`; none where it holds no file of safetensors.
pub(super) fn read(archive: &Archive<'_>) -> Result<Option<Layout>, FormatError> {
    let ends = |end: &'static str| archive.names().filter(move |name| !is_hidden(name) && name.ends_with(end));
    let shards: Vec<&str> = ends(SHARD).collect();
    let indices: Vec<&str> = ends(INDEX).collect();
    let entries = match (&indices[..], &shards[..]) {
        ([], []) => return Ok(None),
        ([], [one]) => shard(archive, one)?,
        ([index], _) => indexed(archive, index)?,
        _ => {
            let several = indices.iter().chain(&shards).take(8).map(|name| format!("`{}`", shown(name))).collect();
            return Err(BundleError::Several(several).into());
        }
    };
    Layout::of(entries, BTreeMap::from([("format".to_owned(), "pt".to_owned())])).map(Some)
}

/// Whether an operating system has left the file there.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') && part != "." || part == "__MACOSX")
}

/// The tensors that the file `index` names, in the shards beside it.
fn indexed(archive: &Archive<'_>, index: &str) -> Result<Vec<Entry>, FormatError> {
    let fault = |reason: String| BundleError::Index { name: shown(index), reason };
    let bytes = archive.read(index, MAX_INDEX_BYTES)?;
    let Index { weight_map } = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
    let folder = index.rfind('/').map_or("", |end| &index[..=end]);
    let names: BTreeSet<&String> = weight_map.values().collect();
    let missing = names.iter().filter(|name| !archive.has(&format!("{folder}{name}")));
    let missing: Vec<String> = missing.take(8).map(|name| format!("`{}`", shown(name))).collect();
    if !missing.is_empty() {
        return Err(BundleError::MissingShards(missing).into());
    }
    let mut wanted: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        wanted.entry(shard).or_default().insert(tensor);
    }
    let mut entries = Vec::with_capacity(weight_map.len());
    for (name, mut wanted) in wanted {
        let found = shard(archive, &format!("{folder}{name}"))?;
        entries.extend(found.into_iter().filter(|entry| wanted.remove(&entry.name)));
        if let Some(tensor) = wanted.first() {
            return Err(BundleError::MissingTensor { name: shown(tensor), shard: shown(name) }.into());
        }
    }
    Ok(entries)
}

/// The tensors of the safetensors file `name`.
fn shard(archive: &Archive<'_>, name: &str) -> Result<Vec<Entry>, FormatError> {
    let content = archive.content(name)?;
    let prefix = archive.front(name, PREFIX_BYTES)?;
    let header = prefix.first_chunk().map_or(0, |prefix| u64::from_le_bytes(*prefix)).min(MAX_HEADER_BYTES);
    let front = archive.front(name, PREFIX_BYTES + header)?;
    let layout = safetensors::read_layout(&mut &front[..], content.size())
        .map_err(|fault| BundleError::Shard { name: shown(name), fault: fault.to_string() })?;
    let tensors = layout.spans().filter_map(|(info, begin, end)| {
        let shape: Vec<u64> = info.shape.iter().map(|axis| *axis as u64).collect();
        let place = match content {
            Content::Stored { begin: front, .. } => Place::Span { begin: front + begin, end: front + end },
            Content::Deflated(deflated) => Place::Packed(Packed {
                source: Source::Deflated(deflated),
                begin,
                strides: row_major_strides(&shape)?,
                big_endian: false,
            }),
        };
        Some(Entry { name: info.name.clone(), dtype: info.dtype, shape, place })
    });
    Ok(tensors.collect())
}

/// What there is to do about an archive without weights.
pub(super) fn nothing_in(archive: &Archive<'_>, foreign: Foreign) -> FormatError {
    let torch = archive.names().find(|name| TORCH.iter().any(|end| name.ends_with(end)));
    torch.map_or(foreign.into(), |name| FormatError::Within(shown(name)))
}
