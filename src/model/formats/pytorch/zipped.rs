//! The zip container (PyTorch 1.6 and later): `NAME/data.pkl`, and every storage as an entry `NAME/data/KEY`.

use super::error::PyTorchError;
use super::storages::Storages;
use super::{lay_out, pickle};
use crate::model::formats::archive::{EntryContent, MappedArchive};
use crate::model::formats::error::FormatError;
use crate::model::formats::foreign::Foreign;
use crate::model::formats::layout::Layout;
use crate::model::formats::limits::MAX_PICKLE_BYTES;

/// The folder of the archive in which `data.pkl` lies, with its slash; none where this is no file of PyTorch.
pub(in crate::model::formats) fn folder<'a>(archive: &'a MappedArchive<'_>) -> Option<&'a str> {
    archive
        .names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .find(|folder| folder.is_empty() || folder.ends_with('/') && folder.matches('/').count() == 1)
}

/// Reads the file of PyTorch in `folder` of `archive`.
pub(in crate::model::formats) fn read(archive: &MappedArchive<'_>, folder: &str) -> Result<Layout, FormatError> {
    if archive.has(&format!("{folder}constants.pkl"))
        || archive.names().any(|name| name.starts_with(&format!("{folder}code/")))
    {
        return Err(Foreign::TorchScript.into());
    }
    let byteorder = format!("{folder}byteorder");
    if archive.has(&byteorder) && archive.read(&byteorder, 16)?.starts_with(b"big") {
        return Err(PyTorchError::BigEndian.into());
    }
    let bytes = archive.read(&format!("{folder}data.pkl"), MAX_PICKLE_BYTES)?;
    let pickle = pickle::read(&bytes)?;
    lay_out(&pickle, &Entries { archive, folder })
}

/// Storages that are entries of the archive.
struct Entries<'a> {
    archive: &'a MappedArchive<'a>,
    folder: &'a str,
}

impl Storages for Entries<'_> {
    fn content(&self, key: &str) -> Result<EntryContent, &'static str> {
        let name = format!("{}data/{key}", self.folder);
        self.archive.content(&name).map_err(|_| "which the file does not hold, or only in an unusual way")
    }
}
