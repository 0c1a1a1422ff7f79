//! `GET /v1/jobs/{id}/metrics`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{accepts, find};
use crate::domain::problem::Problem;
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::http::views::jobs::MetricsView;
use crate::http::views::problem::ProblemView;

/// Columns of the table, and where their values stand in an epoch's JSON.
const COLUMNS: [(&str, &str); 9] = [
    ("epoch", "/epoch"),
    ("train_loss", "/train_loss"),
    ("train_accuracy", "/train_accuracy"),
    ("validation_loss", "/validation/loss"),
    ("validation_accuracy", "/validation/accuracy"),
    ("test_loss", "/test/loss"),
    ("test_accuracy", "/test/accuracy"),
    ("lr", "/lr"),
    ("images_per_s", "/images_per_s"),
];

/// Read a job's training curve
///
/// An entry per finished epoch. `Accept: text/csv` gets a table.
#[utoipa::path(get, path = "/v1/jobs/{id}/metrics", operation_id = "getJobMetrics", tag = "Jobs",
    params(("id" = String, Path, description = "Its id.", example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses(
        (status = 200, description = "The epochs.", content((MetricsView = "application/json"), (String = "text/csv"))),
        (status = 401, description = "No valid key.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn metrics(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&state, &caller, &id).await?.id;
    let data = state.jobs.metrics(job).await?;
    if accepts(&headers, "text/csv") {
        return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], csv(&data)).into_response());
    }
    Ok(Json(MetricsView { data }).into_response())
}

/// RFC 4180; a value that there is none of is empty.
fn csv(epochs: &[Value]) -> String {
    let header = COLUMNS.map(|(name, _)| name.to_owned());
    let cell = |epoch: &Value, pointer: &str| match epoch.pointer(pointer) {
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let rows = epochs.iter().map(|epoch| COLUMNS.map(|(_, pointer)| cell(epoch, pointer)));
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
    }
}
