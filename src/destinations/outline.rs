//! What trackers of experiments take of a job: parameters, metrics and tags, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Package;
use crate::domain::progress::EpochMetrics;
use crate::report::{CandidateKind, CandidateReport, Report};

/// A job as trackers of experiments know one.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// What it is called.
    pub name: String,
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
            parameters: parameters(package),
            metrics: curves(&report.epochs).into_iter().chain(figures(report)).collect(),
            tags: tags(report),
            began: identity.date.as_ref().and_then(|date| date.parse().ok()),
            took: Duration::try_from_secs_f64(report.seconds.iter().map(|(_, seconds)| seconds).sum()).unwrap_or_default(),
        }
    }
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
