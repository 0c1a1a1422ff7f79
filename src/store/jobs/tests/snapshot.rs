//! The whole queue as text, so that a test shows what it expects as it stands in the database.

use std::fmt::Write;

use super::*;
use crate::store::jobs::row::StateRow;
use crate::store::sql;

/// When [`House`]'s clock starts, in milliseconds.
const START: i64 = 1_000_000;

impl House {
    /// Every job with its attempts, artifacts, metrics and events, the oldest first, and what Idempotency-Keys stand for. Ids
    /// are numbered in the order in which they appear, times are seconds since the start. Begins with an empty line, as literals do.
    pub(super) async fn snapshot(&self) -> String {
        let mut text = String::from("\n");
        for job in self.rows::<Shown>("SELECT * FROM jobs ORDER BY id", None).await {
            let id = job.id.clone();
            writeln!(text, "{id}: {}", described(job)).expect("text");
            let artifacts = "SELECT name, blob_key FROM job_artifacts WHERE job_id = $1 ORDER BY name";
            for (name, key) in self.rows::<(String, String)>(artifacts, Some(&id)).await {
                writeln!(text, "  artifact {name} in {key}").expect("text");
            }
            let metrics = "SELECT epoch, data FROM job_metrics WHERE job_id = $1 ORDER BY epoch";
            for (epoch, data) in self.rows::<(i64, String)>(metrics, Some(&id)).await {
                writeln!(text, "  epoch {epoch}: {}", without_nulls(&data)).expect("text");
            }
            let events = "SELECT seq, attempt, at, type, data FROM job_events WHERE job_id = $1 ORDER BY seq";
            for (seq, attempt, at, kind, data) in self.rows::<(i64, i64, i64, String, String)>(events, Some(&id)).await
            {
                writeln!(text, "  {seq}. {} attempt {attempt}: {kind} {}", time(at), without_nulls(&data))
                    .expect("text");
            }
        }
        let keys = "SELECT key, made_id FROM idempotency_keys ORDER BY key";
        for (key, made) in self.rows::<(String, String)>(keys, None).await {
            writeln!(text, "key {key}: {made}").expect("text");
        }
        numbered(&numbered(&text, "job_", "job"), "work_", "worker")
    }

    async fn rows<T: sql::Row + 'static>(&self, sql: &'static str, id: Option<&str>) -> Vec<T> {
        let query = sql::query_as(sql);
        let query = if let Some(id) = id { query.bind(id) } else { query };
        query.fetch_all(self.jobs.database.reader()).await.expect("reads")
    }
}

/// The columns of a job that are shown.
#[derive(sql::FromRow)]
struct Shown {
    id: String,
    phases: String,
    progress: Option<String>,
    plan: String,
    retry_of: Option<String>,
    checkpoint_key: Option<String>,
    #[sqlx(flatten)]
    state: StateRow,
}

/// What the columns of a job say.
fn described(job: Shown) -> String {
    let state = job.state;
    let mut text = format!(
        "{}, attempt {}, stalled {}, ran {}s",
        state.state,
        state.attempt.0,
        state.stalled.0,
        state.ran_ms / 1000
    );
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(text, ", {name} {value}").expect("text");
        }
    };
    add("of", state.worker);
    add("leased until", state.lease_until.map(time));
    add("not before", state.not_before.map(time));
    add("ended", state.finished_at.map(time));
    add("end", state.cancel_requested.then(|| "requested".to_owned()));
    let phases: Vec<PhaseSpan> = serde_json::from_str(&job.phases).expect("phases");
    for PhaseSpan { name, started, ended } in phases {
        let ended = ended.map_or(String::new(), |ended| time(ended.as_millisecond()));
        add("phase", Some(format!("{name:?} {}-{ended}", time(started.as_millisecond()))));
    }
    let progress: Option<Progress> = job.progress.map(|json| serde_json::from_str(&json).expect("progress"));
    // The beginning of a phase is in its event.
    add("fraction", progress.map(|progress| progress.fraction).filter(|done| *done > 0.0).map(|done| done.to_string()));
    add("plan", Some(job.plan).filter(|plan| plan != "{}"));
    add("error", state.error);
    add("repeats", job.retry_of);
    add("checkpoint", job.checkpoint_key);
    text
}

/// The fields of a JSON object that say something.
fn without_nulls(json: &str) -> Value {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(json).expect("an object");
    fields.retain(|_, value| !value.is_null());
    Value::Object(fields)
}

fn time(millis: i64) -> String {
    format!("{}s", (millis - START) / 1000)
}

/// Gives every id that begins with `prefix` a number behind `name` instead.
fn numbered(text: &str, prefix: &str, name: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for (start, _) in text.match_indices(prefix) {
        let id = text.get(start..start + prefix.len() + 32).unwrap_or_default();
        let is_id = !id.is_empty() && id[prefix.len()..].bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id && !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.iter().zip(1..).fold(text.to_owned(), |text, (id, number)| text.replace(id, &format!("{name} {number}")))
}
