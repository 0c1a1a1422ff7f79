//! What clients write about a webhook.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::domain::webhook::{Destination, EventType};
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
    let fault = |pointer: &str, detail: String| Fault::new(pointer, FaultCode::InvalidValue, detail);
    let Some(fields) = body.as_object() else {
        return Err(Problem::faults(vec![Fault::new("", FaultCode::InvalidType, "expected a JSON object")]));
    };
    let mut change = WebhookChange::default();
    let mut faults = Vec::new();
    for (name, value) in fields {
        let pointer = format!("/{name}");
        let read = match name.as_str() {
            "url" | "events" | "description" | "enabled" if value.is_null() => continue,
            "url" => text(value).and_then(str::parse).map(|url: Destination| change.url = Some(url)),
            "events" => events(value).map(|events| change.events = Some(events)),
            "description" => description(value).map(|text| change.description = Some(text)),
            "enabled" => match value.as_bool() {
                Some(enabled) => {
                    change.enabled = Some(enabled);
                    Ok(())
                }
                None => Err(format!("expected true or false, got {value}")),
            },
            _ => {
                let detail = "the field is unknown; known are url, events, description and enabled";
                faults.push(Fault::new(pointer.clone(), FaultCode::UnknownField, detail));
                continue;
            }
        };
        faults.extend(read.err().map(|detail| fault(&pointer, detail)));
    }
    if faults.is_empty() { Ok(change) } else { Err(Problem::faults(faults)) }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a text, got {value}"))
}

fn description(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    let length = text.chars().count();
    if length > LONGEST {
        return Err(format!("expected at most {LONGEST} characters, got {length}"));
    }
    Ok(text.to_owned())
}

fn events(value: &Value) -> Result<BTreeSet<EventType>, String> {
    let known = || EventType::ALL.map(EventType::as_str).join(", ");
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| format!("expected a list of some of {}, got {value}", known()))?;
    let event = |value: &Value| {
        let found = value.as_str().and_then(EventType::named).filter(|event| EventType::ALL.contains(event));
        found.ok_or_else(|| format!("{value} is no event; there are {}", known()))
    };
    list.iter().map(event).collect()
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
