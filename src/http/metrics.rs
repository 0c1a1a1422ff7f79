//! Figures about the server, for Prometheus: base units, no ids.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::problem::Code;
use crate::domain::quota::TenantResource;
use crate::store::census::Census;
use crate::store::files::Kind;
use crate::store::tenants::TenantUse;

/// Seconds; requests that wait or move large files reach the upper ones.
const DURATIONS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
    code: &'static str,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantJobsLabels {
    tenant: Text,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLimitLabels {
    tenant: Text,
    limit: &'static str,
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
    /// Counts an answered request; `code` is that of the problem it was answered with, if any.
    pub fn request(&self, route: &str, method: &str, status: u16, code: Option<Code>, seconds: f64) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.durations.get_or_create(&RouteLabels { route: route.clone(), method: method.clone() }).observe(seconds);
        let code = code.map_or("", Code::as_str);
        self.requests.get_or_create(&RequestLabels { route, method, status, code }).inc();
    }

    /// Counts bytes of an upload.
    pub fn uploaded(&self, kind: Kind, bytes: u64) {
        self.uploaded.get_or_create(&KindLabel { kind: kind.as_str() }).inc_by(bytes);
    }

    /// All figures as text, those of the database and the machine included.
    ///
    /// # Errors
    /// Never, in practice: the text goes to memory.
    pub fn encode(&self, census: &Census, machine: &Machine) -> Result<String, fmt::Error> {
        let mut stored = Registry::with_prefix("engraft");
        let jobs = Family::<StateLabel, Gauge>::default();
        for (state, count) in &census.jobs {
            jobs.get_or_create(&StateLabel { state: Text(state.clone()) }).set(*count);
        }
        stored.register("jobs", "Jobs by state", jobs);
        let age: Gauge = Gauge::default();
        age.set(census.queue_age_ms / 1000);
        stored.register_with_unit("queue_age", "How long the oldest queued job has waited", Unit::Seconds, age);
        let datasets = Family::<StateLabel, Gauge>::default();
        for (state, count) in &census.datasets {
            datasets.get_or_create(&StateLabel { state: Text(state.clone()) }).set(*count);
        }
        stored.register("datasets", "Datasets by state", datasets);
        let (uploads, staged) = census.uploads;
        number(&mut stored, "unfinished_uploads", "Uploads that have not ended", uploads);
        bytes(&mut stored, "staging", "Bytes of unfinished uploads", staged);
        bytes(&mut stored, "disk_free", "Free bytes of the data directory's disk", machine.disk_free);
        bytes(&mut stored, "disk_keep_free", "Bytes that uploads and jobs leave free", machine.keep_free);
        number(&mut stored, "connections", "Open connections", machine.connections);
        number(&mut stored, "connections_limit", "The most connections at a time", machine.connections_limit);
        number(&mut stored, "workers_alive", "Workers that have sent a sign of life of late", machine.workers);
        register_tenants(&mut stored, &census.tenants);
        let (mut text, mut more) = (String::new(), String::new());
        encode(&mut text, &self.registry)?;
        encode(&mut more, &stored)?;
        // Each text ends with a mark of its own; the whole may have one only.
        Ok(text.trim_end_matches("# EOF\n").to_owned() + &more)
    }
}

/// Figures about the machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Free bytes of the data directory's disk.
    pub disk_free: i64,
    /// Bytes that uploads and jobs leave free.
    pub keep_free: i64,
    /// Open connections.
    pub connections: i64,
    /// The most connections at a time.
    pub connections_limit: i64,
    /// Workers that are alive.
    pub workers: i64,
}

fn number(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register_with_unit(name, help, Unit::Bytes, gauge);
}

/// What tenants have taken, and may take where there is a limit.
fn register_tenants(registry: &mut Registry, tenants: &[TenantUse]) {
    let bytes = Family::<TenantLabel, Gauge>::default();
    let files = Family::<TenantLabel, Gauge>::default();
    let jobs = Family::<TenantJobsLabels, Gauge>::default();
    let limits = Family::<TenantLimitLabels, Gauge>::default();
    let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for TenantUse { tenant, quota, usage } in tenants {
        let tenant = || Text(tenant.as_str().to_owned());
        bytes.get_or_create(&TenantLabel { tenant: tenant() }).set(gauge(usage.of(TenantResource::Bytes)));
        files.get_or_create(&TenantLabel { tenant: tenant() }).set(gauge(usage.of(TenantResource::Files)));
        for (state, resource) in [("queued", TenantResource::Queued), ("running", TenantResource::Running)] {
            jobs.get_or_create(&TenantJobsLabels { tenant: tenant(), state }).set(gauge(usage.of(resource)));
        }
        for resource in TenantResource::ALL {
            if let Some(most) = quota.limit(resource) {
                limits
                    .get_or_create(&TenantLimitLabels { tenant: tenant(), limit: resource.as_str() })
                    .set(gauge(most));
            }
        }
    }
    registry.register_with_unit(
        "tenant",
        "Bytes of a tenant's files, results and unfinished uploads",
        Unit::Bytes,
        bytes,
    );
    registry.register("tenant_files", "Checkpoints and datasets of a tenant", files);
    registry.register("tenant_jobs", "Unfinished jobs of a tenant by state", jobs);
    registry.register("tenant_limit", "What a tenant may have", limits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::quota::{Quota, Usage};

    #[test]
    fn the_text_holds_both_sources_and_ends_once() {
        let metrics = Metrics::default();
        metrics.request("/v1/jobs/{id}", "GET", 200, None, 0.01);
        metrics.request("/v1/jobs", "POST", 507, Some(Code::DiskFull), 0.01);
        metrics.uploaded(Kind::Checkpoint, 7);
        let tenant = TenantUse {
            tenant: "vision".parse().expect("a tenant"),
            quota: Quota::default().with(TenantResource::Bytes, 100),
            usage: Usage::default().with(TenantResource::Bytes, 7).with(TenantResource::Queued, 3),
        };
        let census = Census {
            jobs: vec![("queued".to_owned(), 3)],
            queue_age_ms: 4_500,
            datasets: vec![("ready".to_owned(), 2)],
            uploads: (1, 512),
            tenants: vec![tenant],
        };
        let machine = Machine { disk_free: 9, keep_free: 4, connections: 2, connections_limit: 8, workers: 1 };
        let text = metrics.encode(&census, &machine).expect("writes");
        for line in [
            "engraft_http_requests_total{route=\"/v1/jobs/{id}\",method=\"GET\",status=\"200\",code=\"\"} 1",
            "engraft_http_requests_total{route=\"/v1/jobs\",method=\"POST\",status=\"507\",code=\"disk_full\"} 1",
            "engraft_uploaded_bytes_total{kind=\"checkpoint\"} 7",
            "engraft_jobs{state=\"queued\"} 3",
            "engraft_queue_age_seconds 4",
            "engraft_datasets{state=\"ready\"} 2",
            "engraft_unfinished_uploads 1",
            "engraft_staging_bytes 512",
            "engraft_disk_free_bytes 9",
            "engraft_disk_keep_free_bytes 4",
            "engraft_connections 2",
            "engraft_connections_limit 8",
            "engraft_workers_alive 1",
            "engraft_tenant_bytes{tenant=\"vision\"} 7",
            "engraft_tenant_jobs{tenant=\"vision\",state=\"queued\"} 3",
            "engraft_tenant_limit{tenant=\"vision\",limit=\"bytes\"} 100",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
