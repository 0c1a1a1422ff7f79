//! Webhooks as they are shown.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::time;
use crate::domain::webhook::{Call, EventType};
use crate::store::webhooks::{Delivery, DisabledBy, Webhook};

/// The webhooks of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhooksView {
    /// The webhooks.
    pub data: Vec<WebhookView>,
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookView {
    /// Its id.
    #[schema(example = "hook_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// Where it is called.
    #[schema(example = "https://ci.example/hooks/engraft")]
    url: String,
    /// What it is called for.
    #[schema(example = json!(["job.succeeded", "job.failed"]))]
    events: Vec<&'static str>,
    /// A note for people.
    #[schema(example = "the nightly pipeline")]
    description: String,
    /// Whether it is called.
    #[schema(example = true)]
    enabled: bool,
    /// Why it is not called: `by_owner`, or `gone` where the receiver answered 410.
    #[schema(example = "gone")]
    disabled: Option<&'static str>,
    /// What its calls are signed with; only in the answer to the request that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    secret: Option<String>,
    /// When it was made.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
}

impl WebhookView {
    /// Shows a webhook, and its secret where that is new.
    #[must_use]
    pub fn new(webhook: Webhook, secret: Option<String>) -> Self {
        Self {
            id: webhook.id.to_string(),
            url: webhook.url.url().to_string(),
            events: webhook.events.into_iter().map(EventType::as_str).collect(),
            description: webhook.description,
            enabled: webhook.disabled.is_none(),
            disabled: webhook.disabled.map(DisabledBy::as_str),
            secret,
            created_at: time(webhook.created.as_millisecond()),
        }
    }
}

/// A fresh secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretView {
    /// What calls are signed with.
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    pub secret: String,
}

/// One event on its way to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Its id, which every call of it has as `webhook-id`.
    #[schema(example = "msg_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// What it tells of.
    #[schema(example = "job.succeeded")]
    event: &'static str,
    /// `waiting` for its next call, `delivered`, or `failed` for good.
    #[schema(value_type = String, example = "delivered")]
    state: &'static str,
    /// What is sent.
    #[schema(value_type = Object, example = json!({"type": "job.succeeded", "timestamp": "2026-01-31T12:00:00Z", "data": {}}))]
    body: Value,
    /// The calls so far, the oldest first.
    calls: Vec<CallView>,
    /// When it is called next.
    #[schema(example = "2026-01-31T12:05:00.000Z", format = DateTime)]
    next_call_at: Option<String>,
    /// When what it tells of has happened.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
}

/// One call of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallView {
    /// When it was made.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    at: String,
    /// Milliseconds until the answer, or until the call failed.
    #[schema(example = 87)]
    took_ms: u64,
    /// The status of the answer.
    #[schema(example = 204)]
    status: Option<u16>,
    /// Why there was no answer.
    #[schema(example = "there was no answer in time")]
    error: Option<String>,
}

impl From<Call> for CallView {
    fn from(call: Call) -> Self {
        Self { at: time(call.at.as_millisecond()), took_ms: call.took_ms, status: call.status, error: call.error }
    }
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            event: delivery.event.as_str(),
            state: delivery.state.as_str(),
            body: serde_json::from_str(&delivery.body).unwrap_or_default(),
            calls: delivery.calls.into_iter().map(CallView::from).collect(),
            next_call_at: delivery.next.map(|next| time(next.as_millisecond())),
            created_at: time(delivery.created.as_millisecond()),
        }
    }
}
