//! The folder that the demo works in: never one with a user's files.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Marks the folder as made by the demo; locked while a demo works in it.
const MARK: &str = ".engraft-demo";

/// A folder that this demo alone works in.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes `path`: a new folder, an empty one, or one of an earlier demo.
    ///
    /// # Errors
    /// When it is no folder, holds files that the demo has not made, or another demo works in it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        let path = path.canonicalize()?;
        let mark = path.join(MARK);
        ensure!(
            mark.exists() || fs::read_dir(&path)?.next().is_none(),
            "{} holds files that the demo has not made; name another folder with --dir",
            path.display()
        );
        let lock = File::create(&mark).with_context(|| format!("cannot write {}", mark.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another demo is working in {}; wait for it, or name another folder with --dir", path.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", mark.display())),
        }
    }

    /// Where it is, as an absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_empty_or_own_folder_that_nobody_uses_is_taken() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("demo");
        let taken = Folder::take(&path).expect("a new folder");
        let error = Folder::take(&path).expect_err("in use").to_string();
        assert!(error.contains("another demo is working"), "{error}");
        drop(taken);
        fs::write(path.join("m0.safetensors"), "").expect("writes");
        drop(Folder::take(&path).expect("one's own folder"));

        let error = Folder::take(parent.path()).expect_err("somebody's files").to_string();
        assert!(error.contains("has not made"), "{error}");
        assert!(!parent.path().join(MARK).exists());
        fs::write(parent.path().join("file"), "").expect("writes");
        assert!(Folder::take(&parent.path().join("file")).is_err());
    }
}
