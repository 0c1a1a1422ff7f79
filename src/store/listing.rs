//! Which entries of a table to show.

use std::collections::BTreeMap;

/// One page: entries are sorted by id, newest first. Queries fetch [`Listing::fetch`] rows to learn whether there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Entries to show.
    pub limit: usize,
    /// Show what comes after this id.
    pub after: Option<String>,
    /// Only entries in this state.
    pub state: Option<String>,
    /// Only entries with these labels.
    pub labels: BTreeMap<String, String>,
}

impl Listing {
    /// Rows to fetch: one more than is shown.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        self.limit as i64 + 1
    }

    /// The labels as a JSON object, to be bound into a query.
    #[must_use]
    pub fn labels_json(&self) -> String {
        serde_json::json!(self.labels).to_string()
    }
}
