//! What a job reports while it runs: its events, its log, its training curve.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::stream::stream;
use super::{accepts, find, number, unknown_parameter};
use crate::domain::id::JobId;
use crate::domain::problem::Problem;
use crate::http::addressed::Addressed;
use crate::http::listing::{Page, RawQuery, pairs};
use crate::http::shared_responses::{Finds, ReadsQuery};
use crate::http::state::AppState;
use crate::http::views::jobs::{EventView, LogView, MetricsView};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follow a job
///
/// With `Accept: text/event-stream` (`curl -N -H 'Accept: text/event-stream'`) the server sends the events so far, and then
/// every new one until the job has ended; `Last-Event-ID` continues after an event. Otherwise the answer is a page of the
/// events so far, and the oldest come first.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", operation_id = "getJobEvents", tag = "Jobs",
    params(
        ("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("after" = Option<i64>, Query, description = "Selects the events after this `seq`.", example = 12),
        ("limit" = Option<u32>, Query, description = "The most events of a page, 1 to 1000.", example = 100),
        ("Last-Event-ID" = Option<i64>, Header, description = "The same as `after`; clients send it when they reconnect.", example = 12)),
    responses(
        (status = 200, description = "The events of the job.", content(
            (Page<EventView> = "application/json"),
            (String = "text/event-stream", example = "id: 1\nevent: state\ndata: {\"seq\":1,\"type\":\"state\",\"data\":{\"state\":\"queued\"}}\n\n"))),
        ReadsQuery, Finds))]
pub(super) async fn events(
    request: Addressed,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut after, mut limit) = (0, 100);
    for (name, value) in pairs(&query) {
        match name.as_str() {
            "after" => after = number("after", &value, 0..=i64::MAX)?,
            "limit" => limit = number("limit", &value, 1..=1000)?,
            other => return Err(unknown_parameter(other, "after and limit")),
        }
    }
    let (job, state) = (find(&request).await?.id, &request.state);
    if accepts(&headers, "text/event-stream") {
        let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(stream(state, job, last.unwrap_or(after)));
    }
    let rows = state.jobs.events(job, after, limit as u32 + 1).await?;
    Ok(Json(Page::of(limit as usize, rows, |event| event.seq.to_string(), EventView::from)).into_response())
}

/// Most lines in one answer.
const MOST_LINES: u32 = 1000;

/// Read a job's log
///
/// The answer holds the last lines (`tail` of them, 100 by default) or the lines after a given one (`after`), and the oldest
/// come first. With `Accept: text/plain` it is plain text.
#[utoipa::path(get, path = "/v1/jobs/{id}/logs", operation_id = "getJobLogs", tag = "Jobs",
    params(
        ("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("tail" = Option<u32>, Query, description = "How many lines to send, 1 to 1000.", example = 100),
        ("after" = Option<i64>, Query, description = "Selects the lines after this `seq`.", example = 12)),
    responses(
        (status = 200, description = "The lines of the log.", content((Page<LogView> = "application/json"), (String = "text/plain"))),
        ReadsQuery, Finds))]
pub(super) async fn logs(
    request: Addressed,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (mut tail, mut after) = (None, None);
    for (name, value) in pairs(&query) {
        match name.as_str() {
            "tail" => tail = Some(number("tail", &value, 1..=i64::from(MOST_LINES))? as u32),
            "after" => after = Some(number("after", &value, 0..=i64::MAX)?),
            other => return Err(unknown_parameter(other, "tail and after")),
        }
    }
    let (job, state) = (find(&request).await?.id, &request.state);
    let page = page(state, job, tail, after).await?;
    if accepts(&headers, "text/plain") {
        return Ok(page.data.iter().map(LogView::line).collect::<String>().into_response());
    }
    Ok(Json(page).into_response())
}

async fn page(state: &AppState, job: JobId, tail: Option<u32>, after: Option<i64>) -> Result<Page<LogView>, Problem> {
    let Some(after) = after else {
        let rows = state.jobs.last_logs(job, tail.unwrap_or(100)).await?;
        return Ok(Page { data: rows.into_iter().map(LogView::from).collect(), has_more: false, next_after: None });
    };
    let limit = tail.unwrap_or(MOST_LINES) as usize;
    let rows = state.jobs.logs(job, after, limit as u32 + 1).await?;
    Ok(Page::of(limit, rows, |event| event.seq.to_string(), LogView::from))
}

/// Measures of a score, by what the network predicts; the first is that of every score which has none of the others.
const MEASURES: [&[&str]; 3] = [&["accuracy"], &["label_accuracy", "exact_match", "macro_f1"], &["rmse", "r2"]];

/// Columns of the table of `epochs`, and where their values stand in an epoch's JSON.
fn columns(epochs: &[Value]) -> Vec<(String, String)> {
    let has = |measure: &str| {
        let paths = ["validation", "test"].map(|split| format!("/{split}/{measure}"));
        epochs.iter().any(|epoch| paths.iter().any(|path| epoch.pointer(path).is_some()))
    };
    let measures = MEASURES.into_iter().find(|measures| has(measures[0])).unwrap_or(MEASURES[0]);
    let plain = |name: &str| (name.to_owned(), format!("/{name}"));
    let mut columns = vec![plain("epoch"), plain("train_loss")];
    if measures == MEASURES[0] {
        columns.push(plain("train_accuracy"));
    }
    for split in ["validation", "test"] {
        let of_split = |measure: &str| (format!("{split}_{measure}"), format!("/{split}/{measure}"));
        columns.push(of_split("loss"));
        columns.extend(measures.iter().map(|measure| of_split(measure)));
    }
    columns.extend(["lr", "images_per_s"].map(plain));
    columns
}

/// Read a job's training curve
///
/// The answer has an entry for every finished epoch. With `Accept: text/csv` it is a table.
#[utoipa::path(get, path = "/v1/jobs/{id}/metrics", operation_id = "getJobMetrics", tag = "Jobs",
    params(("id" = String, Path, description = "The id of the job.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The finished epochs.", content((MetricsView = "application/json"), (String = "text/csv"))),
        Finds))]
pub(super) async fn metrics(request: Addressed, headers: HeaderMap) -> Result<Response, Problem> {
    let job = find(&request).await?.id;
    let data = request.state.jobs.metrics(job).await?;
    if accepts(&headers, "text/csv") {
        return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], csv(&data)).into_response());
    }
    Ok(Json(MetricsView { data }).into_response())
}

/// RFC 4180; a value that there is none of is empty.
fn csv(epochs: &[Value]) -> String {
    let columns = columns(epochs);
    let header: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let cell = |epoch: &Value, pointer: &str| match epoch.pointer(pointer) {
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let rows = epochs.iter().map(|epoch| columns.iter().map(|(_, pointer)| cell(epoch, pointer)).collect());
    std::iter::once(header).chain(rows).map(|row| row.join(",") + "\r\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_epoch_and_empty_cells() {
        let epochs = [
            serde_json::json!({"epoch": 0, "train_loss": null, "validation": {"accuracy": 0.5, "loss": 2.25}, "test": null}),
            serde_json::json!({"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.01, "images_per_s": 9.0}),
        ];
        let expected = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,test_loss,test_accuracy,lr,images_per_s\r\n\
                        0,,,2.25,0.5,,,,\r\n\
                        1,0.5,0.75,,,,,0.01,9.0\r\n";
        assert_eq!(csv(&epochs), expected);
        let epoch = serde_json::json!({"epoch": 1, "train_loss": 0.5, "validation": {"rmse": 0.5, "r2": 0.75, "loss": 0.25}, "test": null});
        let expected = "epoch,train_loss,validation_loss,validation_rmse,validation_r2,test_loss,test_rmse,test_r2,lr,images_per_s\r\n\
                        1,0.5,0.25,0.5,0.75,,,,,\r\n";
        assert_eq!(csv(&[epoch]), expected);
    }
}
