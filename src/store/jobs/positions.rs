//! When the turn of each waiting job comes. Clients ask for that with every poll, so that it is found out for all jobs at once and
//! serves for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Jobs;
use super::queue::{Waiting, in_turn};
use super::row::parsed;
use crate::domain::id::JobId;
use crate::store::sql;
use crate::store::{Database, StoreError};

/// How many times as long as it took to find them out positions are told: at most a twentieth of one processor's time goes into them.
const SERVE_TIMES: u32 = 20;
/// Never for longer: they may also have taken long because the database was away.
const SERVE_MOST: Duration = Duration::from_secs(10);

/// The positions of all waiting jobs; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Positions {
    latest: Arc<Mutex<Arc<Found>>>,
    /// Whoever holds it finds them out anew.
    finding: Arc<tokio::sync::Mutex<()>>,
}

/// Positions that were found out at one moment; 1 is next.
#[derive(Debug, Default)]
struct Found {
    of: HashMap<JobId, i64>,
    serve_until: Option<Instant>,
}

impl Found {
    fn serves(&self, job: JobId) -> bool {
        self.of.contains_key(&job) && self.serve_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Positions {
    fn latest(&self) -> Arc<Found> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The position of a job that waits, and as a rule none of one that does not.
    async fn of(&self, database: &Database, job: JobId) -> Result<Option<i64>, StoreError> {
        let known = self.latest();
        if known.serves(job) {
            return Ok(known.of.get(&job).copied());
        }
        let finding = match self.finding.try_lock() {
            Ok(finding) => finding,
            // Somebody finds them out already: what was known before is good enough, if it knows the job.
            Err(_) if known.of.contains_key(&job) => return Ok(known.of.get(&job).copied()),
            Err(_) => self.finding.lock().await,
        };
        let known = self.latest();
        if known.serves(job) {
            return Ok(known.of.get(&job).copied());
        }
        let began = Instant::now();
        let of = find(database).await?;
        let now = Instant::now();
        let found = Arc::new(Found { of, serve_until: Some(now + SERVE_MOST.min(SERVE_TIMES * (now - began))) });
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = found.clone();
        drop(finding);
        Ok(found.of.get(&job).copied())
    }
}

/// The positions of all jobs that wait now.
async fn find(database: &Database) -> Result<HashMap<JobId, i64>, StoreError> {
    let mut conn = database.reader().acquire().await?;
    let turns = in_turn(&mut conn, None, "").await?;
    let jobs: Vec<(String, String)> = sql::query_as(
        "SELECT tenant, id FROM jobs WHERE state = 'queued' ORDER BY tenant, priority DESC, compared, id",
    )
    .fetch_all(&mut conn)
    .await?;
    let mut own: HashMap<String, Vec<JobId>> = HashMap::new();
    for (tenant, id) in jobs {
        own.entry(tenant).or_default().push(parsed(&id, &id)?);
    }
    Ok(in_order(&turns, &own))
}

/// The tenants take turns, each with its `own` jobs in their order. One that has come between two looks waits for the next.
fn in_order(turns: &[Waiting], own: &HashMap<String, Vec<JobId>>) -> HashMap<JobId, i64> {
    let mut waiting: Vec<_> = turns.iter().filter_map(|turn| own.get(&turn.tenant)).map(|jobs| jobs.iter()).collect();
    let mut positions = HashMap::new();
    while !waiting.is_empty() {
        waiting.retain_mut(|jobs| match jobs.next() {
            Some(job) => positions.insert(*job, positions.len() as i64 + 1).is_none(),
            None => false,
        });
    }
    positions
}

impl Jobs {
    /// When a waiting job's turn comes; 1 is next. Others may take theirs later than expected, and new ones may come before it. In a long
    /// queue this is as it stood some seconds ago, also for a job that has left it since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_position(&self, job: JobId) -> Result<Option<i64>, StoreError> {
        self.positions.of(&self.database, job).await
    }
}
