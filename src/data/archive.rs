//! zip, tar and tar.gz as a sequence of named files. Nothing is ever unpacked to disk, so names do no harm.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use zip::ZipReadOptions;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::arrays::unreadable;
use super::{DatasetError, Limits};

/// A name, in a tar's extension header, may be this long.
const MAX_NAME_BYTES: u64 = 65_536;

/// How files are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// zip; `.npz` is one.
    Zip,
    /// tar.
    Tar,
    /// tar in gzip.
    TarGz,
}

/// An archive that can be gone through any number of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archive<'a> {
    /// Where it is.
    pub(super) path: &'a Path,
    /// How it is packed.
    pub(super) container: Container,
    /// How much may come out of it.
    pub(super) limits: &'a Limits,
}

/// One file of an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Its number among the files, the same in every pass.
    pub(super) index: usize,
    /// Its path in the archive.
    pub(super) name: &'a str,
    /// Its size by the archive's own account.
    pub(super) size: u64,
}

/// What an archive holds, by its names.
#[derive(Debug, Default)]
pub(super) struct ArchiveListing {
    /// Its files, in archive order.
    pub(super) files: Vec<String>,
    /// Folders that have an entry of their own.
    pub(super) folders: Vec<String>,
}

/// What is called with each file.
pub(super) type Visitor<'v> = dyn FnMut(Entry<'_>, &mut dyn Read) -> Result<(), DatasetError> + 'v;

impl Archive<'_> {
    /// The names of all files and folders.
    ///
    /// # Errors
    /// When the archive is damaged or too large.
    pub(super) fn listing(&self) -> Result<ArchiveListing, DatasetError> {
        let mut listing = ArchiveListing::default();
        if self.container == Container::Zip {
            for file in self.zip()?.files().map_err(damaged)? {
                let file = file.map_err(damaged)?;
                let names = if file.is_dir() { &mut listing.folders } else { &mut listing.files };
                names.push(String::from_utf8_lossy(file.name_raw()).into_owned());
            }
        } else {
            let ArchiveListing { files, folders } = &mut listing;
            let mut each = |entry: Entry<'_>, _: &mut dyn Read| {
                files.push(entry.name.to_owned());
                Ok(())
            };
            self.visit_all(&mut each, folders)?;
        }
        Ok(listing)
    }

    /// Calls `each` with every file, in archive order.
    ///
    /// # Errors
    /// When the archive is damaged or too large, or the first of `each`.
    pub(super) fn visit(&self, each: &mut Visitor<'_>) -> Result<(), DatasetError> {
        self.visit_all(each, &mut Vec::new())
    }

    /// As [`Self::visit`]; the names of a tar's folders are added to `folders`.
    fn visit_all(&self, each: &mut Visitor<'_>, folders: &mut Vec<String>) -> Result<(), DatasetError> {
        match self.container {
            Container::Zip => self.visit_zip(each),
            Container::Tar => self.visit_tar(&mut self.open()?, each, folders),
            Container::TarGz => {
                let mut budget = self.limits.decoded_bytes;
                let unzipped = MultiGzDecoder::new(self.open()?);
                let mut source = Budgeted::new(unzipped, &mut budget, self.limits.decoded_bytes);
                self.visit_tar(&mut source, each, folders)?;
                // To the end, so that the decompressor checks its sum.
                std::io::copy(&mut source, &mut std::io::sink()).map(|_| ()).map_err(damaged_io)
            }
        }
    }

    fn open(&self) -> Result<BufReader<File>, DatasetError> {
        let io = |source| DatasetError::Io { path: self.path.to_owned(), source };
        Ok(BufReader::new(File::open(self.path).map_err(io)?))
    }

    fn zip(&self) -> Result<ZipIterable<BufReader<File>>, DatasetError> {
        let zip = ZipIterable::try_new(self.open()?, Config::default()).map_err(damaged)?;
        if zip.len() as u64 > self.limits.entries {
            return Err(DatasetError::TooManyEntries { limit: self.limits.entries });
        }
        Ok(zip)
    }

    fn visit_zip(&self, each: &mut Visitor<'_>) -> Result<(), DatasetError> {
        let mut zip = self.zip()?;
        let mut files = zip.files_with_reader(self.open()?, ZipReadOptions::new()).map_err(damaged)?;
        let (mut budget, mut index) = (self.limits.decoded_bytes, 0);
        while let Some(file) = files.next() {
            let mut file = file.map_err(damaged)?;
            if file.is_dir() {
                continue;
            }
            let (name, size) = (String::from_utf8_lossy(file.name_raw()).into_owned(), file.size());
            let mut source = Budgeted::new(&mut file, &mut budget, self.limits.decoded_bytes);
            each(Entry { index, name: &name, size }, &mut source)?;
            index += 1;
        }
        Ok(())
    }

    /// Reads extension headers itself, within bounds: the tar crate would hold them in memory whatever their length.
    fn visit_tar(
        &self,
        source: &mut dyn Read,
        each: &mut Visitor<'_>,
        folders: &mut Vec<String>,
    ) -> Result<(), DatasetError> {
        let mut tar = tar::Archive::new(source);
        let (mut long_name, mut index, mut headers) = (None, 0, 0_u64);
        for file in tar.entries().map_err(damaged_io)?.raw(true) {
            let mut file = file.map_err(damaged_io)?;
            headers += 1;
            if headers > self.limits.entries.saturating_mul(2) || index as u64 > self.limits.entries {
                return Err(DatasetError::TooManyEntries { limit: self.limits.entries });
            }
            let kind = file.header().entry_type();
            if kind.is_gnu_longname() {
                long_name = Some(bounded(&mut file)?);
                continue;
            }
            if kind.is_pax_local_extensions() {
                long_name = pax_path(&bounded(&mut file)?)?.or(long_name);
                continue;
            }
            if kind.is_pax_global_extensions() || kind.is_gnu_longlink() {
                continue;
            }
            let name = long_name.take().unwrap_or_else(|| file.path_bytes().into_owned());
            let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
            if kind.is_dir() || name.ends_with('/') {
                folders.push(name);
                continue;
            }
            if !kind.is_file() && !kind.is_contiguous() {
                return Err(DatasetError::SpecialEntry { entry: shortened(&name) });
            }
            let size = file.size();
            each(Entry { index, name: &name, size }, &mut file)?;
            index += 1;
        }
        Ok(())
    }
}

/// The content of a tar's extension header.
fn bounded(file: &mut impl Read) -> Result<Vec<u8>, DatasetError> {
    let mut content = Vec::new();
    file.take(MAX_NAME_BYTES + 1).read_to_end(&mut content).map_err(damaged_io)?;
    if content.len() as u64 > MAX_NAME_BYTES {
        let reason = format!("an extension header has more than {MAX_NAME_BYTES} bytes");
        return Err(DatasetError::DamagedArchive { reason });
    }
    Ok(content)
}

/// The path in a POSIX extension header (pax), if it has one.
fn pax_path(content: &[u8]) -> Result<Option<Vec<u8>>, DatasetError> {
    let mut path = None;
    for extension in tar::PaxExtensions::new(content) {
        let extension = extension.map_err(damaged_io)?;
        match extension.key_bytes() {
            b"path" => path = Some(extension.value_bytes().to_vec()),
            b"size" => {
                let reason =
                    "a file of 8 GiB or more has its size in a pax header, which `tar --format=gnu` avoids".to_owned();
                return Err(DatasetError::DamagedArchive { reason });
            }
            _ => {}
        }
    }
    Ok(path)
}

fn damaged(error: ZipError) -> DatasetError {
    match error {
        ZipError::Io(error) => damaged_io(error),
        other => DatasetError::DamagedArchive { reason: other.to_string() },
    }
}

fn damaged_io(error: std::io::Error) -> DatasetError {
    match unreadable("", error) {
        DatasetError::DamagedEntry { reason, .. } => DatasetError::DamagedArchive { reason },
        ours => ours,
    }
}

/// The folders and the file name of `name`; `None` for what is hidden, and what operating systems leave in archives
/// (`__MACOSX/`, `.DS_Store`).
pub(super) fn components(name: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = parts(name).collect();
    (!parts.is_empty() && parts.iter().all(|part| junk(part).is_none())).then_some(parts)
}

/// Why [`components`] passes over `name`, in a word or two.
pub(super) fn junk_reason(name: &str) -> &'static str {
    parts(name).find_map(junk).unwrap_or("without a name")
}

fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | ".."))
}

fn junk(part: &str) -> Option<&'static str> {
    match part {
        "__MACOSX" | ".DS_Store" | "Thumbs.db" | "desktop.ini" => Some("of the operating system"),
        _ => part.starts_with('.').then_some("hidden"),
    }
}

/// A name as it stands in messages: at most 80 characters, none of them control characters.
pub(super) fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Counts what a decompressor gives out, and stops it at the limit.
#[derive(Debug)]
pub(super) struct Budgeted<'a, R> {
    inner: R,
    left: &'a mut u64,
    limit: u64,
}

impl<'a, R: Read> Budgeted<'a, R> {
    /// Lets `left` bytes of `inner` pass; the error names `limit`.
    pub(super) fn new(inner: R, left: &'a mut u64, limit: u64) -> Self {
        Self { inner, left, limit }
    }
}

impl<R: Read> Read for Budgeted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => *self.left = left,
            None => return Err(std::io::Error::other(DatasetError::TooLarge { limit: self.limit })),
        }
        Ok(read)
    }
}

/// Whether 512 bytes are the header of a tar: its checksum fits.
pub(super) fn is_tar_header(block: &[u8; 512]) -> bool {
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    block.iter().any(|byte| *byte != 0) && header.cksum().is_ok_and(|stored| stored == sum)
}
