//! Handing jobs to workers: one short transaction that first puts right what has gone wrong, then claims.

use std::time::Duration;

use crate::store::database::Connection;
use crate::store::database::connection::Side;
use crate::store::sql;
use crate::store::sql::FromRow;
use serde_json::{Value, json};

use super::events::{EventKind, append};
#[cfg(test)]
use super::failure::FailurePoint;
use super::queue::{Candidate, Devices, candidates, in_turn, prospect};
use super::row::{InputRow, StateRow, checkpoint, from_json, parsed};
use super::transition::{Guard, lost, read, replace, state_data};
use super::{EpochCheckpoint, JobError, JobInput, Jobs};
use crate::domain::clock::Moment;
use crate::domain::dataset::DatasetFacts;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::job::{Fence, Interruption, State};
use crate::domain::problem::{Code, Problem};
use crate::domain::quota::TenantResource;
use crate::settings::Device;
use crate::store::StoreError;
use crate::store::tenants::{self, Turn};

/// A worker that wants a job.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The worker.
    pub worker: WorkerId,
    /// The machine it runs on.
    pub host: String,
    /// The devices it offers, the preferred one first.
    pub devices: Vec<Device>,
    /// How long it promises to be alive.
    pub lease: Duration,
    /// Bytes of disk that jobs may take, as much as those that run have taken already not counted.
    pub room: u64,
}

/// A job that the caller now holds.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The right to write for it.
    pub fence: Fence,
    /// The request with every default filled in, in its JSON form.
    pub resolved: Value,
    /// Where it wants to run.
    pub device: Device,
    /// The files it reads; members in order.
    pub inputs: Vec<ClaimedInput>,
    /// From where to go on.
    pub checkpoint: Option<EpochCheckpoint>,
    /// Bytes of disk that it is expected to take at its peak.
    pub disk: u64,
}

/// A file that a claimed job reads.
#[derive(Debug, Clone)]
pub struct ClaimedInput {
    /// What it is.
    pub input: JobInput,
    /// Key of its blob.
    pub blob_key: String,
}

/// The files that a job reads, as a list of lists: the values of an [`InputRow`] in the order of its fields, and the key of its blob.
macro_rules! input_rows {
    ($job:literal, $list:literal, $row:literal, $cast:literal) => {
        concat!(
            "(SELECT coalesce(", $list, "(", $row, "(", $row, "(role, position, job_inputs.name, job_inputs.sha256, checkpoint_id, dataset_id), \
                 coalesce(checkpoints.blob_key, datasets.blob_key))), '[]')", $cast, " \
             FROM job_inputs LEFT JOIN checkpoints ON checkpoints.id = checkpoint_id LEFT JOIN datasets ON datasets.id = dataset_id \
             WHERE job_id = ", $job, ".id) AS input_rows"
        )
    };
}

/// What a claim changes of a job that is still as it was.
macro_rules! claim {
    () => {
        "UPDATE jobs SET state = 'running', attempt = $1, stalled = $2, ran_ms = $3, worker = $4, claimed_at = $5, lease_until = $6, \
             not_before = NULL, started_at = coalesce(started_at, $7), phases = '[]', progress = NULL, disk_reserved = $8 \
         WHERE id = $9 AND state = 'queued' AND attempt = $10 RETURNING "
    };
}

/// Claims. The history of the job and the turn of its tenant have statements of their own.
const CLAIM_IN_SQLITE: &str = concat!(
    claim!(),
    "tenant, resolved, device, checkpoint_key, checkpoint_epoch, ",
    input_rows!("jobs", "json_group_array", "json_array", "")
);
/// The same, with history and turn: each statement is a way to the server and back.
const CLAIM_IN_POSTGRES: &str = concat!(
    "WITH claimed AS (",
    claim!(),
    "*), event AS ( \
         INSERT INTO job_events (job_id, seq, at, type, attempt, data) \
         SELECT id, (SELECT coalesce(max(seq), 0) + 1 FROM job_events WHERE job_id = $9), $7, 'state', attempt, $11 FROM claimed), \
     turn AS ( \
         INSERT INTO tenant_turns (tenant, job) SELECT tenant, (SELECT coalesce(max(job), 0) + 1 FROM tenant_turns) FROM claimed \
         ON CONFLICT (tenant) DO UPDATE SET job = excluded.job) \
     SELECT tenant, resolved, device, checkpoint_key, checkpoint_epoch, ",
    input_rows!("claimed", "json_agg", "json_build_array", "::text"),
    " FROM claimed"
);

#[derive(FromRow)]
struct ClaimedRow {
    tenant: String,
    resolved: String,
    device: String,
    checkpoint_key: Option<String>,
    checkpoint_epoch: Option<i64>,
    /// In JSON.
    input_rows: String,
}

impl Jobs {
    /// Claims the next job that the claimant can run, if there is one, for the time of its lease. Before
    /// that, jobs whose lease has lapsed are queued again (or ended), and jobs whose dataset turned out to be invalid fail.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, claimant: &Claimant) -> Result<Option<Claim>, JobError> {
        let devices = Devices::of(&claimant.devices);
        let now = self.steady.of_machine().await?;
        // Whoever finds nothing to do only reads.
        let mut connection = self.database.reader().acquire().await?;
        let prospect = prospect(&mut connection, &devices, now).await?;
        if !prospect.is_unsettled && !prospect.is_waiting {
            return Ok(None);
        }
        let mut transaction = self.database.write_on(connection).await?;
        let now = self.steady.moment(&transaction).await?;
        if prospect.is_unsettled {
            settle(&mut transaction, now).await?;
        }
        #[cfg(test)]
        self.failures.pass(FailurePoint::ClaimAfterSettling)?;
        let claim = self.take(&mut transaction, claimant, &devices, now).await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::ClaimBeforeCommit)?;
        transaction.commit().await?;
        #[cfg(test)]
        self.failures.pass(FailurePoint::ClaimAfterCommit)?;
        Ok(claim)
    }

    /// Does what a claim does before it claims: where no worker is left, one is only started for jobs that wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle(&self) -> Result<(), JobError> {
        if !self.has_lapsed().await? {
            return Ok(());
        }
        let (mut transaction, now) = self.begin().await?;
        settle(&mut transaction, now).await?;
        Ok(transaction.commit().await?)
    }

    async fn has_lapsed(&self) -> Result<bool, StoreError> {
        Ok(sql::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < $1)")
            .bind(self.steady.now().await?.as_millis())
            .fetch_one(self.database.reader())
            .await?)
    }

    /// Queues again, or ends, every job of a worker whose process is gone. Says how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn abandon(&self, worker: WorkerId) -> Result<usize, JobError> {
        let (mut transaction, now) = self.begin().await?;
        let held: Vec<String> = sql::query_scalar("SELECT id FROM jobs WHERE state = 'running' AND worker = $1")
            .bind(worker.to_string())
            .fetch_all(&mut *transaction)
            .await?;
        for id in &held {
            interrupt(&mut transaction, id, Interruption::WorkerGone, now).await?;
        }
        transaction.commit().await?;
        Ok(held.len())
    }

    async fn take(
        &self,
        conn: &mut Connection,
        claimant: &Claimant,
        devices: &Devices,
        now: Moment,
    ) -> Result<Option<Claim>, JobError> {
        let Some((Candidate { id, state, .. }, disk)) = self.choose(conn, claimant, devices, now).await? else {
            return Ok(None);
        };
        let (job, state) = (parsed(&id, &id)?, state.state(&id)?);
        let State::Queued(queued) = state else { return Ok(None) };
        let before = Fence { job, attempt: queued.effort.attempts };
        let running = queued.claim(claimant.worker, claimant.lease, now);
        let fence = Fence { job, attempt: running.effort.attempts };
        let state = State::Running(running);
        let event = state_data(&state, json!({ "worker": claimant.worker }), now);
        let claimed = StateRow::of(&state);
        let row: Option<ClaimedRow> = sql::query_as(sql::each(CLAIM_IN_SQLITE, CLAIM_IN_POSTGRES))
            .bind(claimed.attempt)
            .bind(claimed.stalled)
            .bind(claimed.ran_ms)
            .bind(claimed.worker)
            .bind(claimed.claimed_at)
            .bind(claimed.lease_until)
            .bind(now.date.as_millisecond())
            .bind(i64::try_from(disk).unwrap_or(i64::MAX))
            .bind(&id)
            .bind(before.attempt)
            .bind(event.to_string())
            .fetch_optional(&mut *conn)
            .await?;
        let Some(row) = row else { return Err(lost(conn, before).await) };
        if let Side::Sqlite(_) = conn.side() {
            append(conn, job, EventKind::State, &event, now.date).await?;
            tenants::served(conn, &row.tenant, Turn::Job).await?;
        }
        Ok(Some(Claim {
            fence,
            resolved: from_json(&id, &row.resolved)?,
            device: parsed(&id, &row.device)?,
            inputs: inputs(&id, &row.input_rows)?,
            checkpoint: checkpoint(row.checkpoint_key, row.checkpoint_epoch),
            disk,
        }))
    }

    /// The next job that the claimant can run and whose files have room beside those of running jobs, and their size. Where
    /// nothing runs there is nothing to wait for: the attempt finds out whether there is room, and says so.
    async fn choose(
        &self,
        conn: &mut Connection,
        claimant: &Claimant,
        devices: &Devices,
        now: Moment,
    ) -> Result<Option<(Candidate, u64)>, JobError> {
        for waiting in in_turn(conn, Some(devices), &claimant.host).await? {
            let room = claimant.room.saturating_sub(u64::try_from(waiting.reserved).unwrap_or(0));
            let most = waiting.most.and_then(|most| u64::try_from(most).ok());
            let quota = most.map_or(self.quota, |most| self.quota.with(TenantResource::Running, most));
            let running_of_its = u64::try_from(waiting.running).unwrap_or(0);
            if quota.limit(TenantResource::Running).is_some_and(|most| running_of_its >= most) {
                continue;
            }
            for candidate in candidates(conn, &waiting.tenant, devices, now).await? {
                // Facts that this version cannot read must not keep every job from being claimed.
                let facts: Vec<DatasetFacts> = from_json(&candidate.id, &candidate.datasets).unwrap_or_default();
                let data = facts.iter().map(DatasetFacts::decoded_bytes).fold(0, u64::saturating_add);
                let disk = data.saturating_add(u64::try_from(candidate.files).unwrap_or(0));
                if waiting.all_running == 0 || disk <= room {
                    return Ok(Some((candidate, disk)));
                }
            }
        }
        Ok(None)
    }
}

/// The files of the job `id`, members first and in order, as the claim's row has them.
fn inputs(id: &str, rows: &str) -> Result<Vec<ClaimedInput>, StoreError> {
    let rows: Vec<(InputRow, Option<String>)> = from_json(id, rows)?;
    let claimed = |(row, blob_key): (InputRow, Option<String>)| {
        let gone = || StoreError::inconsistent("job_inputs", id, format!("{} is gone", row.name));
        Ok(ClaimedInput { blob_key: blob_key.ok_or_else(gone)?, input: row.input(id)? })
    };
    let mut inputs = rows.into_iter().map(claimed).collect::<Result<Vec<_>, StoreError>>()?;
    inputs.sort_by_key(|claimed| claimed.input.role);
    Ok(inputs)
}

/// Puts right what has gone wrong.
async fn settle(conn: &mut Connection, now: Moment) -> Result<(), JobError> {
    settle_lapsed(conn, now).await?;
    settle_invalid(conn, now).await
}

/// Queues again, or ends, every job whose worker has not renewed its lease.
async fn settle_lapsed(conn: &mut Connection, now: Moment) -> Result<(), JobError> {
    let lapsed: Vec<String> = sql::query_scalar("SELECT id FROM jobs WHERE state = 'running' AND lease_until < $1")
        .bind(now.steady.as_millis())
        .fetch_all(&mut *conn)
        .await?;
    for id in lapsed {
        interrupt(conn, &id, Interruption::LeaseLapsed, now).await?;
    }
    Ok(())
}

/// Queues a running job again, or ends it: its attempt has ended without a result.
async fn interrupt(conn: &mut Connection, id: &str, why: Interruption, now: Moment) -> Result<(), JobError> {
    let job: JobId = parsed(id, id)?;
    let (state, max_runtime) = read(conn, job).await?;
    let guard = Guard::of(job, &state);
    let State::Running(running) = state else { return Ok(()) };
    let next = running.interrupt(why, max_runtime, now);
    replace(conn, guard, &next, json!({ "reason": why.as_str() }), now).await
}

/// Fails every waiting job one of whose datasets cannot be used.
async fn settle_invalid(conn: &mut Connection, now: Moment) -> Result<(), JobError> {
    let invalid: Vec<(String, String, String)> = sql::query_as(
        // From the few datasets to the many jobs: SQLite keeps this order in a CROSS JOIN.
        "SELECT jobs.id, datasets.name, datasets.problem FROM datasets CROSS JOIN job_inputs CROSS JOIN jobs \
         WHERE datasets.state = 'invalid' AND job_inputs.dataset_id = datasets.id AND jobs.id = job_inputs.job_id \
             AND jobs.state = 'queued' ORDER BY jobs.id, datasets.name",
    )
    .fetch_all(&mut *conn)
    .await?;
    for (id, name, problem) in invalid {
        let job: JobId = parsed(&id, &id)?;
        let (state, _) = read(conn, job).await?;
        let guard = Guard::of(job, &state);
        // It has failed already where two of its datasets cannot be used.
        let State::Queued(queued) = state else { continue };
        let problem: Value = from_json(&id, &problem)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        let detail = format!("The dataset {name} cannot be used: {detail}");
        let failed = queued.fail(Problem::new(Code::DatasetInvalid, detail), now);
        replace(conn, guard, &failed, Value::Null, now).await?;
    }
    Ok(())
}
