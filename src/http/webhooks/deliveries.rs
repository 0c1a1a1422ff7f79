//! What was sent to a webhook, and what became of it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{absent, find, parse_id};
use crate::domain::id::DeliveryId;
use crate::domain::problem::{Code, Problem};
use crate::domain::webhook::DeliveryState;
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::listing::{Page, RawQuery, parse};
use crate::http::shared_responses::{Finds, ReadsQuery, Writes};
use crate::http::state::AppState;
use crate::http::views::webhooks::DeliveryView;

/// Call a webhook to try it
///
/// An event `webhook.test` is on its way. Its delivery shows whether the receiver took it.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", operation_id = "testWebhook", tag = "Webhooks",
    params(("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 202, description = "The delivery.", body = DeliveryView), Finds, Writes))]
pub(super) async fn test(request: Addressed) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    let webhook = find(&request).await?;
    let delivery = request.state.webhooks.test(webhook.id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(delivery))))
}

/// List what was sent to a webhook
///
/// The newest come first; deliveries that have ended are forgotten after 30 days.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", operation_id = "listDeliveries", tag = "Webhooks",
    params(
        ("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("limit" = Option<usize>, Query, description = "The most entries of a page, 1 to 200.", example = 50),
        ("after" = Option<String>, Query, description = "The `next_after` of the previous page.", example = "msg_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("state" = Option<String>, Query, description = "Selects the deliveries in this state: `waiting`, `delivered` or `failed`.", example = "failed")),
    responses((status = 200, description = "One page of deliveries.", body = Page<DeliveryView>), Finds, ReadsQuery))]
pub(super) async fn list(request: Addressed, RawQuery(query): RawQuery) -> Result<Json<Page<DeliveryView>>, Problem> {
    let webhook = find(&request).await?;
    let listing = parse(&query, &DeliveryState::ALL.map(DeliveryState::as_str))?;
    let rows = request.state.webhooks.deliveries(webhook.id, &listing).await?;
    Ok(Json(Page::of(listing.limit, rows, |row| row.id.to_string(), DeliveryView::from)))
}

/// Send a delivery again
///
/// It is called at once, whether it had been delivered, had failed or waits, with the same `webhook-id` and body.
#[utoipa::path(post, path = "/v1/webhooks/{id}/deliveries/{delivery}/redeliver", operation_id = "redeliver", tag = "Webhooks",
    params(
        ("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c"),
        ("delivery" = String, Path, description = "The id of the delivery.", example = "msg_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 202, description = "The delivery.", body = DeliveryView), Finds, Writes))]
pub(super) async fn redeliver(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    let id = parse_id(&id)?;
    let webhook = state.webhooks.find(&caller.tenant, id).await?;
    let webhook = webhook.ok_or_else(|| absent(&format!("There is no webhook `{id}`")))?;
    let missing = |detail: String| {
        Problem::new(Code::NotFound, format!("{detail}; GET /v1/webhooks/{}/deliveries lists them.", webhook.id))
    };
    let delivery: DeliveryId = delivery.parse().map_err(|error| missing(format!("{error}")))?;
    let sent = state.webhooks.redeliver(webhook.id, delivery).await?;
    let sent = sent.ok_or_else(|| missing(format!("The webhook has no delivery `{delivery}`")))?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::from(sent))))
}
