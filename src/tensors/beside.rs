//! The files that a checkpoint lies in: itself, and those in its folder that it names.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::model::formats::bundle::error::BundleError;
use crate::model::formats::digest::sha256;
use crate::model::formats::{self, FormatError};
use crate::tensors::error::CheckpointError;
use crate::tensors::map;

/// The files of one checkpoint, mapped.
#[derive(Debug)]
pub struct CheckpointFiles {
    /// All files; the first one names the others.
    pub paths: Vec<PathBuf>,
    /// The names of the others, in the same order.
    pub(super) names: Vec<String>,
    /// Their bytes, the first one's too.
    pub(super) maps: Vec<Mmap>,
}

impl CheckpointFiles {
    /// Maps the file `path` and those beside it that it names. No name leads out of its folder, by whatever link.
    ///
    /// # Errors
    /// When a file cannot be read, `path` is no checkpoint, or files are missing, all of which are named.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let first = mapped(path)?;
        let names: Vec<String> = formats::beside(&first)?.into_iter().collect();
        let (mut paths, mut maps, mut missing) = (vec![path.to_owned()], vec![first], Vec::new());
        let folder = path.parent().unwrap_or(Path::new(""));
        for name in &names {
            let other = folder.join(name);
            match check(folder, &other) {
                Ok(()) => {
                    maps.push(mapped(&other)?);
                    paths.push(other);
                }
                Err(CheckpointError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    missing.push(name.clone());
                }
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() { Ok(Self { paths, names, maps }) } else { Err(absent(missing).into()) }
    }

    /// Length of all files together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.maps.iter().map(|map| map.len() as u64).sum()
    }

    /// SHA-256 of all files, in hexadecimal: of one file its own; of several that of the lines `DIGEST  NAME` that `sha256sum` would
    /// write for them, the first file first and the others by their names.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn sha256(&self) -> io::Result<String> {
        let digest = |path: &PathBuf| sha256(File::open(path)?);
        let [one] = &self.paths[..] else {
            let mut all = Sha256::new();
            for path in &self.paths {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                all.update(format!("{}  {name}\n", digest(path)?));
            }
            return Ok(hex::encode(all.finalize()));
        };
        digest(one)
    }
}

fn absent(names: Vec<String>) -> FormatError {
    BundleError::Missing(names).into()
}

fn mapped(path: &Path) -> Result<Mmap, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        let reason = "is a folder: name the file in it that holds the weights, or the index of its shards";
        return Err(CheckpointError::Beside { path: path.to_owned(), reason });
    }
    map(&file).map_err(io)
}

/// Checks that `path` is a file that lies in `folder`, wherever links lead.
fn check(folder: &Path, path: &Path) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let refused = |reason| Err(CheckpointError::Beside { path: path.to_owned(), reason });
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let real = fs::canonicalize(path).map_err(io)?;
    if real.parent() != Some(&fs::canonicalize(folder).map_err(io)?) {
        return refused("is a link out of its folder: put the file itself there (`cp -L`)");
    }
    if !fs::metadata(path).map_err(io)?.is_file() {
        return refused("is no file");
    }
    Ok(())
}
