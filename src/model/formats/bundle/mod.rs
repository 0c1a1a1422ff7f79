//! A model's folder as one zip or tar archive: `model.safetensors`, or shards and their index, or an ONNX model and its data; and the
//! same files on their own.

pub mod error;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use self::error::BundleError;
use super::archive::{Deflated, EntryContent, MappedArchive, shown};
use super::error::FormatError;
use super::files::Files;
use super::foreign::Foreign;
use super::index;
use super::layout::{ByteSource, Layout, Packed, TensorEntry, TensorPlace, row_major_strides};
use super::limits::{MAX_ARCHIVE_ENTRIES, MAX_HEADER_BYTES, MAX_INDEX_BYTES, MAX_UNPACKED_BYTES};
use super::onnx::{self, Beside, OnnxModel};
use super::protobuf::Piece;
use super::safetensors::{self, PREFIX_BYTES};
use crate::model::header::{SHARDS_KEY, STATED_KEY};

/// What the names of an index and of its shards end with.
const INDEX: &str = ".safetensors.index.json";
const SHARD: &str = ".safetensors";
/// What the names of ONNX models end with.
const NETWORK: &str = ".onnx";
/// What the names of PyTorch's files end with.
const TORCH: [&str; 2] = [".bin", ".pt"];
/// Files that models of other libraries have.
const OTHERS: [(&str, Foreign); 2] = [("model.weights.h5", Foreign::Keras), ("saved_model.pb", Foreign::TensorFlow)];

/// The entries of the tar archive `bytes` that are files.
pub(super) fn tar(bytes: &[u8]) -> Result<MappedArchive<'_>, FormatError> {
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
            entries.push((name, EntryContent::Stored { begin, end }));
        }
    }
    Ok(MappedArchive::of(Files::one(bytes), entries)?)
}

/// Reads the model in `archive`; none where it holds no file of safetensors and no ONNX model.
pub(super) fn read(archive: &MappedArchive<'_>) -> Result<Option<Layout>, FormatError> {
    let ends = |end: &'static str| archive.names().filter(move |name| !is_hidden(name) && name.ends_with(end));
    let shards: Vec<&str> = ends(SHARD).collect();
    let indices: Vec<&str> = ends(INDEX).collect();
    let networks: Vec<&str> = ends(NETWORK).collect();
    match (&indices[..], &shards[..], &networks[..]) {
        ([], [], []) => Ok(None),
        ([], [], [one]) => onnx(archive, one).map(Some),
        ([], [one], _) => {
            let (entries, metadata) = shard(archive, one)?;
            Layout::of(entries, metadata).map(Some)
        }
        ([index], ..) => indexed(archive, index).map(Some),
        _ => {
            let several = indices.iter().chain(&shards).chain(&networks).map(|name| shown(name)).collect();
            Err(BundleError::Several(several).into())
        }
    }
}

/// The notes of several shards as those of the model: what some of them say, and none otherwise.
pub fn merged(notes: impl IntoIterator<Item = BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (key, value) in notes.into_iter().flatten() {
        let known = all.entry(key).or_insert_with(|| Some(value.clone()));
        if known.as_ref() != Some(&value) {
            *known = None;
        }
    }
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Whether an operating system has left the file there.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') && part != "." || part == "__MACOSX")
}

/// The folder that the file `name` lies in, with its last separator.
fn folder(name: &str) -> &str {
    name.rfind('/').map_or("", |end| &name[..=end])
}

/// Checks that all files `names` lie in `folder`.
fn check_all<'a>(
    archive: &MappedArchive<'_>,
    folder: &str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), BundleError> {
    let missing: Vec<String> =
        names.filter(|name| !archive.has(&format!("{folder}{name}"))).map(|name| shown(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(BundleError::Missing(missing)) }
}

/// Reads the model whose tensors the file `index` names, in the shards beside it. Each shard holds the tensors that the index names
/// there, no more and no fewer.
pub(super) fn indexed(archive: &MappedArchive<'_>, index: &str) -> Result<Layout, FormatError> {
    let bytes = archive.read(index, MAX_INDEX_BYTES)?;
    let shards =
        index::parse(&bytes).map_err(|fault| BundleError::Index { name: shown(index), fault: fault.to_string() })?;
    let folder = folder(index);
    check_all(archive, folder, shards.keys())?;
    let (mut entries, mut notes) = (Vec::new(), Vec::with_capacity(shards.len()));
    for (name, wanted) in &shards {
        let (found, metadata) = shard(archive, &format!("{folder}{name}"))?;
        check_shard(name, wanted, found.iter().map(|entry| entry.name.as_str()))?;
        entries.extend(found);
        notes.push(metadata);
    }
    let mut notes = merged(notes);
    notes.insert(SHARDS_KEY.to_owned(), serde_json::json!(shards.keys().collect::<Vec<_>>()).to_string());
    Layout::of(entries, notes)
}

/// Checks that the shard `name` holds just the tensors that its index names there.
///
/// # Errors
/// Names the first tensor that is missing, or too many.
pub fn check_shard<'a>(
    name: &str,
    wanted: &BTreeSet<String>,
    held: impl Iterator<Item = &'a str>,
) -> Result<(), BundleError> {
    let held: BTreeSet<&str> = held.collect();
    let fault = |tensor: &str| (shown(tensor), shown(name));
    if let Some(tensor) = wanted.iter().find(|tensor| !held.contains(tensor.as_str())) {
        let (name, shard) = fault(tensor);
        return Err(BundleError::MissingTensor { name, shard });
    }
    if let Some(tensor) = held.iter().find(|tensor| !wanted.contains(**tensor)) {
        let (name, shard) = fault(tensor);
        return Err(BundleError::StrayTensor { name, shard });
    }
    Ok(())
}

/// A file of an ONNX model: its bytes, and where places in it count from.
struct Member<'a> {
    bytes: Cow<'a, [u8]>,
    begin: u64,
    /// Where it is not there as it is; places then count behind all files.
    deflated: Option<Deflated>,
}

/// Reads the ONNX model `name`, whose data may lie in files beside it.
pub(super) fn onnx(archive: &MappedArchive<'_>, name: &str) -> Result<Layout, FormatError> {
    let mut unpacked = 0;
    let model = member(archive, name, &mut unpacked)?;
    let names = onnx::files(&model.bytes)?;
    let folder = folder(name);
    check_all(archive, folder, names.iter())?;
    let data = names.iter().map(|name| member(archive, &format!("{folder}{name}"), &mut unpacked));
    let data: Vec<Member<'_>> = data.collect::<Result<_, _>>()?;
    let beside: Beside<'_> = names.iter().cloned().zip(data.iter().map(piece)).collect();
    let OnnxModel { graph, mut tensors } = onnx::read_with(piece(&model), &beside)?;
    let packed: Vec<&Member<'_>> = data.iter().chain([&model]).filter(|member| member.deflated.is_some()).collect();
    for entry in &mut tensors {
        pack(entry, &packed);
    }
    let stated = serde_json::json!(graph).to_string();
    Layout::of(tensors, BTreeMap::from([(STATED_KEY.to_owned(), stated)]))
}

/// The file `name`; deflated ones are unpacked as long as all of them are small, and `unpacked` counts their bytes.
fn member<'a>(archive: &MappedArchive<'a>, name: &str, unpacked: &mut u64) -> Result<Member<'a>, FormatError> {
    let content = archive.content(name)?;
    let EntryContent::Deflated(deflated) = content else {
        let begin = if let EntryContent::Stored { begin, .. } = content { begin } else { 0 };
        return Ok(Member { bytes: archive.read(name, u64::MAX)?, begin, deflated: None });
    };
    let begin = archive.files().len() + *unpacked;
    *unpacked = unpacked.saturating_add(deflated.size);
    if *unpacked > MAX_UNPACKED_BYTES {
        return Err(BundleError::Deflated(*unpacked).into());
    }
    Ok(Member { bytes: archive.read(name, deflated.size)?, begin, deflated: Some(deflated) })
}

fn piece<'a>(member: &'a Member<'_>) -> Piece<'a> {
    Piece { bytes: &member.bytes, begin: member.begin as usize }
}

/// Says of a tensor that lies in one of the files `packed` where that is in its archive.
fn pack(entry: &mut TensorEntry, packed: &[&Member<'_>]) {
    let (begin, strides) = match &entry.place {
        TensorPlace::Span { begin, .. } => (*begin, row_major_strides(&entry.shape)),
        TensorPlace::Strided { begin, strides } => (*begin, Some(strides.clone())),
        TensorPlace::Packed(_) | TensorPlace::Owned(_) => return,
    };
    let holds = |member: &&&Member<'_>| (member.begin..member.begin + member.bytes.len() as u64).contains(&begin);
    let found = packed.iter().find(holds).and_then(|member| Some((member.begin, member.deflated?)));
    if let (Some((front, deflated)), Some(strides)) = (found, strides) {
        let source = ByteSource::Deflated(deflated);
        entry.place = TensorPlace::Packed(Packed { source, begin: begin - front, strides, big_endian: false });
    }
}

/// The tensors of the safetensors file `name`, and its notes.
fn shard(archive: &MappedArchive<'_>, name: &str) -> Result<(Vec<TensorEntry>, BTreeMap<String, String>), FormatError> {
    let content = archive.content(name)?;
    let prefix = archive.front(name, PREFIX_BYTES)?;
    let header = prefix.first_chunk().map_or(0, |prefix| u64::from_le_bytes(*prefix)).min(MAX_HEADER_BYTES);
    let front = archive.front(name, PREFIX_BYTES + header)?;
    let layout = safetensors::read_layout(&mut &front[..], content.size())
        .map_err(|fault| BundleError::Shard { name: shown(name), fault: fault.to_string() })?;
    let tensors = layout.spans().filter_map(|(info, begin, end)| {
        let shape: Vec<u64> = info.shape.iter().map(|axis| *axis as u64).collect();
        let place = match content {
            EntryContent::Stored { begin: front, .. } => TensorPlace::Span { begin: front + begin, end: front + end },
            EntryContent::Deflated(deflated) => TensorPlace::Packed(Packed {
                source: ByteSource::Deflated(deflated),
                begin,
                strides: row_major_strides(&shape)?,
                big_endian: false,
            }),
        };
        Some(TensorEntry { name: info.name.clone(), dtype: info.dtype, shape, place })
    });
    Ok((tensors.collect(), layout.metadata.clone()))
}

/// What there is to do about an archive without weights.
pub(super) fn nothing_in(archive: &MappedArchive<'_>, foreign: Foreign) -> FormatError {
    for (name, kind) in OTHERS {
        if archive
            .names()
            .any(|entry| entry.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/')))
        {
            return kind.into();
        }
    }
    let torch = archive.names().find(|name| TORCH.iter().any(|end| name.ends_with(end)));
    torch.map_or(foreign.into(), |name| FormatError::Within(shown(name)))
}
