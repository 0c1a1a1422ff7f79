//! Uploaded datasets.

mod validation;

pub use validation::{Share, ToValidate};

use super::files::{Deletion, FileRow, FileTable, Kind, StoredFile};
use super::listing::Listing;
use super::steady::Steady;
use super::{Blobs, Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::dataset::DatasetFacts;
use crate::domain::id::DatasetId;
use crate::domain::problem::Problem;
use crate::store::sql;
use crate::store::sql::FromRow;

/// How far a dataset's validation has come.
#[derive(Debug, Clone, PartialEq)]
pub enum DatasetState {
    /// It will be read through.
    Validating,
    /// It can be used.
    Ready(DatasetFacts),
    /// It cannot be used.
    Invalid(Problem),
}

impl DatasetState {
    /// Every name of a state.
    pub const NAMES: &'static [&'static str] = &["validating", "ready", "invalid"];

    /// The state's name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Ready(_) => "ready",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// A dataset: its file and what reading it has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDataset {
    /// Its id.
    pub id: DatasetId,
    /// Its file.
    pub file: StoredFile,
    /// What is known of it.
    pub state: DatasetState,
}

#[derive(FromRow)]
struct DatasetRow {
    #[sqlx(flatten)]
    file: FileRow,
    state: String,
    facts: Option<String>,
    problem: Option<String>,
}

impl TryFrom<DatasetRow> for StoredDataset {
    type Error = StoreError;

    fn try_from(row: DatasetRow) -> Result<Self, StoreError> {
        let file = row.file.parse(Kind::Dataset)?;
        let wrong = |detail: String| StoreError::inconsistent("datasets", file.id.clone(), detail);
        let json = |error: serde_json::Error| wrong(error.to_string());
        let state = match (row.state.as_str(), row.facts, row.problem) {
            ("validating", None, None) => DatasetState::Validating,
            ("ready", Some(facts), None) => DatasetState::Ready(serde_json::from_str(&facts).map_err(json)?),
            ("invalid", None, Some(problem)) => DatasetState::Invalid(serde_json::from_str(&problem).map_err(json)?),
            (state, ..) => return Err(wrong(format!("state {state} does not go with its columns"))),
        };
        Ok(Self { id: file.id.parse().map_err(|error| wrong(format!("{error}")))?, file, state })
    }
}

/// The table of datasets.
#[derive(Debug, Clone)]
pub struct Datasets {
    table: FileTable,
    steady: Steady,
}

impl Datasets {
    /// The datasets in `database`, whose bytes are in `blobs`.
    #[must_use]
    pub fn new(database: Database, blobs: Blobs, clock: SharedClock) -> Self {
        let steady = Steady::new(database.clone(), clock);
        let table = FileTable {
            database,
            blobs,
            find: "SELECT * FROM datasets WHERE tenant = $1 AND (id = $2 OR name = $2)",
            delete: "DELETE FROM datasets WHERE tenant = $1 AND (id = $2 OR name = $2) RETURNING blob_key",
        };
        Self { table, steady }
    }

    /// The tenant's dataset with this id or name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, tenant: &Tenant, id_or_name: &str) -> Result<Option<StoredDataset>, StoreError> {
        self.table.find::<DatasetRow, _>(tenant, id_or_name).await
    }

    /// One page of the tenant's datasets, and one row more if there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant, listing: &Listing) -> Result<Vec<StoredDataset>, StoreError> {
        let rows: Vec<DatasetRow> = sql::query_as(sql::each(
            "SELECT * FROM datasets AS entry
             WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND ($3 IS NULL OR state = $3) AND NOT EXISTS (
                 SELECT 1 FROM json_each($4) AS wanted WHERE NOT EXISTS (
                     SELECT 1 FROM json_each(entry.labels) AS label
                     WHERE label.key = wanted.key AND label.value = wanted.value))
             ORDER BY id DESC LIMIT $5",
            "SELECT * FROM datasets WHERE tenant = $1 AND ($2 IS NULL OR id < $2) AND ($3 IS NULL OR state = $3)
                 AND labels::jsonb @> $4::jsonb ORDER BY id DESC LIMIT $5",
        ))
        .bind(tenant.as_str())
        .bind(&listing.after)
        .bind(&listing.state)
        .bind(listing.labels_json())
        .bind(listing.fetch())
        .fetch_all(self.table.database.reader())
        .await?;
        rows.into_iter().map(StoredDataset::try_from).collect()
    }

    /// Removes a dataset, unless an unfinished job reads it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, tenant: &Tenant, id_or_name: &str) -> Result<Deletion, StoreError> {
        self.table.delete(tenant, id_or_name).await
    }
}
