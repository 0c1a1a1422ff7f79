//! What clients write about a webhook.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::problem::Problem;
use crate::domain::webhook::{Destination, EventType};
use crate::plan::parse::reader::{UnplacedFault, boolean, choice, list, refuse, whole};
use crate::store::webhooks::WebhookChange;

/// Most characters of a description.
const LONGEST: usize = 256;

/// A new webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "for the description of the API; bodies are read by hand, so that every fault is named at once"
)]
pub(super) struct NewWebhookRequest {
    /// Where it is called: an `https` or `http` address without credentials and without a fragment.
    #[schema(max_length = 2048, example = "https://ci.example/hooks/engraft")]
    url: String,
    /// What it is called for; everything by default.
    #[schema(value_type = Option<Vec<EventName>>, min_items = 1, example = json!(["job.succeeded", "job.failed"]))]
    events: Option<Vec<String>>,
    /// A note for people.
    #[schema(max_length = 256, example = "the nightly pipeline")]
    description: Option<String>,
}

/// What is to be different about a webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "for the description of the API; bodies are read by hand, so that every fault is named at once"
)]
pub(super) struct WebhookRequest {
    /// Where it is called: an `https` or `http` address without credentials and without a fragment.
    #[schema(max_length = 2048, example = "https://ci.example/hooks/engraft")]
    url: Option<String>,
    /// What it is called for.
    #[schema(value_type = Option<Vec<EventName>>, min_items = 1, example = json!(["job.succeeded", "job.failed"]))]
    events: Option<Vec<String>>,
    /// A note for people.
    #[schema(max_length = 256, example = "the nightly pipeline")]
    description: Option<String>,
    /// Whether it is called. One whose receiver has answered 410 is not, until it is enabled again.
    #[schema(example = true)]
    enabled: Option<bool>,
}

/// What a webhook can be called for.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only for the description of the API")]
pub(in crate::http) enum EventName {
    /// A job has its results.
    #[schema(rename = "job.succeeded")]
    JobSucceeded,
    /// A job has ended with an error.
    #[schema(rename = "job.failed")]
    JobFailed,
    /// A job was cancelled.
    #[schema(rename = "job.cancelled")]
    JobCancelled,
    /// The last job of a comparison has ended.
    #[schema(rename = "comparison.ended")]
    ComparisonEnded,
    /// A dataset was read through and can be used.
    #[schema(rename = "dataset.ready")]
    DatasetReady,
    /// A dataset cannot be used.
    #[schema(rename = "dataset.invalid")]
    DatasetInvalid,
}

/// Reads a body.
///
/// # Errors
/// `invalid_request` with every fault.
pub(super) fn read(body: &Value) -> Result<WebhookChange, Problem> {
    let change = whole(body, |body| {
        Some(WebhookChange {
            url: body.field("url", |value| text_of(value)?.parse().or_else(refuse::<Destination>)),
            events: body.field("events", events),
            description: body.field("description", description),
            enabled: body.field("enabled", boolean),
        })
    });
    change.map_err(Problem::faults)
}

fn text_of(value: &Value) -> Result<&str, UnplacedFault> {
    value.as_str().map_or_else(|| refuse(format!("expected a text, got {value}")), Ok)
}

fn description(value: &Value) -> Result<String, UnplacedFault> {
    let text = text_of(value)?;
    let length = text.chars().count();
    if length > LONGEST {
        return refuse(format!("expected at most {LONGEST} characters, got {length}"));
    }
    Ok(text.to_owned())
}

fn events(value: &Value) -> Result<BTreeSet<EventType>, UnplacedFault> {
    let names = EventType::ALL.map(|event| (event.as_str(), Some(event)));
    Ok(list(1..=EventType::ALL.len(), choice(&names))(value)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_named() {
        let body = json!({"url": "https://a.example/x", "events": ["job.failed", "job.failed"], "enabled": false});
        let change = read(&body).expect("a change");
        assert_eq!(change.url.expect("an address").url().as_str(), "https://a.example/x");
        assert_eq!((change.events.map(|events| events.len()), change.enabled), (Some(1), Some(false)));
        for nothing in [json!({}), json!({"url": null, "enabled": null})] {
            assert_eq!(read(&nothing).expect("nothing changes"), WebhookChange::default());
        }
        let wrong =
            json!({"url": "ftp://x", "events": [], "description": "x".repeat(257), "enabled": 1, "secret": "y"});
        assert_eq!(read(&wrong).expect_err("five faults").errors.len(), 5);
        for events in [json!("job.failed"), json!(["webhook.test"]), json!(["job.begun"]), json!([7])] {
            assert!(read(&json!({ "events": events })).is_err(), "{events}");
        }
        assert!(read(&json!([])).is_err());
    }
}
