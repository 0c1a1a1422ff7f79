//! Files by their names, each where it lies in an archive or on its own; none is unpacked before somebody asks for it.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::CompressionMethod;
use zip::read::{ArchiveOffset, Config};
use zip::unstable::read::ZipIterable;

use crate::model::formats::files::Files;
use crate::model::formats::limits::MAX_ARCHIVE_ENTRIES;

/// Bytes of the fixed part of a local header (APPNOTE 4.3.7), and where the lengths of name and extra field stand in it.
const LOCAL_HEADER_BYTES: usize = 30;
const NAME_LENGTH_AT: usize = 26;
const EXTRA_LENGTH_AT: usize = 28;

/// How many bytes one that is deflated becomes at most (zlib.net, "Maximum Compression Factor").
const MAX_DEFLATION: u64 = 1032;

/// Why an archive or one of its entries cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Not a whole zip archive.
    #[error("the zip archive is damaged or truncated: {0}")]
    Damaged(String),
    /// More than [`MAX_ARCHIVE_ENTRIES`].
    #[error("the zip archive has {0} entries; at most {MAX_ARCHIVE_ENTRIES} are read")]
    TooManyEntries(usize),
    /// Two entries of one name.
    #[error("the zip archive holds `{0}` twice")]
    DuplicateEntry(String),
    /// No such entry.
    #[error("the zip archive has no entry `{0}`: it is incomplete")]
    MissingEntry(String),
    /// Encrypted, or packed otherwise than by deflate.
    #[error(
        "`{0}` in the zip archive is encrypted or packed in an unusual way: only stored and deflated entries are read"
    )]
    Packing(String),
    /// Larger than its reader takes.
    #[error("`{name}` in the zip archive has {size} bytes; at most {limit} are read")]
    EntryTooLarge {
        /// The entry.
        name: String,
        /// Its length by the archive's account.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Unpacked, it is not what the archive says.
    #[error("`{0}` in the zip archive is damaged: its length or its checksum is wrong")]
    DamagedEntry(String),
}

/// Bytes that are deflated in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deflated {
    /// First byte in the file.
    pub begin: u64,
    /// Last byte + 1.
    pub end: u64,
    /// Length when unpacked.
    pub size: u64,
    /// CRC-32 of what is unpacked.
    pub crc: u32,
}

impl Deflated {
    /// Unpacks all of it from `files`; never more than `size` bytes are held. `None` where length or checksum is wrong.
    #[must_use]
    pub fn unpack(&self, files: &Files<'_>) -> Option<Vec<u8>> {
        let (bytes, crc) = self.front(files, self.size)?;
        (bytes.len() as u64 == self.size && crc.sum() == self.crc).then_some(bytes)
    }

    /// The first `length` unpacked bytes, or all there are, with their checksum.
    fn front(&self, files: &Files<'_>, length: u64) -> Option<(Vec<u8>, Crc)> {
        let packed = files.get(self.begin, self.end)?;
        let most = (packed.len() as u64).saturating_mul(MAX_DEFLATION);
        let mut bytes = Vec::with_capacity(usize::try_from(length.min(most)).ok()?);
        // One byte more tells that there would be more.
        DeflateDecoder::new(packed).take(length.checked_add(1)?).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > length && length == self.size {
            return None;
        }
        bytes.truncate(usize::try_from(length).ok()?);
        let mut crc = Crc::new();
        crc.update(&bytes);
        Some((bytes, crc))
    }
}

/// Where the bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryContent {
    /// As they are, from the first byte in the file to the last + 1.
    Stored { begin: u64, end: u64 },
    /// Deflated.
    Deflated(Deflated),
}

impl EntryContent {
    /// Length when unpacked.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Stored { begin, end } => end - begin,
            Self::Deflated(deflated) => deflated.size,
        }
    }
}

/// Files by their names, within mapped files.
#[derive(Debug)]
pub(super) struct MappedArchive<'a> {
    files: Files<'a>,
    /// Where each file is; none for one that is packed in a way that is not read.
    entries: BTreeMap<String, Option<EntryContent>>,
}

impl<'a> MappedArchive<'a> {
    /// Reads the directory of the zip archive `bytes`. Needs memory in proportion to it.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let damaged = |error: zip::result::ZipError| ArchiveError::Damaged(error.to_string());
        // Nothing stands before the archive: what looks like it is another archive within.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut zip = ZipIterable::try_new(Cursor::new(bytes), config).map_err(damaged)?;
        if zip.len() > MAX_ARCHIVE_ENTRIES {
            return Err(ArchiveError::TooManyEntries(zip.len()));
        }
        let mut entries = Vec::new();
        for entry in zip.files().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            if entry.is_dir() {
                continue;
            }
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let begin = data_start(bytes, entry.header_start());
            let end = begin.and_then(|begin| begin.checked_add(entry.compressed_size()));
            let (Some(begin), Some(end)) = (begin, end.filter(|end| *end <= bytes.len() as u64)) else {
                return Err(ArchiveError::Damaged(format!("`{}` lies outside of it", shown(&name))));
            };
            let content = match entry.compression() {
                _ if entry.encrypted() => None,
                CompressionMethod::Stored if entry.size() == end - begin => Some(EntryContent::Stored { begin, end }),
                CompressionMethod::Stored => return Err(ArchiveError::DamagedEntry(shown(&name))),
                CompressionMethod::Deflated => {
                    Some(EntryContent::Deflated(Deflated { begin, end, size: entry.size(), crc: entry.crc32() }))
                }
                _ => None,
            };
            entries.push((name, content));
        }
        Self::by_name(Files::one(bytes), entries)
    }

    /// An archive of another kind, or files of their own, which lie there.
    pub(super) fn of(files: Files<'a>, entries: Vec<(String, EntryContent)>) -> Result<Self, ArchiveError> {
        Self::by_name(files, entries.into_iter().map(|(name, content)| (name, Some(content))).collect())
    }

    fn by_name(files: Files<'a>, list: Vec<(String, Option<EntryContent>)>) -> Result<Self, ArchiveError> {
        let mut entries = BTreeMap::new();
        for (name, content) in list {
            let twice = shown(&name);
            if entries.insert(name, content).is_some() {
                return Err(ArchiveError::DuplicateEntry(twice));
            }
        }
        Ok(Self { files, entries })
    }

    /// All that the files lie in.
    pub(super) fn files(&self) -> &Files<'a> {
        &self.files
    }

    /// The names of all files, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a file `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the bytes of the file `name` are.
    pub(super) fn content(&self, name: &str) -> Result<EntryContent, ArchiveError> {
        match self.entries.get(name) {
            None => Err(ArchiveError::MissingEntry(shown(name))),
            Some(None) => Err(ArchiveError::Packing(shown(name))),
            Some(Some(content)) => Ok(*content),
        }
    }

    /// All bytes of the file `name`, unpacked, if they are no more than `limit`.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<std::borrow::Cow<'a, [u8]>, ArchiveError> {
        let content = self.content(name)?;
        if content.size() > limit {
            return Err(ArchiveError::EntryTooLarge { name: shown(name), size: content.size(), limit });
        }
        match content {
            EntryContent::Stored { begin, end } => {
                let bytes = self.files.get(begin, end);
                bytes.map(Into::into).ok_or_else(|| ArchiveError::DamagedEntry(shown(name)))
            }
            EntryContent::Deflated(deflated) => {
                let unpacked = deflated.unpack(&self.files);
                unpacked.map(Into::into).ok_or_else(|| ArchiveError::DamagedEntry(shown(name)))
            }
        }
    }

    /// The first `length` unpacked bytes of the file `name`, or all there are.
    pub(super) fn front(&self, name: &str, length: u64) -> Result<std::borrow::Cow<'a, [u8]>, ArchiveError> {
        match self.content(name)? {
            EntryContent::Stored { begin, end } => {
                let bytes = self.files.get(begin, end.min(begin.saturating_add(length)));
                bytes.map(Into::into).ok_or_else(|| ArchiveError::DamagedEntry(shown(name)))
            }
            EntryContent::Deflated(deflated) => {
                let front = deflated.front(&self.files, length.min(deflated.size));
                front.map(|(bytes, _)| bytes.into()).ok_or_else(|| ArchiveError::DamagedEntry(shown(name)))
            }
        }
    }
}

/// Where the content behind the local header at `header_start` begins.
fn data_start(bytes: &[u8], header_start: u64) -> Option<u64> {
    let header = bytes.get(usize::try_from(header_start).ok()?..)?.get(..LOCAL_HEADER_BYTES)?;
    let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    header.starts_with(b"PK\x03\x04").then_some(())?;
    header_start.checked_add(LOCAL_HEADER_BYTES as u64 + length(NAME_LENGTH_AT) + length(EXTRA_LENGTH_AT))
}

/// A name as it stands in messages.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}
