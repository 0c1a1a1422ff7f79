//! Which format a file has, by its content, and how each format's arrays reach the intake.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::archive::{Archive, ArchiveListing, Container, Entry, components, is_tar_header, shortened};
use super::arrays::{self, Array, ArrayRole, Roles};
use super::elements::Element;
use super::folders::{Image, ImageLayout};
use super::intake::{DatasetBuilder, SplitName};
use super::table::Table;
use super::{
    Dataset, DatasetError, Limits, cifar, cifar_python, expect_file, folders, idx, images, parquet, table, tabled,
};
use crate::domain::dataset::DatasetFormat;
use crate::model::formats::{npy, safetensors};

/// A table of labels above this size is none.
const MAX_TABLE_BYTES: u64 = 256 << 20;

/// What a file is by its first bytes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Safetensors,
    Npy,
    Parquet,
    Archive(Container),
}

/// The format and, where the files name them, the classes.
pub(super) type Recognised = (DatasetFormat, Option<Vec<String>>);

impl Dataset {
    /// Decodes the dataset `path` into files without names in `folder`, with the checks of [`super::inspect`].
    ///
    /// # Errors
    /// The first fault, in words for the dataset's owner; or the file system's, as where `folder` has no room.
    pub fn open(path: &Path, folder: &Path, limits: &Limits) -> Result<Self, DatasetError> {
        let mut intake = DatasetBuilder::new(limits, Some(folder));
        let (format, class_names) = read(path, limits, &mut intake)?;
        intake.finish(format, class_names)?.dataset()
    }
}

/// Reads the dataset `path` into `intake`.
///
/// # Errors
/// The first fault.
pub(super) fn read(path: &Path, limits: &Limits, intake: &mut DatasetBuilder<'_>) -> Result<Recognised, DatasetError> {
    match detect(path)? {
        Kind::Safetensors => read_safetensors(path, intake).map(|()| (DatasetFormat::Safetensors, None)),
        Kind::Npy => read_inputs(path, intake).map(|()| (DatasetFormat::Npy, None)),
        Kind::Parquet => {
            parquet::read_file(open(path)?, limits, intake).map(|classes| (DatasetFormat::Parquet, classes))
        }
        Kind::Archive(container) => read_archive(Archive { path, container, limits }, intake),
    }
}

fn open(path: &Path) -> Result<File, DatasetError> {
    File::open(path).map_err(io(path))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> DatasetError {
    move |source| DatasetError::Io { path: path.to_owned(), source }
}

fn detect(path: &Path) -> Result<Kind, DatasetError> {
    expect_file(path)?;
    let mut file = open(path)?;
    let start = first_block(&mut file).map_err(io(path))?;
    file.rewind().map_err(io(path))?;
    if start.is_empty() {
        return Err(DatasetError::Empty);
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Ok(Kind::Archive(Container::Zip));
    }
    if is_tar(&start) {
        return Ok(Kind::Archive(Container::Tar));
    }
    if start.starts_with(&[0x1f, 0x8b]) && first_block(&mut MultiGzDecoder::new(file)).is_ok_and(|block| is_tar(&block))
    {
        return Ok(Kind::Archive(Container::TarGz));
    }
    if start.starts_with(npy::MAGIC) {
        return Ok(Kind::Npy);
    }
    if start.starts_with(parquet::MAGIC) {
        return Ok(Kind::Parquet);
    }
    // A length below 2^24, then JSON.
    if start.get(3..9) == Some(b"\0\0\0\0\0{") {
        return Ok(Kind::Safetensors);
    }
    let start: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Err(DatasetError::UnknownFormat { start: start.join(" ") })
}

/// Up to 512 bytes.
fn first_block(source: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut block = Vec::new();
    source.take(512).read_to_end(&mut block)?;
    Ok(block)
}

fn is_tar(block: &[u8]) -> bool {
    block.try_into().is_ok_and(is_tar_header)
}

fn read_safetensors(path: &Path, intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let mut file = open(path)?;
    let length = file.metadata().map_err(io(path))?.len();
    let layout = safetensors::read_layout(&mut file, length)?;
    let mut roles = Roles::default();
    for (info, begin, end) in layout.spans() {
        let Some(role) = ArrayRole::of(&info.name) else { continue };
        roles.insert(role, &info.name)?;
        file.seek(SeekFrom::Start(begin)).map_err(io(path))?;
        let array = Array {
            name: &info.name,
            element: Element::little_endian(info.dtype),
            shape: &info.shape,
            fortran: false,
            source: &mut BufReader::new(&file).take(end - begin),
        };
        arrays::read(array, role, intake)?;
    }
    if roles.are_unlabelled() {
        intake.leave_unlabelled();
        return Ok(());
    }
    let names = layout.header.tensors.iter().map(|info| info.name.as_str());
    roles.check(arrays::array_name, &listed(names))
}

fn read_archive(archive: Archive<'_>, intake: &mut DatasetBuilder<'_>) -> Result<Recognised, DatasetError> {
    let ArchiveListing { files: names, folders } = archive.listing()?;
    if names.iter().any(|name| array_of(name).is_some()) {
        read_npz(archive, &names, intake)?;
        return Ok((DatasetFormat::Npz, None));
    }
    if names.iter().any(|name| idx::role(name).is_some()) {
        read_idx(archive, &names, intake)?;
        return Ok((DatasetFormat::Idx, None));
    }
    if names.iter().any(|name| cifar::is_batch(name)) {
        return Ok((DatasetFormat::CifarBinary, cifar::read(archive, intake)?));
    }
    if cifar_python::is_in(&names) {
        return Ok((DatasetFormat::CifarPython, cifar_python::read(archive, intake)?));
    }
    if parquet::is_in(&names) {
        return Ok((DatasetFormat::Parquet, parquet::read_archive(archive, &names, intake)?));
    }
    let (images, skipped) = folders::images(&names)?;
    if images.is_empty() {
        return Err(DatasetError::NoDataset { found: listed(names.iter().map(String::as_str)) });
    }
    let (format, plan) = match tabled(archive, &names, &images, &skipped)? {
        Some(plan) => (DatasetFormat::LabelTable, plan),
        None => (DatasetFormat::ClassFolders, folders::plan(&names, &folders, images, skipped)?),
    };
    images::read(archive, &plan, intake)?;
    Ok((format, plan.class_names))
}

/// What tables say of `images`; none where these lie in class folders, or no table names any.
fn tabled(
    archive: Archive<'_>,
    names: &[String],
    images: &[Image<'_>],
    skipped: &BTreeMap<String, usize>,
) -> Result<Option<ImageLayout>, DatasetError> {
    if folders::are_in_classes(images) || !names.iter().any(|name| table::is_table(name)) {
        return Ok(None);
    }
    let mut tables = Vec::new();
    archive.visit(&mut |entry, source| {
        if !table::is_table(entry.name) {
            return Ok(());
        }
        let mut text = Vec::new();
        let read = source.take(MAX_TABLE_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| arrays::unreadable(entry.name, error))?;
        if text.len() as u64 > MAX_TABLE_BYTES {
            return Err(table::refused(entry.name, "it has more than 256 MiB"));
        }
        tables.push(Table::read(entry.name, &text, archive.limits.entries)?);
        Ok(())
    })?;
    tabled::plan(images, &tables, names.len(), skipped.clone())
}

/// `x` for `x.npy` in any folder.
fn array_of(name: &str) -> Option<&str> {
    components(name)?.last()?.strip_suffix(".npy")
}

fn read_npz(archive: Archive<'_>, names: &[String], intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let mut roles = Roles::default();
    let role_of = |name: &str| array_of(name).and_then(ArrayRole::of);
    for (name, role) in names.iter().filter_map(|name| Some((name, role_of(name)?))) {
        roles.insert(role, &shortened(name))?;
    }
    let unlabelled = roles.are_unlabelled();
    if !unlabelled {
        roles.check(arrays::array_name, &listed(names.iter().filter_map(|name| array_of(name))))?;
    }
    archive.visit(&mut |entry, source| match (array_of(entry.name), role_of(entry.name)) {
        (Some(array), Some(role)) => read_npy(entry, array, role, source, intake),
        _ => Ok(()),
    })?;
    if unlabelled {
        intake.leave_unlabelled();
    }
    Ok(())
}

/// One array of inputs, of which nothing is said.
fn read_inputs(path: &Path, intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let file = open(path)?;
    let size = file.metadata().map_err(io(path))?.len();
    let (name, role) = ("x", ArrayRole::Examples(SplitName::Train));
    read_npy(Entry { index: 0, name, size }, name, role, &mut BufReader::new(file), intake)?;
    intake.leave_unlabelled();
    Ok(())
}

fn read_npy(
    entry: Entry<'_>,
    name: &str,
    role: ArrayRole,
    source: &mut dyn Read,
    intake: &mut DatasetBuilder<'_>,
) -> Result<(), DatasetError> {
    let bad = |reason| DatasetError::Npy { array: name.to_owned(), reason };
    let header = npy::read_header(source).map_err(bad)?;
    let size = header.shape.iter().try_fold(header.dtype.size() as u64, |size, axis| size.checked_mul(*axis as u64));
    let expected = size.unwrap_or(u64::MAX);
    let found = entry.size.saturating_sub(header.bytes);
    if found != expected {
        return Err(DatasetError::Length { array: name.to_owned(), expected, found: found.to_string() });
    }
    let npy::Header { dtype, big_endian, fortran, shape, .. } = header;
    let element = Element { dtype, big_endian };
    arrays::read(Array { name, element, shape: &shape, fortran, source }, role, intake)
}

fn read_idx(archive: Archive<'_>, names: &[String], intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let mut roles = Roles::default();
    // torchvision leaves the files that it downloads beside what it unpacks of them.
    let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_unpacked = |name: &str| name.strip_suffix(".gz").is_some_and(|plain| all.contains(plain));
    let role_of = |name: &str| idx::role(name).filter(|_| !is_unpacked(name));
    for (name, role) in names.iter().filter_map(|name| Some((name, role_of(name)?))) {
        roles.insert(role, &shortened(name))?;
    }
    roles.check(idx::file_name, &listed(names.iter().map(String::as_str)))?;
    archive.visit(&mut |entry, source| match role_of(entry.name) {
        Some(role) => idx::read(&shortened(entry.name), role, source, archive.limits, intake),
        None => Ok(()),
    })
}

/// The first few names, for messages.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 6;
    let names: Vec<String> = names.take(SHOWN + 1).map(|name| format!("`{}`", shortened(name))).collect();
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN => format!("{}, …", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
