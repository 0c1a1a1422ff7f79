//! Where files go that nobody seems to need: a folder for each day (of the data directory, or of the bucket that they are in), from which they can be put back for some time. Whoever
//! was wrong about them (a database restored from an older backup, say) has lost nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::blobs::{blocking, relocate};
use super::{Blobs, StoreError};
use crate::domain::clock::SharedClock;

/// Name of the folder.
const FOLDER: &str = "trash";

/// The trash of a data directory, and of its bucket.
#[derive(Debug, Clone)]
pub struct Trash {
    folder: PathBuf,
    keep: Duration,
    clock: SharedClock,
}

impl Trash {
    /// The folder `trash` of `data_dir`, whose files are kept for `keep`. It is made when something is thrown away.
    #[must_use]
    pub fn new(data_dir: &Path, keep: Duration, clock: SharedClock) -> Self {
        Self { folder: data_dir.join(FOLDER), keep, clock }
    }

    /// Moves the blob `key` to the trash: a file to that of the data directory, an object to `trash/DATE/key` of its bucket.
    ///
    /// # Errors
    /// When it cannot be moved; it is still there then.
    pub async fn take_blob(&self, blobs: &Blobs, key: &str) -> Result<(), StoreError> {
        let Some(bucket) = blobs.bucket() else { return self.take(blobs.path_of(key)?, key).await };
        let place = format!("{FOLDER}/{}/{key}", self.today());
        tracing::warn!(key, place, "no row names this object: moved to the trash");
        bucket.rename(key, &place).await
    }

    /// Moves `file` to `trash/DATE/name`; `name` may have folders. A file that is gone
    /// already is fine.
    ///
    /// # Errors
    /// When the file cannot be moved; it is still there then.
    pub async fn take(&self, file: PathBuf, name: &str) -> Result<(), StoreError> {
        let place = self.folder.join(self.today().to_string()).join(name);
        tracing::warn!(file = %file.display(), place = %place.display(), "no row names this file: moved to the trash");
        blocking(move || {
            let parent = place.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(StoreError::file(parent))?;
            match relocate(&file, &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                moved => moved.map_err(StoreError::file(file)),
            }
        })
        .await
    }

    /// Removes what has been here for longer than it is kept. Says how many days' folders went.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn empty(&self) -> Result<usize, StoreError> {
        let (folder, oldest) = (self.folder.clone(), self.oldest());
        blocking(move || {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                entries => entries.map_err(StoreError::file(&folder))?,
            };
            let mut removed = 0;
            for entry in entries {
                let entry = entry.map_err(StoreError::file(&folder))?;
                let date = entry.file_name().to_str().and_then(|name| name.parse::<Date>().ok());
                if date.is_some_and(|date| date < oldest) {
                    let path = entry.path();
                    fs::remove_dir_all(&path).map_err(StoreError::file(&path))?;
                    tracing::info!(folder = %path.display(), "removed from the trash: its time is over");
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }

    /// Removes the objects from a bucket's trash that have been there for longer than they are kept. Says how many.
    ///
    /// # Errors
    /// When the bucket fails.
    pub async fn empty_bucket(&self, blobs: &Blobs) -> Result<usize, StoreError> {
        let Some(bucket) = blobs.bucket() else { return Ok(0) };
        let mut removed = 0;
        for (key, _) in bucket.list(FOLDER).await? {
            let date = key.split('/').nth(1).and_then(|date| date.parse::<Date>().ok());
            if date.is_some_and(|date| date < self.oldest()) {
                bucket.delete(&key).await?;
                tracing::info!(key, "removed from the trash: its time is over");
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn today(&self) -> Date {
        self.clock.now().to_zoned_datetime(TimeZone::UTC).date()
    }

    /// The last day whose files are still kept: all of them have been here for less than `keep` and a day.
    fn oldest(&self) -> Date {
        let days = i64::try_from(self.keep.as_secs().div_ceil(24 * 3600)).unwrap_or(i64::MAX);
        self.today().checked_sub(jiff::Span::new().try_days(days).unwrap_or_default()).unwrap_or(Date::MIN)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::clock::{ManualClock, from_millis};

    #[tokio::test]
    async fn what_is_thrown_away_can_be_put_back_for_a_week() {
        let folder = tempfile::tempdir().expect("a folder");
        let day = Duration::from_hours(24);
        let clock = Arc::new(ManualClock::at(from_millis(0)));
        let trash = Trash::new(folder.path(), 7 * day, clock.clone());
        assert_eq!(trash.empty().await.expect("no folder yet"), 0);
        let file = folder.path().join("a");
        fs::write(&file, b"1").expect("writes");
        trash.take(file.clone(), "jobs/j/1/a").await.expect("moves");
        trash.take(file.clone(), "jobs/j/1/a").await.expect("gone already");
        let place = folder.path().join("trash/1970-01-01/jobs/j/1/a");
        assert!(!file.exists() && place.exists());
        fs::create_dir(folder.path().join("trash/notes")).expect("somebody else's");
        clock.advance(7 * day);
        assert_eq!((trash.empty().await.expect("reads"), place.exists()), (0, true), "the seventh day");
        clock.advance(day);
        assert_eq!((trash.empty().await.expect("empties"), place.exists()), (1, false));
        assert!(folder.path().join("trash/notes").exists());
    }
}
