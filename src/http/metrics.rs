//! Figures about the server, for Prometheus: base units, no ids.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::census::Census;
use crate::store::files::Kind;

/// Seconds; requests that wait or move large files reach the upper ones.
const DURATIONS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text(String);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder) -> fmt::Result {
        self.0.as_str().encode(encoder)
    }
}

/// The figures that the server counts itself.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    uploaded: Family<KindLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("engraft");
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let uploaded = Family::<KindLabel, Counter>::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let help = "Time from the headers of a request to those of its answer";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, durations.clone());
        registry.register_with_unit("uploaded", "Bytes received as files", Unit::Bytes, uploaded.clone());
        Self { registry, requests, durations: Family::clone(&durations), uploaded }
    }
}

fn histogram() -> Histogram {
    Histogram::new(DURATIONS)
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, route: &str, method: &str, status: u16, seconds: f64) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.durations.get_or_create(&RouteLabels { route: route.clone(), method: method.clone() }).observe(seconds);
        self.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    }

    /// Counts bytes of an upload.
    pub fn uploaded(&self, kind: Kind, bytes: u64) {
        self.uploaded.get_or_create(&KindLabel { kind: kind.as_str() }).inc_by(bytes);
    }

    /// All figures as text, those of the database included.
    ///
    /// # Errors
    /// Never, in practice: the text goes to memory.
    pub fn encode(&self, census: &Census) -> Result<String, fmt::Error> {
        let mut stored = Registry::with_prefix("engraft");
        let jobs = Family::<StateLabel, Gauge>::default();
        for (state, count) in &census.jobs {
            jobs.get_or_create(&StateLabel { state: Text(state.clone()) }).set(*count);
        }
        stored.register("jobs", "Jobs by state", jobs);
        let age: Gauge = Gauge::default();
        age.set(census.queue_age_ms / 1000);
        stored.register_with_unit("queue_age", "How long the oldest queued job has waited", Unit::Seconds, age);
        let (mut text, mut more) = (String::new(), String::new());
        encode(&mut text, &self.registry)?;
        encode(&mut more, &stored)?;
        // Each text ends with a mark of its own; the whole may have one only.
        Ok(text.trim_end_matches("# EOF\n").to_owned() + &more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_both_sources_and_ends_once() {
        let metrics = Metrics::default();
        metrics.request("/v1/jobs/{id}", "GET", 200, 0.01);
        metrics.uploaded(Kind::Checkpoint, 7);
        let census = Census { jobs: vec![("queued".to_owned(), 3)], queue_age_ms: 4_500 };
        let text = metrics.encode(&census).expect("writes");
        for line in [
            "engraft_http_requests_total{route=\"/v1/jobs/{id}\",method=\"GET\",status=\"200\"} 1",
            "engraft_uploaded_bytes_total{kind=\"checkpoint\"} 7",
            "engraft_jobs{state=\"queued\"} 3",
            "engraft_queue_age_seconds 4",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
