//! What a run gets, within the bounds of its interface.

use jiff::Timestamp;
use serde::Serialize;

use super::super::Outline;

/// Most metrics of a request.
const MOST_METRICS: usize = 1000;
/// Most parameters of a request, and most tags.
const MOST_TEXTS: usize = 100;
/// Most characters of a name.
const MOST_OF_NAME: usize = 250;
/// Most characters of a parameter's value.
const MOST_OF_PARAMETER: usize = 6000;
/// Most characters of a tag's value.
const MOST_OF_TAG: usize = 5000;

/// What one request brings.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct LogBatch {
    pub(super) metrics: Vec<Metric>,
    pub(super) params: Vec<Text>,
    pub(super) tags: Vec<Text>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Metric {
    key: String,
    value: f64,
    /// Milliseconds since 1970.
    timestamp: i64,
    step: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Text {
    key: String,
    value: String,
}

impl Text {
    pub(super) fn tag(key: &str, value: &str) -> Self {
        Self { key: name(key), value: cut(value, MOST_OF_TAG) }
    }
}

/// A job's parameters and metrics. Its tags come with the run.
pub(super) fn of(outline: &Outline) -> Vec<LogBatch> {
    let timestamp = began(outline) + ended_after(outline);
    let texts =
        outline.parameters.iter().map(|(key, value)| Text { key: name(key), value: cut(value, MOST_OF_PARAMETER) });
    let texts: Vec<Text> = texts.collect();
    let metrics: Vec<Metric> = outline
        .metrics
        .iter()
        .map(|metric| Metric { key: name(&metric.name), value: metric.value, timestamp, step: metric.step })
        .collect();
    let texts = texts.chunks(MOST_TEXTS).map(|params| LogBatch { params: params.to_vec(), ..LogBatch::default() });
    let metrics =
        metrics.chunks(MOST_METRICS).map(|metrics| LogBatch { metrics: metrics.to_vec(), ..LogBatch::default() });
    texts.chain(metrics).collect()
}

/// When the job began, in milliseconds since 1970.
pub(super) fn began(outline: &Outline) -> i64 {
    outline.began.map_or(0, Timestamp::as_millisecond)
}

/// How long it took, in milliseconds.
pub(super) fn ended_after(outline: &Outline) -> i64 {
    i64::try_from(outline.took.as_millis()).unwrap_or(0)
}

/// A name of letters and marks that MLflow takes. One that is too long, or that has others, ends with what tells it from its like.
fn name(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-. :/".contains(c);
    if text.chars().all(plain) && text.chars().count() <= MOST_OF_NAME {
        return text.to_owned();
    }
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text));
    let start = text.chars().map(|c| if plain(c) { c } else { '_' }).take(MOST_OF_NAME - 9);
    format!("{}-{}", start.collect::<String>(), &digest[..8])
}

/// A value within its bound, which says where it was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::destinations::Measured;

    #[test]
    fn no_request_is_too_large() {
        let metric = |index: usize| Measured { name: format!("m{}", index % 5), step: index as u64, value: 0.5 };
        let parameters = (0..201).map(|index| (format!("p{index:03}"), "ä".repeat(6001)));
        let outline = Outline {
            name: String::new(),
            mark: String::new(),
            finding: None,
            parameters: parameters.collect(),
            metrics: (0..2001).map(metric).collect(),
            tags: BTreeMap::new(),
            began: "1970-01-01T00:00:01Z".parse().ok(),
            took: Duration::from_millis(500),
        };
        let batches = of(&outline);
        let sizes: Vec<[usize; 2]> = batches.iter().map(|batch| [batch.params.len(), batch.metrics.len()]).collect();
        assert_eq!(sizes, [[100, 0], [100, 0], [1, 0], [0, 1000], [0, 1000], [0, 1]]);
        let value = &batches[0].params[0].value;
        assert!(value.chars().count() == 6000 && value.ends_with("ä…"), "{value}");
        assert_eq!((batches[5].metrics[0].step, batches[5].metrics[0].timestamp), (2000, 1500));
    }

    #[test]
    fn names_are_within_bounds_and_stay_apart() {
        let long = "a".repeat(251);
        let names = ["a.b/c", "a|b", "a?b", &long, &format!("{long}b")].map(name);
        assert_eq!(names[0], "a.b/c");
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert!(distinct.len() == 5 && names.iter().all(|name| name.chars().count() <= MOST_OF_NAME), "{names:?}");
    }
}
