//! What trackers of experiments take of a job: parameters, metrics and tags, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Package;
use crate::domain::progress::EpochMetrics;
use crate::report::{CandidateKind, CandidateReport, Report};

/// Digits of a mark.
const MARK: usize = 8;

/// A job as trackers of experiments know one.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// What it is called.
    pub name: String,
    /// What tells it from others of its name: digits of its id, else of its model's digest.
    pub mark: String,
    /// How the model does, in a sentence; none where it was not compared.
    pub finding: Option<String>,
    /// Settings, those of settings behind dots.
    pub parameters: BTreeMap<String, String>,
    /// The training's curves, then what the report has measured; all finite.
    pub metrics: Vec<Measured>,
    /// What it is made of and by.
    pub tags: BTreeMap<String, String>,
    /// When it began; none of a report that does not say.
    pub began: Option<Timestamp>,
    /// How long it took.
    pub took: Duration,
}

/// A figure at a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was measured, behind what it was measured of.
    pub name: String,
    /// Finished epochs, of a curve; 0 of what was measured at the end.
    pub step: u64,
    /// The figure.
    pub value: f64,
}

impl Outline {
    /// Of what is published of a job.
    #[must_use]
    pub fn of(package: &Package) -> Self {
        let report = &package.report;
        let identity = &report.identity;
        let name = identity.name.as_ref().or(identity.job.as_ref());
        Self {
            name: name.cloned().unwrap_or_else(|| format!("fused {}", report.architecture)),
            mark: mark(report),
            finding: report.paired.first().map(ToString::to_string),
            parameters: parameters(package),
            metrics: curves(&report.epochs).into_iter().chain(figures(report)).collect(),
            tags: tags(report),
            began: identity.date.as_ref().and_then(|date| date.parse().ok()),
            took: Duration::try_from_secs_f64(report.seconds.iter().map(|(_, seconds)| seconds).sum())
                .unwrap_or_default(),
        }
    }
}

fn mark(report: &Report) -> String {
    let identity = &report.identity;
    // The last digits of an id are chance.
    let of_job = identity.job.as_ref().and_then(|job| job.get(job.len().checked_sub(MARK)?..));
    let of_model = identity.model.as_ref().and_then(|model| model.sha256.get(..MARK));
    of_job.or(of_model).unwrap_or_default().to_owned()
}

/// The request with its defaults, and what the job has found out by itself.
fn parameters(package: &Package) -> BTreeMap<String, String> {
    let report = &package.report;
    let mut parameters = BTreeMap::new();
    match &package.settings {
        Some(settings) => flatten("", settings, &mut parameters),
        None => flatten("method", &value(&report.method), &mut parameters),
    }
    flatten("recovery", &value(&report.recovery), &mut parameters);
    flatten("examples", &value(&report.examples), &mut parameters);
    flatten("normalize", &value(&report.normalize), &mut parameters);
    parameters.insert("seed".to_owned(), report.seed.to_string());
    parameters.insert("family".to_owned(), report.architecture.clone());
    parameters
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Every value below `value` by its path; a list is one value, what is null is none.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, into);
            }
        }
        Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => drop(into.insert(path.to_owned(), value.to_string())),
    }
}

/// The training, epoch by epoch.
fn curves(epochs: &[EpochMetrics]) -> Vec<Measured> {
    let mut metrics = Vec::new();
    for epoch in epochs {
        let alone = [
            ("train/loss", epoch.train_loss),
            ("train/accuracy", epoch.train_accuracy),
            ("train/learning_rate", epoch.lr),
            ("train/images_per_s", epoch.images_per_s),
        ];
        let alone = alone.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let splits = [("validation", epoch.validation), ("test", epoch.test)];
        let splits = splits.into_iter().flat_map(|(split, score)| numbers(split, &score));
        metrics.extend(alone.chain(splits).filter_map(|(name, value)| measured(name, epoch.epoch as u64, value)));
    }
    metrics
}

/// What the report compares, candidate by candidate.
fn figures(report: &Report) -> Vec<Measured> {
    let mut figures = Vec::new();
    let mut names = Names::default();
    for candidate in &report.candidates {
        let name = names.of(candidate);
        let splits = [("validation", candidate.validation), ("test", candidate.test)];
        figures.extend(splits.into_iter().flat_map(|(split, score)| numbers(&format!("{name}/{split}"), &score)));
        let alone = [
            ("calibration_error", candidate.calibration_error),
            ("top5_accuracy", candidate.top5_accuracy),
            ("agreement", candidate.agreement),
            ("latency_ms", candidate.latency_ms),
            ("parameters", Some(candidate.parameters as f64)),
            ("macs", Some(candidate.macs as f64)),
            ("bytes", Some(candidate.bytes as f64)),
        ];
        figures.extend(alone.into_iter().filter_map(|(what, value)| Some((format!("{name}/{what}"), value?))));
    }
    figures.extend(report.ensemble_gain_kept.map(|kept| ("ensemble_gain_kept".to_owned(), kept)));
    figures.extend(report.seconds.iter().map(|(phase, seconds)| (format!("seconds/{}", phase.as_str()), *seconds)));
    figures.into_iter().filter_map(|(name, value)| measured(name, 0, value)).collect()
}

/// What candidates are called: their kind, members by their place.
#[derive(Default)]
struct Names {
    members: usize,
    taken: BTreeSet<String>,
}

impl Names {
    fn of(&mut self, candidate: &CandidateReport) -> String {
        let mut name = value(&candidate.kind).as_str().unwrap_or("candidate").to_owned();
        if candidate.kind == CandidateKind::Member {
            name = format!("member_{}", self.members);
            self.members += 1;
        }
        let base = name.clone();
        let mut others = 2..;
        while !self.taken.insert(name.clone()) {
            name = format!("{base}_{}", others.next().unwrap_or(0));
        }
        name
    }
}

/// Every number of a score, behind the name of its split.
fn numbers(split: &str, score: &impl Serialize) -> Vec<(String, f64)> {
    let score = value(score);
    let fields = score.as_object().into_iter().flatten();
    fields.filter_map(|(name, value)| Some((format!("{split}/{name}"), value.as_f64()?))).collect()
}

/// A figure that trackers can draw.
fn measured(name: String, step: u64, value: f64) -> Option<Measured> {
    value.is_finite().then_some(Measured { name, step, value })
}

fn tags(report: &Report) -> BTreeMap<String, String> {
    let identity = &report.identity;
    let mut tags = BTreeMap::from([("engraft.version".to_owned(), report.engraft_version.clone())]);
    tags.extend(identity.job.clone().map(|job| ("engraft.job".to_owned(), job)));
    tags.extend(identity.model.clone().map(|model| ("engraft.model.sha256".to_owned(), model.sha256)));
    for (index, member) in identity.members.iter().enumerate() {
        tags.insert(format!("engraft.member_{index}"), member.name.clone());
        tags.insert(format!("engraft.member_{index}.sha256"), member.sha256.clone());
    }
    if let Some(dataset) = &identity.dataset {
        tags.insert("engraft.dataset".to_owned(), dataset.name.clone());
        tags.insert("engraft.dataset.sha256".to_owned(), dataset.sha256.clone());
    }
    tags
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::sample;

    /// A report with two rows of one kind, and a figure that no tracker can draw.
    fn package() -> Package {
        let mut report = sample();
        report.epochs[1].train_loss = Some(f64::NAN);
        report.candidates.push(report.candidates.last().expect("one").clone());
        let settings = json!({
            "members": ["m0", "m1"],
            "name": null,
            "finetune": { "epochs": 3, "optimizer": { "lr": 0.05 } },
        });
        Package { report, settings: Some(settings), files: Vec::new() }
    }

    #[test]
    fn a_job_is_parameters_metrics_and_tags() {
        let package = package();
        let outline = Outline::of(&package);
        let parameter = |name: &str| outline.parameters.get(name).map(String::as_str);
        assert_eq!(parameter("finetune.optimizer.lr"), Some("0.05"));
        assert_eq!(parameter("members"), Some(r#"["m0","m1"]"#));
        assert_eq!((parameter("name"), parameter("method.name"), parameter("family")), (None, None, Some("mlp")));
        assert_eq!((parameter("seed"), parameter("examples.train")), (Some("7"), Some("900")));
        let values = |name: &str| {
            let named = outline.metrics.iter().filter(|metric| metric.name == name);
            named.map(|metric| (metric.step, metric.value)).collect::<Vec<_>>()
        };
        assert_eq!(values("validation/accuracy"), [(0, 0.5), (1, 0.51)]);
        assert_eq!(values("train/accuracy"), [(1, 0.5)]);
        assert_eq!(values("train/loss"), [], "none before the first step, and then none that is a number");
        for (name, accuracy) in [("member_0", 0.52), ("member_1", 0.53), ("fused", 0.545), ("fused_2", 0.545)] {
            assert_eq!(values(&format!("{name}/test/accuracy")), [(0, accuracy)]);
        }
        assert_eq!((values("ensemble_gain_kept"), values("seconds/score")), (vec![(0, 0.8)], vec![(0, 0.5)]));
        assert_eq!(outline.tags.get("engraft.model.sha256"), Some(&"a".repeat(64)));
        assert_eq!((outline.name.as_str(), outline.mark.as_str()), ("letters & digits", "4f5e6d7c"));
        assert_eq!(outline.took, Duration::from_millis(500));
    }

    #[test]
    fn without_a_server_the_method_says_what_was_done_and_the_model_which_it_is() {
        let mut package = Package { settings: None, ..package() };
        package.report.identity.job = None;
        package.report.identity.name = None;
        let outline = Outline::of(&package);
        assert_eq!(outline.parameters.get("method.name").map(String::as_str), Some("neuron_transplantation"));
        assert_eq!((outline.name.as_str(), outline.mark.as_str()), ("fused mlp", "aaaaaaaa"));
    }
}
