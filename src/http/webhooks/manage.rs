//! Lists, makes, shows, changes and deletes webhooks.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::{NewWebhookRequest, WebhookRequest, read};
use super::{absent, find, parse_id};
use crate::domain::id::WebhookId;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::domain::webhook::EventType;
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::idempotent::{Creation, Made, REPLAYED, earlier, keep};
use crate::http::json::JsonBody;
use crate::http::shared_responses::{Finds, NeedsKey, ReadsJson, Writes};
use crate::http::state::AppState;
use crate::http::views::problem::ProblemView;
use crate::http::views::webhooks::{SecretView, WebhookView, WebhooksView};
use crate::store::webhooks::{MOST, NewWebhook, WebhookCreation};

/// List webhooks
///
/// The newest come first. Their secrets are not shown.
#[utoipa::path(get, path = "/v1/webhooks", operation_id = "listWebhooks", tag = "Webhooks",
    responses(
        (status = 200, description = "All webhooks of the tenant.", body = WebhooksView),
        NeedsKey))]
pub(super) async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<WebhooksView>, Problem> {
    let webhooks = state.webhooks.list(&caller.tenant).await?;
    Ok(Json(WebhooksView { data: webhooks.into_iter().map(|webhook| WebhookView::new(webhook, None)).collect() }))
}

/// Make a webhook
///
/// From now on `url` is called by POST when something of the tenant's ends, with a JSON body `{type, timestamp, data}`, after the
/// Standard Webhooks specification: `webhook-id` is the same for every call of a delivery, `webhook-timestamp` and `webhook-signature`
/// let the receiver check where it comes from, by the `secret` in this answer, which is shown once. A receiver has 20 seconds to
/// answer with any status from 200 to 299. Else the call is repeated: after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, later
/// where `Retry-After` asks for it; 410 disables the webhook. Redirects are not followed. The receiver must have an address of the public
/// internet, or one that the operator allows (`--allow-address`).
#[utoipa::path(post, path = "/v1/webhooks", operation_id = "createWebhook", tag = "Webhooks",
    params(("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key and the same body get the same answer for 24 hours.",
        example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    request_body(content = NewWebhookRequest, description = "Where it is called, and what for.",
        example = json!({"url": "https://ci.example/hooks/engraft", "events": ["job.succeeded", "job.failed"]})),
    responses(
        (status = 201, description = "The webhook was made.", body = WebhookView,
            headers(("Location", description = "The address of the webhook."))),
        (status = 429, description = "The tenant has as many webhooks as it may have.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsJson))]
pub(super) async fn create(request: Creation) -> Result<Response, Problem> {
    let Creation { state, caller, body, .. } = &request;
    let key = request.key()?;
    if let Some((id, body)) = earlier::<WebhookId>(state, caller, key.as_ref()).await? {
        return Ok(([(REPLAYED, "true")], made(id, body)).into_response());
    }
    let change = read(&body.value)?;
    let Some(url) = change.url else {
        let detail = "expected the address to call, as in `https://ci.example/hooks/engraft`";
        return Err(Problem::faults(vec![Fault::new("/url", FaultCode::MissingField, detail)]));
    };
    if change.enabled == Some(false) {
        let detail = "a new webhook is called at once; make it, then disable it with PATCH";
        return Err(Problem::faults(vec![Fault::new("/enabled", FaultCode::NotApplicable, detail)]));
    }
    let events = change.events.unwrap_or_else(|| EventType::ALL.into_iter().collect());
    let new = NewWebhook { url, events, description: change.description.unwrap_or_default() };
    match state.webhooks.create(&caller.tenant, new, key.as_ref()).await? {
        WebhookCreation::Made(webhook, secret) => {
            let id = webhook.id;
            let body = serde_json::to_vec(&WebhookView::new(webhook, Some(secret.expose())))
                .map_err(|error| Problem::new(Code::Internal, format!("The webhook cannot be shown: {error}")))?;
            keep(state, caller, key.as_ref(), id, &body).await;
            Ok(made(id, body).into_response())
        }
        WebhookCreation::Before(id) => Ok(made(id, id.render(state, caller).await?).into_response()),
        WebhookCreation::TooMany => {
            let detail = format!("A tenant has at most {MOST} webhooks; DELETE /v1/webhooks/{{id}} removes one.");
            Err(Problem::new(Code::TooMany, detail))
        }
    }
}

fn made(id: WebhookId, body: Vec<u8>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::LOCATION, format!("{}/{id}", WebhookId::PATH)),
    ];
    (StatusCode::CREATED, headers, body)
}

/// Show a webhook
#[utoipa::path(get, path = "/v1/webhooks/{id}", operation_id = "getWebhook", tag = "Webhooks",
    params(("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 200, description = "The webhook.", body = WebhookView), Finds))]
pub(super) async fn get(request: Addressed) -> Result<Json<WebhookView>, Problem> {
    Ok(Json(WebhookView::new(find(&request).await?, None)))
}

/// Change a webhook
///
/// What the body does not name stays as it is. What waits for the webhook is called at the new address.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", operation_id = "changeWebhook", tag = "Webhooks",
    params(("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    request_body(content = WebhookRequest, description = "What is to be different.", example = json!({"enabled": false})),
    responses((status = 200, description = "The webhook as it is now.", body = WebhookView), Finds, Writes, ReadsJson))]
pub(super) async fn change(request: Addressed, body: JsonBody) -> Result<Json<WebhookView>, Problem> {
    let id = parse_id(&request.name)?;
    let changed = request.state.webhooks.change(&request.caller.tenant, id, read(&body.value)?).await?;
    let webhook = changed.ok_or_else(|| absent(&format!("There is no webhook `{id}`")))?;
    Ok(Json(WebhookView::new(webhook, None)))
}

/// Delete a webhook
///
/// It is not called any more, not for what has already happened either. Its deliveries are forgotten.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", operation_id = "deleteWebhook", tag = "Webhooks",
    params(("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 204, description = "The webhook was deleted."), Finds, Writes))]
pub(super) async fn delete(request: Addressed) -> Result<StatusCode, Problem> {
    let id = parse_id(&request.name)?;
    if request.state.webhooks.delete(&request.caller.tenant, id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(absent(&format!("There is no webhook `{id}`")))
}

/// Renew a webhook's secret
///
/// The answer has the new secret. For 24 hours calls carry a signature by each of both, so that receivers can change over.
#[utoipa::path(post, path = "/v1/webhooks/{id}/secret", operation_id = "renewWebhookSecret", tag = "Webhooks",
    params(("id" = String, Path, description = "The id of the webhook.", example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")),
    responses((status = 200, description = "The new secret, shown once.", body = SecretView), Finds, Writes))]
pub(super) async fn renew_secret(request: Addressed) -> Result<Json<SecretView>, Problem> {
    let id = parse_id(&request.name)?;
    let renewed = request.state.webhooks.renew_secret(&request.caller.tenant, id).await?;
    let secret = renewed.ok_or_else(|| absent(&format!("There is no webhook `{id}`")))?;
    Ok(Json(SecretView { secret: secret.expose() }))
}
