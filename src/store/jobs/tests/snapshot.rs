//! The whole queue as text, so that a test shows what it expects as it stands in the database.

use std::fmt::Write;

use sqlx::Row;

use super::*;

/// When [`House`]'s clock starts, in milliseconds.
const START: i64 = 1_000_000;

impl House {
    /// Every job with its attempts, artifacts, metrics and events, the oldest first, and what Idempotency-Keys stand for. Ids
    /// are numbered in the order in which they appear, times are seconds since the start. Begins with an empty line, as literals do.
    pub(super) async fn snapshot(&self) -> String {
        let mut text = String::from("\n");
        for job in self.rows("SELECT * FROM jobs ORDER BY id", None).await {
            let id: String = job.get("id");
            writeln!(text, "{id}: {}", described(&job)).expect("text");
            let artifacts = self.rows("SELECT * FROM job_artifacts WHERE job_id = ? ORDER BY name", Some(&id)).await;
            for row in artifacts {
                writeln!(text, "  artifact {} in {}", column(&row, "name"), column(&row, "blob_key")).expect("text");
            }
            for row in self.rows("SELECT * FROM job_metrics WHERE job_id = ? ORDER BY epoch", Some(&id)).await {
                let data = without_nulls(&column(&row, "data"));
                writeln!(text, "  epoch {}: {data}", row.get::<i64, _>("epoch")).expect("text");
            }
            for row in self.rows("SELECT * FROM job_events WHERE job_id = ? ORDER BY seq", Some(&id)).await {
                let (seq, attempt): (i64, i64) = (row.get("seq"), row.get("attempt"));
                let (kind, data) = (column(&row, "type"), without_nulls(&column(&row, "data")));
                writeln!(text, "  {seq}. {} attempt {attempt}: {kind} {data}", time(row.get("at"))).expect("text");
            }
        }
        for row in self.rows("SELECT * FROM idempotency_keys ORDER BY key", None).await {
            writeln!(text, "key {}: {}", column(&row, "key"), column(&row, "made_id")).expect("text");
        }
        numbered(&numbered(&text, "job_", "job"), "work_", "worker")
    }

    async fn rows(&self, sql: &'static str, id: Option<&str>) -> Vec<sqlx::sqlite::SqliteRow> {
        let mut query = sqlx::query(sql);
        if let Some(id) = id {
            query = query.bind(id.to_owned());
        }
        query.fetch_all(self.jobs.database.reader()).await.expect("reads")
    }
}

/// What the columns of a job say.
fn described(job: &sqlx::sqlite::SqliteRow) -> String {
    let (attempt, stalled, ran): (i64, i64, i64) = (job.get("attempt"), job.get("stalled"), job.get("ran_ms"));
    let mut text = format!("{}, attempt {attempt}, stalled {stalled}, ran {}s", column(job, "state"), ran / 1000);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(text, ", {name} {value}").expect("text");
        }
    };
    add("of", job.get("worker"));
    for (name, at) in [("leased until", "lease_until"), ("not before", "not_before"), ("ended", "finished_at")] {
        add(name, job.get::<Option<i64>, _>(at).map(time));
    }
    add("end", job.get::<bool, _>("cancel_requested").then(|| "requested".to_owned()));
    let phases: Vec<PhaseSpan> = serde_json::from_str(&column(job, "phases")).expect("phases");
    for PhaseSpan { name, started, ended } in phases {
        let ended = ended.map_or(String::new(), |ended| time(ended.as_millisecond()));
        add("phase", Some(format!("{name:?} {}-{ended}", time(started.as_millisecond()))));
    }
    let progress: Option<Progress> =
        job.get::<Option<String>, _>("progress").map(|json| serde_json::from_str(&json).expect("progress"));
    // The beginning of a phase is in its event.
    add("fraction", progress.map(|progress| progress.fraction).filter(|done| *done > 0.0).map(|done| done.to_string()));
    add("plan", Some(column(job, "plan")).filter(|plan| plan != "{}"));
    add("error", job.get("error"));
    add("repeats", job.get("retry_of"));
    add("checkpoint", job.get("checkpoint_key"));
    text
}

fn column(row: &sqlx::sqlite::SqliteRow, name: &str) -> String {
    row.get(name)
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
