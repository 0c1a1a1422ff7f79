//! Copies of a data directory, made while a server runs on it, and the way back.
//!
//! The database is copied as it is at one moment. Files never change once a row names them, so they can be linked before and
//! after that moment; one that was deleted in between is not in the copy of the database, or the copy is made again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::inventory::{Named, named};
use crate::store::blobs::{FOLDER, sync};
use crate::store::database::Connection;
use crate::store::sql;
use crate::store::{Backend, Blobs, StoreError};

/// The database's file.
const DATABASE: &str = "engraft.db";
/// Copies of the database that are made until one has all its files.
const MOST_TRIES: usize = 20;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Files, the database not among them.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are the same on disk as the original ones, since both lie on one file system.
    pub linked: usize,
}

/// Copies the file `database` and the folder `blobs` of a data directory to the folder `to`, which must not exist, as they are at one
/// moment; a server may run on them. Files are linked where that is possible, unless `copies` are wanted. Unfinished uploads are left out.
///
/// # Errors
/// When there is no such database, `to` exists, or the storage fails; `to` does not exist then.
pub async fn backup(database: &Path, blobs: &Path, to: &Path, copies: bool) -> Result<Copied, StoreError> {
    let part = unfinished(to)?;
    let result = fill(database, blobs, &part, copies).await;
    settle(&part, to, result)
}

/// Copies the backup `from` to the data directory `to`, which must be absent or empty.
///
/// # Errors
/// When `from` is no backup, `to` has something in it, a file is missing or has another length, or the storage fails;
/// `to` is as it was then.
pub async fn restore(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none()) {
        fs::remove_dir(to).map_err(StoreError::file(to))?;
    }
    let part = unfinished(to)?;
    let result = fill(&from.join(DATABASE), &from.join(FOLDER), &part, true).await;
    settle(&part, to, result)
}

/// The folder that becomes `to` once it is whole.
fn unfinished(to: &Path) -> Result<PathBuf, StoreError> {
    if to.exists() {
        let source = io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists and is not empty; name another folder, or move that one away first",
        );
        return Err(StoreError::file(to)(source));
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    let part = to.with_file_name(name);
    if part.exists() {
        fs::remove_dir_all(&part).map_err(StoreError::file(&part))?;
    }
    fs::create_dir_all(&part).map_err(StoreError::file(&part))?;
    // Files are compared by their paths, so there must be one for each.
    fs::canonicalize(&part).map_err(StoreError::file(&part))
}

/// Gives the copy its name if it is whole, else removes it.
fn settle(part: &Path, to: &Path, result: Result<Copied, StoreError>) -> Result<Copied, StoreError> {
    if result.is_err() {
        // The first error is the one to report.
        let _also_failing = fs::remove_dir_all(part);
        return result;
    }
    fs::rename(part, to).map_err(StoreError::file(to))?;
    let parent = std::path::absolute(to).map_err(StoreError::file(to))?;
    parent.parent().map_or(Ok(()), sync)?;
    result
}

async fn fill(source: &Path, blobs: &Path, part: &Path, copies: bool) -> Result<Copied, StoreError> {
    let target = part.join(DATABASE);
    let mark = blobs.join("identity");
    fs::create_dir_all(part.join(FOLDER)).map_err(StoreError::file(part))?;
    fs::copy(&mark, part.join(FOLDER).join("identity")).map_err(StoreError::file(&mark))?;
    let mut live = Connection::to_file(source).await?;
    let here = Blobs::of(&Backend::Folder(blobs.to_owned()), blobs, 0)?;
    let there = Blobs::open(part)?;
    let mut copied = Copied::default();
    place(&named(&mut live).await?, &here, &there, copies, &mut copied)?;
    for attempt in 1.. {
        let entries = copy_database(&mut live, &target).await?;
        let absent = place(&entries, &here, &there, copies, &mut copied)?;
        let Some(absent) = absent else {
            live.close().await?;
            remove_others(&entries, part)?;
            all_there(&entries, &there)?;
            copied.files = entries.len();
            copied.bytes = entries.iter().filter_map(|entry| u64::try_from(entry.bytes?).ok()).sum();
            sync(&target)?;
            sync_folders(part)?;
            return Ok(copied);
        };
        if attempt == MOST_TRIES {
            let detail = format!("{} has no file: `engraft verify` shows what is missing", absent.what);
            return Err(StoreError::inconsistent("blobs", absent.blob_key.clone(), detail));
        }
    }
    unreachable!("the loop ends by a return");
}

/// Copies the database as it is now; returns the files that the copy names. Uploads that have not ended are not in it.
async fn copy_database(live: &mut Connection, target: &Path) -> Result<Vec<Named>, StoreError> {
    if target.exists() {
        fs::remove_file(target).map_err(StoreError::file(target))?;
    }
    let path = target.to_str().ok_or_else(|| {
        StoreError::file(target)(io::Error::new(io::ErrorKind::InvalidFilename, "the path is not UTF-8"))
    })?;
    sql::query("VACUUM INTO $1").bind(path).execute(&mut *live).await?;
    let mut copy = Connection::to_file(target).await?;
    sql::query("DELETE FROM uploads").execute(&mut copy).await?;
    if let Some(damage) = copy.damage().await?.into_iter().next() {
        return Err(StoreError::inconsistent("database", "integrity_check", damage));
    }
    let entries = named(&mut copy).await?;
    copy.close().await?;
    Ok(entries)
}

/// Brings every file that is named over, unless it is there already; the first one that is absent.
fn place<'a>(
    entries: &'a [Named],
    here: &Blobs,
    there: &Blobs,
    copies: bool,
    copied: &mut Copied,
) -> Result<Option<&'a Named>, StoreError> {
    let mut absent = None;
    for entry in entries {
        let (from, to) = (here.path_of(&entry.blob_key)?, there.path_of(&entry.blob_key)?);
        if to.exists() {
            continue;
        }
        let parent = to.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(StoreError::file(parent))?;
        let linked = if copies { Err(io::ErrorKind::Unsupported.into()) } else { fs::hard_link(&from, &to) };
        let done = match linked {
            Ok(()) => {
                copied.linked += 1;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => copy(&from, &to),
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => absent = absent.or(Some(entry)),
            done => done.map_err(StoreError::file(&from))?,
        }
        if let (Some(bytes), Ok(file)) = (entry.bytes, fs::metadata(&to))
            && i64::try_from(file.len()) != Ok(bytes)
        {
            let detail = format!("{} has {} bytes on disk and {bytes} in the database", entry.what, file.len());
            return Err(StoreError::inconsistent("blobs", entry.blob_key.clone(), detail));
        }
    }
    Ok(absent)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Removes files that were brought over and deleted before the database was copied.
fn remove_others(entries: &[Named], part: &Path) -> Result<(), StoreError> {
    let blobs = Blobs::open(part)?;
    let wanted = entries.iter().map(|entry| blobs.path_of(&entry.blob_key)).collect::<Result<Vec<_>, _>>()?;
    let wanted: std::collections::HashSet<PathBuf> = wanted.into_iter().collect();
    let mark = part.join(FOLDER).join("identity");
    walk(&part.join(FOLDER), &mut |path| {
        if path.is_dir() || *path == mark || wanted.contains(path) {
            return Ok(());
        }
        fs::remove_file(path).map_err(StoreError::file(path))
    })
}

/// Checks that nothing is promised that is not there: a backup is trusted when it is too late to look.
fn all_there(entries: &[Named], there: &Blobs) -> Result<(), StoreError> {
    for entry in entries {
        let path = there.path_of(&entry.blob_key)?;
        let length = fs::metadata(&path).map_err(StoreError::file(&path))?.len();
        if entry.bytes.is_some_and(|bytes| i64::try_from(length) != Ok(bytes)) {
            let detail = format!("{} has {length} bytes in the copy", entry.what);
            return Err(StoreError::inconsistent("blobs", entry.blob_key.clone(), detail));
        }
    }
    Ok(())
}

/// Syncs every folder, the innermost first.
fn sync_folders(part: &Path) -> Result<(), StoreError> {
    walk(part, &mut |path| if path.is_dir() { sync(path) } else { Ok(()) })
}

/// Visits everything below `folder`, and at last `folder`.
fn walk(folder: &Path, visit: &mut dyn FnMut(&PathBuf) -> Result<(), StoreError>) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::file(folder))? {
        let path = entry.map_err(StoreError::file(folder))?.path();
        if path.is_dir() { walk(&path, visit)? } else { visit(&path)? }
    }
    visit(&folder.to_owned())
}
