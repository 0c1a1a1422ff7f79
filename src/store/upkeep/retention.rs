//! What may go after some time: jobs that have ended, and files that no job reads any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::access::Tenant;
use crate::domain::clock::SharedClock;
use crate::domain::quota::TenantResource;
use crate::domain::retention::Rules;
use crate::store::checkpoints::Checkpoints;
use crate::store::datasets::Datasets;
use crate::store::files::Deletion;
use crate::store::jobs::{JobError, Jobs};
use crate::store::sql;
use crate::store::sql::FromRow;
use crate::store::{Blobs, Database, StoreError, tenants};

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// `job`, `checkpoint` or `dataset`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Its name; empty for a job.
    pub name: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// Its bytes on disk, results included.
    pub bytes: u64,
    /// The rule by which it goes.
    pub why: &'static str,
}

/// A job that has ended, or a file.
#[derive(Debug, FromRow)]
struct Entry {
    kind: String,
    id: String,
    name: String,
    tenant: String,
    bytes: i64,
    /// When it ended, or was uploaded.
    since: i64,
}

impl Entry {
    fn doomed(&self, tenant: &Tenant, why: &'static str) -> Doomed {
        let kind = match self.kind.as_str() {
            "job" => "job",
            "checkpoint" => "checkpoint",
            _ => "dataset",
        };
        let bytes = u64::try_from(self.bytes).unwrap_or_default();
        Doomed { kind, id: self.id.clone(), name: self.name.clone(), tenant: tenant.clone(), bytes, why }
    }
}

/// Applies rules to a data directory.
#[derive(Debug, Clone)]
pub struct Retention {
    database: Database,
    blobs: Blobs,
    clock: SharedClock,
}

impl Retention {
    /// Retention of what is in `database` and `blobs`.
    #[must_use]
    pub fn new(database: Database, blobs: Blobs, clock: SharedClock) -> Self {
        Self { database, blobs, clock }
    }

    /// Everything that goes by `rules` now, in the order in which it is to go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn plan(&self, rules: &Rules) -> Result<Vec<Doomed>, StoreError> {
        let mut conn = self.database.reader().acquire().await?;
        // Each list is read at its own moment; what is used again in the meantime is refused when it is deleted.
        let entries: Vec<Entry> = sql::query_as(
            "SELECT * FROM (
                 SELECT 'job' AS kind, id, '' AS name, tenant, finished_at AS since,
                     CAST((SELECT coalesce(sum(bytes), 0) FROM job_artifacts WHERE job_id = jobs.id) AS BIGINT) AS bytes
                 FROM jobs WHERE finished_at IS NOT NULL
                 UNION ALL SELECT 'checkpoint', id, name, tenant, created_at, bytes FROM checkpoints
                 UNION ALL SELECT 'dataset', id, name, tenant, created_at, bytes FROM datasets) AS entries
             WHERE id NOT IN (SELECT id FROM pins) ORDER BY since, id",
        )
        .fetch_all(&mut conn)
        .await?;
        let reads: Vec<(String, String)> = sql::query_as(
            "SELECT job_id, coalesce(checkpoint_id, dataset_id) FROM job_inputs
             WHERE coalesce(checkpoint_id, dataset_id) IS NOT NULL",
        )
        .fetch_all(&mut conn)
        .await?;
        let mut readers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (job, file) in &reads {
            readers.entry(file).or_default().push(job);
        }
        let mut owners: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in &entries {
            owners.entry(&entry.tenant).or_default().push(entry);
        }
        let mut doomed = Vec::new();
        for (name, entries) in owners {
            let tenant: Tenant = name.parse().map_err(|error| StoreError::inconsistent("tenants", name, error))?;
            let usage = tenants::usage(&mut conn, &tenant, &[TenantResource::Bytes], None).await?;
            doomed.extend(self.of_tenant(&tenant, &entries, &readers, rules, usage.of(TenantResource::Bytes)));
        }
        Ok(doomed)
    }

    fn of_tenant(
        &self,
        tenant: &Tenant,
        entries: &[&Entry],
        readers: &BTreeMap<&str, Vec<&str>>,
        rules: &Rules,
        total: u64,
    ) -> Vec<Doomed> {
        let now = self.clock.now().as_millisecond();
        let is_older = |entry: &Entry, span: Option<Duration>| {
            span.is_some_and(|span| {
                entry.since < now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
            })
        };
        let (jobs, files): (Vec<&Entry>, Vec<&Entry>) = entries.iter().copied().partition(|entry| entry.kind == "job");
        let kept = rules.jobs.map_or(jobs.len(), |most| usize::try_from(most).unwrap_or(usize::MAX));
        let beyond = jobs.len().saturating_sub(kept);
        let mut doomed: Vec<Doomed> = Vec::new();
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        for (place, job) in jobs.iter().enumerate() {
            let why = if is_older(job, rules.jobs_for) {
                "its time is over"
            } else if place < beyond {
                "there are later ones"
            } else {
                continue;
            };
            gone.insert(&job.id);
            doomed.push(job.doomed(tenant, why));
        }
        let left = |doomed: &[Doomed]| total.saturating_sub(doomed.iter().map(|one| one.bytes).sum());
        let exceeds = |doomed: &[Doomed]| rules.bytes.is_some_and(|most| left(doomed) > most);
        for job in &jobs {
            if exceeds(&doomed) && job.bytes > 0 && gone.insert(&job.id) {
                doomed.push(job.doomed(tenant, "the tenant has more bytes than are kept"));
            }
        }
        for file in files {
            if readers.get(file.id.as_str()).is_some_and(|jobs| jobs.iter().any(|job| !gone.contains(job))) {
                continue;
            }
            if is_older(file, rules.files_for) {
                doomed.push(file.doomed(tenant, "its time is over, and no job reads it"));
            } else if exceeds(&doomed) {
                doomed.push(file.doomed(tenant, "the tenant has more bytes than are kept, and no job reads it"));
            }
        }
        doomed
    }

    /// Deletes what goes by `rules` now, each with a line in the log. Says how many went; what is used again by then stays.
    ///
    /// # Errors
    /// When the storage fails; what went before is gone.
    pub async fn apply(&self, rules: &Rules) -> Result<usize, StoreError> {
        let jobs = Jobs::new(self.database.clone(), self.clock.clone());
        let checkpoints = Checkpoints::new(self.database.clone(), self.blobs.clone());
        let datasets = Datasets::new(self.database.clone(), self.blobs.clone(), self.clock.clone());
        let mut gone = 0;
        for Doomed { kind, id, name, tenant, bytes, why } in self.plan(rules).await? {
            let deleted = match kind {
                "job" => match id.parse() {
                    Ok(job) => match jobs.delete(&self.blobs, &tenant, job).await {
                        Err(JobError::Store(error)) => return Err(error),
                        deleted => deleted.is_ok(),
                    },
                    Err(_) => false,
                },
                "checkpoint" => checkpoints.delete(&tenant, &id).await? == Deletion::Done,
                _ => datasets.delete(&tenant, &id).await? == Deletion::Done,
            };
            if deleted {
                tracing::info!(kind, %id, name, tenant = tenant.as_str(), bytes, why, "removed by the rules of retention");
                gone += 1;
            }
        }
        Ok(gone)
    }
}
