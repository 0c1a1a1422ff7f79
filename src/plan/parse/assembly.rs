//! From a JSON body to an [`Assembly`], or to the list of everything that is wrong with it.

use serde_json::Value;

use super::labels;
use super::reader::{list, refuse, text, whole};
use crate::domain::problem::Fault;
use crate::model::formats::limits::MAX_FILES;
use crate::plan::assembly::Assembly;

/// Reads what is to be put together: `index`, `name`, and maybe `shards` and `labels`.
///
/// # Errors
/// Every fault, each with the pointer to its value.
pub fn assembly(body: &Value) -> Result<Assembly, Vec<Fault>> {
    whole(body, |body| {
        let index =
            body.required("index", "the id or name of an uploaded index (`model.safetensors.index.json`)", text);
        let shards = body.field("shards", list(1..=MAX_FILES, text)).unwrap_or_default();
        let name = body.required("name", "what the checkpoint will be called", |value| {
            text(value)?.parse().or_else(|error| refuse(format!("{error}")))
        });
        Some(Assembly { labels: labels(body), shards, index: index?, name: name? })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_named() {
        let body = json!({"index": "i.json", "name": "whole", "shards": ["a", "b"], "labels": {"run": "7"}});
        let read = assembly(&body).expect("an assembly");
        assert_eq!((read.index.as_str(), read.shards.len(), read.labels["run"].as_str()), ("i.json", 2, "7"));
        let pointers = |body: Value| -> Vec<String> {
            assembly(&body).expect_err("faults").into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(pointers(json!({})), ["/index", "/name"]);
        let body = json!({"index": "", "name": "a/b", "shards": [], "members": []});
        assert_eq!(pointers(body), ["/index", "/shards", "/name", "/members"]);
    }
}
