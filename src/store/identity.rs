//! Holds a database and the files beside it together. Both carry the same identity: files without their database, or with
//! another one, would look like files that nobody needs, and a database without its files would promise what is gone.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::database::connection::Connection;
use super::sql;
use uuid::Uuid;

use super::blobs::{Backend, sync};
use super::error::{IdentityError, StoreError};

/// The file or object beside the blobs that says whose they are.
const MARK: &str = "identity";
/// The same while the database does not say so yet.
const DRAFT: &str = "identity.draft";
/// What the keys of a bucket's trash begin with.
const TRASH: &str = "trash/";

/// The parts of a data folder that must belong together.
#[derive(Debug)]
pub(super) struct DataFolder {
    blobs: Backend,
    database: PathBuf,
}

impl DataFolder {
    /// The files in `blobs`, whose database is the file `database`.
    pub(super) fn new(blobs: &Backend, database: &Path) -> Self {
        Self { blobs: blobs.clone(), database: database.to_owned() }
    }

    /// Before the database is opened, which would make one: refuses files that have lost theirs.
    pub(super) async fn check_before_open(&self) -> Result<(), StoreError> {
        let absent = match fs::metadata(&self.database) {
            Ok(found) => found.len() == 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(StoreError::file(&self.database)(error)),
        };
        // Another database may be about to fill a bucket that is empty still.
        if absent && (self.has_files().await? || (self.is_bucket() && self.read(MARK).await?.is_some())) {
            let (blobs, database) = (self.blobs.shown(), self.database.clone());
            return Err(IdentityError::WithoutDatabase { blobs, database }.into());
        }
        Ok(())
    }

    /// Once the schema is up to date: both sides must have the same identity, and get one if neither has.
    ///
    /// The mark of a folder is a draft until the database says the same. So a crash in between is distinguished from a database that is
    /// older than identities and was put beside files that have one. A bucket has had its mark from the beginning; whoever writes it
    /// first has the bucket.
    pub(super) async fn settle(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let known: Option<String> =
            sql::query_scalar("SELECT identity FROM data_folder").fetch_optional(&mut *connection).await?;
        let (mark, draft) = (self.read(MARK).await?, self.read(DRAFT).await?);
        match (known, mark) {
            (Some(known), Some(mark)) if known == mark => Ok(()),
            (Some(known), Some(mark)) => Err(self.strangers(known, mark)),
            (Some(known), None) if draft.as_ref() == Some(&known) => self.finish(&known).await,
            (Some(known), None) => {
                if self.has_files().await? || names_files(connection).await? {
                    let (blobs, database) = (self.blobs.shown(), self.database.clone());
                    return Err(IdentityError::WithoutFiles { blobs, database }.into());
                }
                self.finish(&known).await
            }
            (None, Some(mark)) if self.has_files().await? => {
                Err(self.strangers("of an earlier version".to_owned(), mark))
            }
            (None, Some(mark)) if self.is_bucket() => Err(self.strangers("(none yet)".to_owned(), mark)),
            (None, mark) => {
                let identity = mark.or(draft).unwrap_or_else(|| Uuid::new_v4().to_string());
                self.write_draft(&identity)?;
                sql::query("INSERT INTO data_folder (\"only\", identity) VALUES (1, $1)")
                    .bind(&identity)
                    .execute(connection)
                    .await?;
                self.finish(&identity).await
            }
        }
    }

    /// Makes this the place of the blobs of the database with this identity: one that is empty, or that was made so before.
    pub(super) async fn claim(&self, identity: &str) -> Result<(), StoreError> {
        match self.read(MARK).await? {
            Some(mark) if mark == identity => Ok(()),
            Some(mark) => Err(self.strangers(identity.to_owned(), mark)),
            None if self.has_files().await? => Err(self.strangers(identity.to_owned(), "(none)".to_owned())),
            None => self.finish(identity).await,
        }
    }

    fn is_bucket(&self) -> bool {
        matches!(self.blobs, Backend::Bucket(_))
    }

    fn strangers(&self, of_database: String, of_files: String) -> StoreError {
        let (blobs, database) = (self.blobs.shown(), self.database.clone());
        IdentityError::Strangers { blobs, database, of_database, of_files }.into()
    }

    /// Makes the mark a final one.
    async fn finish(&self, identity: &str) -> Result<(), StoreError> {
        match &self.blobs {
            Backend::Folder(folder) => {
                let (draft, mark) = (folder.join(DRAFT), folder.join(MARK));
                self.write_draft(identity)?;
                fs::rename(&draft, &mark).map_err(StoreError::file(&mark))?;
                sync(folder)
            }
            Backend::Bucket(bucket) => {
                let mark = bucket.create_mark(MARK, identity).await?;
                if mark == identity { Ok(()) } else { Err(self.strangers(identity.to_owned(), mark)) }
            }
        }
    }

    async fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        let path = match &self.blobs {
            Backend::Folder(folder) => folder.join(name),
            Backend::Bucket(_) if name == DRAFT => return Ok(None),
            Backend::Bucket(bucket) => return bucket.read_mark(name).await,
        };
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file(path)(error)),
        }
    }

    /// Writes the draft of a folder's mark.
    fn write_draft(&self, identity: &str) -> Result<(), StoreError> {
        let Backend::Folder(folder) = &self.blobs else { return Ok(()) };
        fs::create_dir_all(folder).map_err(StoreError::file(folder))?;
        let path = folder.join(DRAFT);
        let written = fs::File::create(&path).and_then(|mut file| {
            writeln!(file, "{identity}")?;
            file.sync_all()
        });
        written.map_err(StoreError::file(&path))?;
        sync(folder)?;
        // The folder itself may be new.
        folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync)
    }

    /// Whether there is any file but the mark, and but what lies in a bucket's trash.
    async fn has_files(&self) -> Result<bool, StoreError> {
        let folder = match &self.blobs {
            Backend::Folder(folder) => folder,
            Backend::Bucket(bucket) => {
                return bucket.has_objects(|key| key == MARK || key.starts_with(TRASH)).await;
            }
        };
        let mut folders = vec![folder.clone()];
        while let Some(open) = folders.pop() {
            let entries = match fs::read_dir(&open) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(StoreError::file(&open))?,
            };
            for entry in entries {
                let entry = entry.map_err(StoreError::file(&open))?;
                if entry.file_type().map_err(StoreError::file(&open))?.is_dir() {
                    folders.push(entry.path());
                } else if open != *folder || ![MARK, DRAFT].iter().any(|mark| entry.file_name() == *mark) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Whether the database knows any blob.
async fn names_files(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM checkpoints) OR EXISTS (SELECT 1 FROM datasets) OR EXISTS (SELECT 1 FROM job_artifacts)
             OR EXISTS (SELECT 1 FROM jobs WHERE checkpoint_key IS NOT NULL)",
    )
    .fetch_one(connection)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    struct Lab(tempfile::TempDir);

    impl Lab {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn blob(&self) {
            fs::create_dir_all(self.path("blobs/checkpoints")).expect("makes");
            fs::write(self.path("blobs/checkpoints/a"), b"weights").expect("writes");
        }

        fn mark(&self) -> String {
            fs::read_to_string(self.path("blobs/identity")).expect("a mark")
        }

        async fn open(&self) -> Result<(), StoreError> {
            Database::open(self.0.path()).await?.close().await;
            Ok(())
        }

        async fn execute(&self, sql: &'static str) {
            let database = Database::open(self.0.path()).await.expect("opens");
            let mut transaction = database.write().await.expect("begins");
            sql::query(sql).execute(&mut *transaction).await.expect("runs");
            transaction.commit().await.expect("commits");
            database.close().await;
        }

        /// Takes the database away, with what belongs to it.
        fn lose_database(&self) {
            for name in ["engraft.db", "engraft.db-wal", "engraft.db-shm"] {
                let _may_be_absent = fs::remove_file(self.path(name));
            }
        }

        async fn refused(&self) -> IdentityError {
            match self.open().await {
                Err(StoreError::Identity(error)) => error,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_folder_opens_again_and_again() {
        let lab = Lab::new();
        lab.open().await.expect("a new one");
        let mark = lab.mark();
        lab.blob();
        lab.open().await.expect("the same");
        assert_eq!(lab.mark(), mark);
    }

    #[tokio::test]
    async fn files_without_their_database_stop_the_start_and_no_database_is_made() {
        let lab = Lab::new();
        lab.open().await.expect("opens");
        lab.blob();
        lab.lose_database();
        for _ in 0..2 {
            assert!(matches!(lab.refused().await, IdentityError::WithoutDatabase { .. }));
            assert!(!lab.path("engraft.db").exists());
        }
        fs::write(lab.path("engraft.db"), b"").expect("writes");
        assert!(matches!(lab.refused().await, IdentityError::WithoutDatabase { .. }), "an empty file is no database");
        fs::remove_file(lab.path("blobs/checkpoints/a")).expect("removes");
        lab.open().await.expect("nothing can be lost any more");
    }

    #[tokio::test]
    async fn strangers_are_not_put_together() {
        let (one, two) = (Lab::new(), Lab::new());
        one.open().await.expect("opens");
        two.open().await.expect("opens");
        fs::copy(two.path("engraft.db"), one.path("engraft.db")).expect("copies");
        assert!(matches!(one.refused().await, IdentityError::Strangers { .. }));
    }

    #[tokio::test]
    async fn a_database_whose_files_are_not_mounted_stops_the_start() {
        let lab = Lab::new();
        lab.execute(
            "INSERT INTO checkpoints (id, tenant, name, sha256, bytes, blob_key, labels, header, created_at) VALUES ('c', 't', 'n', printf('%064d', 0), 1, 'checkpoints/c', '{}', '{}', 0)",
        )
        .await;
        fs::remove_dir_all(lab.path("blobs")).expect("removes");
        assert!(matches!(lab.refused().await, IdentityError::WithoutFiles { .. }));
        fs::create_dir(lab.path("blobs")).expect("makes");
        assert!(matches!(lab.refused().await, IdentityError::WithoutFiles { .. }));
        lab.execute_without_check("DELETE FROM checkpoints").await;
        lab.open().await.expect("a database that knows no files takes an empty folder");
    }

    #[tokio::test]
    async fn an_older_folder_gets_an_identity_also_when_that_is_cut_short() {
        let lab = Lab::new();
        lab.open().await.expect("opens");
        let mark = lab.mark();
        lab.blob();
        // As an earlier version has left it.
        lab.execute("DELETE FROM data_folder").await;
        fs::remove_file(lab.path("blobs/identity")).expect("removes");
        fs::write(lab.path("blobs/identity.draft"), &mark).expect("cut short before the database said so");
        lab.open().await.expect("goes on");
        assert_eq!(lab.mark(), mark);
        fs::rename(lab.path("blobs/identity"), lab.path("blobs/identity.draft")).expect("cut short after it said so");
        lab.open().await.expect("goes on");
        assert_eq!(lab.mark(), mark);
        // A backup from before identities beside files of today.
        lab.execute("DELETE FROM data_folder").await;
        assert!(matches!(lab.refused().await, IdentityError::Strangers { .. }));
    }

    impl Lab {
        async fn execute_without_check(&self, sql: &'static str) {
            let mut connection = Connection::to_file(&self.path("engraft.db")).await.expect("opens");
            sql::query(sql).execute(&mut connection).await.expect("runs");
            connection.close().await.expect("closes");
        }
    }
}
