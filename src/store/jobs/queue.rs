//! The order in which jobs are claimed: tenants take turns, and a tenant's jobs come by priority and age, those of comparisons behind
//! others.

use serde_json::json;

use super::row::StateRow;
use crate::domain::clock::{Moment, SteadyTime};
use crate::settings::Device;
use crate::store::StoreError;
use crate::store::database::Connection;
use crate::store::sql;
use crate::store::sql::FromRow;

/// Jobs of a tenant for one device that are looked at, in order, for one whose files have room.
const MOST_CANDIDATES: i64 = 20;

/// From one tenant with waiting jobs to the next along the index: neither database does that for DISTINCT, and there may be many jobs of a few
/// tenants.
macro_rules! with_waiting_tenants {
    ($rest:literal) => {
        concat!(
            "WITH RECURSIVE waiting (tenant) AS ( \
                 SELECT min(tenant) FROM jobs WHERE state = 'queued' \
                 UNION ALL SELECT (SELECT min(tenant) FROM jobs WHERE state = 'queued' AND tenant > waiting.tenant) \
                 FROM waiting WHERE waiting.tenant IS NOT NULL) ",
            $rest
        )
    };
}

/// A tenant with waiting jobs.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Waiting {
    /// Its name.
    pub(super) tenant: String,
    /// Its running jobs.
    pub(super) running: i64,
    /// How many may run, where that is its own limit.
    pub(super) most: Option<i64>,
    /// Running jobs of all tenants.
    pub(super) all_running: i64,
    /// Bytes of disk that those have reserved which run on the same machine.
    pub(super) reserved: i64,
}

/// The tenants with waiting jobs, for one of `devices` where there are any: those with the fewest running ones first, and of these the one
/// whose turn is longest ago. Who claims does so for `host`; jobs on other machines take nothing of this one's disk.
pub(super) async fn in_turn(
    conn: &mut Connection,
    devices: Option<&Devices>,
    host: &str,
) -> Result<Vec<Waiting>, StoreError> {
    Ok(sql::query_as(sql::each(
        with_waiting_tenants!(
            "SELECT waiting.tenant, \
                 (SELECT count(*) FROM jobs AS other WHERE other.state = 'running' AND other.tenant = waiting.tenant) AS running, \
                 (SELECT most FROM tenant_limits WHERE tenant = waiting.tenant AND resource = 'running') AS most, \
                 (SELECT count(*) FROM jobs WHERE state = 'running') AS all_running, \
                 (SELECT coalesce(sum(disk_reserved), 0) FROM jobs WHERE state = 'running') AS reserved \
             FROM waiting LEFT JOIN tenant_turns ON tenant_turns.tenant = waiting.tenant \
             WHERE waiting.tenant IS NOT NULL AND ($1 IS NULL OR EXISTS ( \
                 SELECT 1 FROM jobs WHERE state = 'queued' AND jobs.tenant = waiting.tenant \
                     AND device IN (SELECT value FROM json_each($1)))) \
             ORDER BY running, coalesce(tenant_turns.job, 0), waiting.tenant"
        ),
        with_waiting_tenants!(
            "SELECT waiting.tenant, \
                 (SELECT count(*) FROM jobs AS other WHERE other.state = 'running' AND other.tenant = waiting.tenant) AS running, \
                 (SELECT most FROM tenant_limits WHERE tenant = waiting.tenant AND resource = 'running') AS most, \
                 (SELECT count(*) FROM jobs WHERE state = 'running') AS all_running, \
                 (SELECT coalesce(sum(disk_reserved), 0)::bigint FROM jobs LEFT JOIN workers ON workers.id = jobs.worker \
                  WHERE state = 'running' AND (host = $2 OR host IS NULL)) AS reserved \
             FROM waiting LEFT JOIN tenant_turns ON tenant_turns.tenant = waiting.tenant \
             WHERE waiting.tenant IS NOT NULL AND ($1::text IS NULL OR EXISTS ( \
                 SELECT 1 FROM jobs WHERE state = 'queued' AND jobs.tenant = waiting.tenant \
                     AND device = ANY (ARRAY(SELECT json_array_elements_text($1::json))))) \
             ORDER BY running, coalesce(tenant_turns.job, 0), waiting.tenant"
        ),
    ))
    .bind(devices.map(|devices| devices.0.clone()))
    .bind(host)
    .fetch_all(conn)
    .await?)
}

/// What a worker could find.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct Prospect {
    /// A job that has lost its worker, or whose dataset cannot be used.
    pub(super) is_unsettled: bool,
    /// A job that could run on one of its devices.
    pub(super) is_waiting: bool,
}

/// What a worker with `devices` could find at the steady time `now`, or at that of the database. It costs little: idle workers ask for that
/// again and again.
pub(super) async fn prospect(
    conn: &mut Connection,
    devices: &Devices,
    now: Option<SteadyTime>,
) -> Result<Prospect, StoreError> {
    Ok(sql::query_as(sql::each(
        with_waiting_tenants!(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < $1) \
                 OR EXISTS (SELECT 1 FROM datasets CROSS JOIN job_inputs CROSS JOIN jobs \
                     WHERE datasets.state = 'invalid' AND job_inputs.dataset_id = datasets.id AND jobs.id = job_inputs.job_id \
                         AND jobs.state = 'queued') AS is_unsettled, \
                 EXISTS (SELECT 1 FROM waiting WHERE EXISTS ( \
                     SELECT 1 FROM jobs WHERE state = 'queued' AND jobs.tenant = waiting.tenant \
                         AND device IN (SELECT value FROM json_each($2)) AND (not_before IS NULL OR not_before <= $1))) AS is_waiting"
        ),
        with_waiting_tenants!(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < coalesce($1, (extract(epoch FROM statement_timestamp()) * 1000)::bigint)) \
                 OR EXISTS (SELECT 1 FROM datasets CROSS JOIN job_inputs CROSS JOIN jobs \
                     WHERE datasets.state = 'invalid' AND job_inputs.dataset_id = datasets.id AND jobs.id = job_inputs.job_id \
                         AND jobs.state = 'queued') AS is_unsettled, \
                 EXISTS (SELECT 1 FROM waiting WHERE EXISTS ( \
                     SELECT 1 FROM jobs WHERE state = 'queued' AND jobs.tenant = waiting.tenant \
                         AND device = ANY (ARRAY(SELECT json_array_elements_text($2::json))) \
                         AND (not_before IS NULL OR not_before <= coalesce($1, (extract(epoch FROM statement_timestamp()) * 1000)::bigint)))) AS is_waiting"
        ),
    ))
    .bind(now.map(SteadyTime::as_millis))
    .bind(&devices.0)
    .fetch_one(conn)
    .await?)
}

/// What jobs can ask for that run on some devices: a JSON list.
#[derive(Debug, Clone)]
pub(super) struct Devices(String);

impl Devices {
    /// What a worker with these devices can run.
    pub(super) fn of(devices: &[Device]) -> Self {
        let any = [Device::Auto, Device::AnyCuda].into_iter();
        let any = any.filter(|wanted| devices.iter().any(|device| wanted.may_be(*device)));
        Self(json!(any.chain(devices.iter().copied()).collect::<Vec<_>>()).to_string())
    }
}

/// A job that could be claimed.
#[derive(FromRow)]
pub(super) struct Candidate {
    pub(super) id: String,
    #[sqlx(flatten)]
    pub(super) state: StateRow,
    /// Bytes of everything that it writes but decoded data.
    pub(super) files: i64,
    /// JSON array with the facts of its datasets.
    pub(super) datasets: String,
}

/// The first jobs of a tenant that could run now, in order. Nobody else writes to them until the transaction ends.
pub(super) async fn candidates(
    conn: &mut Connection,
    tenant: &str,
    devices: &Devices,
    now: Moment,
) -> Result<Vec<Candidate>, StoreError> {
    // The first ones for each device, along the index, which has their order: jobs for other devices are not looked at.
    Ok(sql::query_as(sql::each(
        "SELECT jobs.id, state, attempt, stalled, ran_ms, worker, claimed_at, lease_until, cancel_requested, finished_at, error, not_before, \
             coalesce(json_extract(plan, '$.disk_peak_bytes') - json_extract(plan, '$.disk_data_bytes'), 0) AS files, \
             (SELECT json_group_array(json(datasets.facts)) FROM job_inputs \
              JOIN datasets ON datasets.id = job_inputs.dataset_id WHERE job_inputs.job_id = jobs.id) AS datasets \
         FROM json_each($2) AS wanted CROSS JOIN jobs WHERE jobs.id IN ( \
             SELECT first.id FROM jobs AS first \
             WHERE first.state = 'queued' AND first.tenant = $1 AND first.device = wanted.value \
             AND (first.not_before IS NULL OR first.not_before <= $3) AND NOT EXISTS ( \
                 SELECT 1 FROM job_inputs JOIN datasets ON datasets.id = job_inputs.dataset_id \
                 WHERE job_inputs.job_id = first.id AND datasets.state <> 'ready') \
             ORDER BY first.priority DESC, first.compared, first.id LIMIT $4) \
         ORDER BY jobs.priority DESC, jobs.compared, jobs.id",
        // A row that somebody is writing to, as a cancellation does, is passed over.
        "SELECT jobs.id, state, attempt, stalled, ran_ms, worker, claimed_at, lease_until, cancel_requested, finished_at, error, not_before, \
             coalesce((plan::json ->> 'disk_peak_bytes')::bigint - (plan::json ->> 'disk_data_bytes')::bigint, 0) AS files, \
             (SELECT coalesce(json_agg(datasets.facts::json), '[]')::text FROM job_inputs \
              JOIN datasets ON datasets.id = job_inputs.dataset_id WHERE job_inputs.job_id = jobs.id) AS datasets \
         FROM json_array_elements_text($2::json) AS wanted CROSS JOIN LATERAL ( \
             SELECT * FROM jobs AS first \
             WHERE first.state = 'queued' AND first.tenant = $1 AND first.device = wanted \
             AND (first.not_before IS NULL OR first.not_before <= $3) AND NOT EXISTS ( \
                 SELECT 1 FROM job_inputs JOIN datasets ON datasets.id = job_inputs.dataset_id \
                 WHERE job_inputs.job_id = first.id AND datasets.state <> 'ready') \
             ORDER BY first.priority DESC, first.compared, first.id LIMIT $4 FOR UPDATE OF first SKIP LOCKED) AS jobs \
         ORDER BY jobs.priority DESC, jobs.compared, jobs.id",
    ))
    .bind(tenant)
    .bind(&devices.0)
    .bind(now.steady.as_millis())
    .bind(MOST_CANDIDATES)
    .fetch_all(conn)
    .await?)
}
