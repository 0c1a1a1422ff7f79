//! The first look at the members: each warning stands where it must, and nowhere else. Members are made by hand for images whose brightness is
//! their class, normalised to mean 0 and standard deviation 1.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use engraft::model::header::Dtype;
use engraft::pipeline::{JobOutcome, run};
use engraft::plan::parse::parse;
use engraft::report::{CheckCode, CheckFinding, MemberChecks, Report};
use engraft::tensors::StateDict;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::inputs::pack;
use crate::common::samples::task;

const TRAIN: usize = 2_000;
const TEST: usize = 800;
const PIXELS: usize = 16;

/// Dark and bright images; of the test split one label in `wrong` is another.
fn dataset(folder: &Path, wrong: Option<usize>) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut tensors = Vec::new();
    for (suffix, count) in [("_train", TRAIN), ("_test", TEST)] {
        let labels: Vec<u8> = (0..count).map(|_| rng.random_range(0..2)).collect();
        let image = |label: &u8| if *label == 1 { 120..220 } else { 20..120 };
        let pixels: Vec<u8> = labels
            .iter()
            .flat_map(|label| [(); PIXELS].map(|()| image(label)))
            .map(|range| rng.random_range(range))
            .collect();
        let told = |(index, label): (usize, &u8)| match wrong {
            Some(step) if suffix == "_test" && index % step == 0 => 1 - label,
            _ => *label,
        };
        let labels: Vec<u8> = labels.iter().enumerate().map(told).collect();
        tensors.push((format!("x{suffix}"), Dtype::U8, vec![count, 1, 4, 4], pixels));
        tensors.push((format!("y{suffix}"), Dtype::U8, vec![count], labels));
    }
    let path = folder.join(format!("letters{}.safetensors", wrong.unwrap_or(0)));
    std::fs::write(&path, pack(tensors)).expect("writes");
    path.display().to_string()
}

/// Two members with these tensors, the last of which is a little larger in the second.
fn members(folder: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<String> {
    let save = |index: usize| {
        let mut state = StateDict::default();
        for (place, (name, shape, values)) in tensors.iter().enumerate() {
            let scale = if place + 1 == tensors.len() { 1.0 + index as f32 / 8.0 } else { 1.0 };
            state.insert_f32(name, shape, values.iter().map(|value| value * scale).collect()).expect("a tensor");
        }
        let path = folder.join(format!("m{index}.safetensors"));
        state.save(&path, &BTreeMap::new()).expect("a file");
        path.display().to_string()
    };
    (0..2).map(save).collect()
}

/// A network with a BatchNorm whose running statistics are those of normalised pixels.
fn with_batch_norm(folder: &Path) -> (Vec<String>, Value) {
    let graph = json!({"nodes": [
        {"name": "input", "op": "input", "shape": [1, 4, 4]},
        {"name": "conv", "op": "conv2d", "in_channels": 1, "out_channels": 2, "kernel": 1},
        {"name": "bn", "op": "batch_norm", "features": 2},
        {"name": "act", "op": "relu"},
        {"name": "pool", "op": "global_avg_pool2d"},
        {"name": "flat", "op": "flatten"},
        {"name": "fc", "op": "linear", "in_features": 2, "out_features": 2},
    ]});
    let tensors: [(&str, &[usize], Vec<f32>); 6] = [
        ("conv.weight", &[2, 1, 1, 1], vec![1.0, -1.0]),
        ("bn.weight", &[2], vec![1.0, 1.0]),
        ("bn.bias", &[2], vec![0.0, 0.0]),
        ("bn.running_mean", &[2], vec![0.0, 0.0]),
        ("bn.running_var", &[2], vec![1.0, 1.0]),
        ("fc.weight", &[2, 2], vec![0.0, 1.0, 1.0, 0.0]),
    ];
    (members(folder, &tensors), graph)
}

/// A network without one, which compares the mean of the pixels with 0.
fn without_batch_norm(folder: &Path) -> (Vec<String>, Value) {
    let graph = json!({"nodes": [
        {"name": "input", "op": "input", "shape": [1, 4, 4]},
        {"name": "flat", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in_features": PIXELS, "out_features": 2},
        {"name": "act", "op": "relu"},
        {"name": "fc2", "op": "linear", "in_features": 2, "out_features": 2},
    ]});
    let weight = [vec![1.0 / PIXELS as f32; PIXELS], vec![-1.0 / PIXELS as f32; PIXELS]].concat();
    let tensors: [(&str, &[usize], Vec<f32>); 2] =
        [("fc1.weight", &[2, PIXELS], weight), ("fc2.weight", &[2, 2], vec![0.0, 1.0, 1.0, 0.0])];
    (members(folder, &tensors), graph)
}

/// What the job's first look shows, and its report's warnings.
fn look((members, graph): (Vec<String>, Value), dataset: &Value) -> (MemberChecks, Vec<String>) {
    let body = json!({
        "members": members, "architecture": {"graph": graph}, "dataset": dataset, "evaluate": ["members"],
        "method": {"importance": "magnitude", "compensate": "none", "ensemble": "mean_logits"},
    });
    let scratch = TempDir::new().expect("a folder");
    let task = task(parse(&body).unwrap_or_else(|faults| panic!("{faults:?}")), scratch.path().to_owned());
    let JobOutcome::Finished(artifacts) = run(&task, &mut |_| {}, &AtomicBool::new(false)).expect("succeeds") else {
        panic!("nobody asked to stop")
    };
    let report = artifacts.iter().find(|artifact| artifact.name == "report").expect("a report");
    let report: Report = serde_json::from_slice(&std::fs::read(&report.path).expect("a file")).expect("a report");
    (report.checks.expect("a first look"), report.warnings)
}

fn codes(checks: &MemberChecks) -> Vec<CheckCode> {
    checks.findings.iter().map(|CheckFinding { code, .. }| *code).collect()
}

/// Both networks without normalisation, with the right one and with another.
fn normalizations(members: fn(&Path) -> (Vec<String>, Value)) {
    let folder = TempDir::new().expect("a folder");
    let data = dataset(folder.path(), None);
    let network = members(folder.path());
    for wrong in [json!(null), json!({"mean": [0.0], "std": [0.003_921_569]})] {
        let (checks, warnings) = look(network.clone(), &json!({"name": data, "normalize": wrong}));
        assert_eq!(codes(&checks), [CheckCode::NormalizeUnlikeTraining], "{wrong}: {checks:?}");
        let likely = checks.findings[0].normalize.as_ref().expect("a normalisation");
        assert!((likely.mean[0] - 0.47).abs() < 0.02 && (likely.std[0] - 0.225).abs() < 0.02, "{likely:?}");
        let warning = warnings.iter().find(|warning| warning.ends_with("[normalize_unlike_training]"));
        assert!(warning.is_some_and(|warning| warning.contains("\"normalize\": \"train\"")), "{warnings:?}");
    }
    for right in [json!("train"), json!({"mean": [0.47], "std": [0.24]})] {
        let (checks, warnings) = look(network.clone(), &json!({"name": data, "normalize": right}));
        assert_eq!(codes(&checks), [], "{right}: {checks:?}");
        assert!(!warnings.iter().any(|warning| warning.ends_with(']')), "{warnings:?}");
        assert_eq!(checks.examples, TRAIN / 10);
        assert!(checks.members.iter().all(|member| member.score.accuracy() > Some(0.99)), "{checks:?}");
    }
}

#[test]
fn statistics_of_batch_norm_name_the_normalisation_of_the_training() {
    normalizations(with_batch_norm);
}

#[test]
fn accuracies_name_it_where_there_is_no_batch_norm() {
    normalizations(without_batch_norm);
}

#[test]
fn members_that_were_trained_on_the_validation_part_are_noticed() {
    let folder = TempDir::new().expect("a folder");
    let network = without_batch_norm(folder.path());
    let data = |wrong| json!({"name": dataset(folder.path(), wrong), "normalize": "train", "validation_fraction": 0.4});
    let (checks, warnings) = look(network.clone(), &data(Some(5)));
    assert_eq!(codes(&checks), [CheckCode::ValidationSeenInTraining]);
    let warning =
        warnings.iter().find(|warning| warning.ends_with("[validation_seen_in_training]")).expect("a warning");
    assert!(warning.contains("100.00 % and 80.00 %") && warning.contains("`dataset.validation`"), "{warning}");
    assert_eq!(codes(&look(network, &data(None)).0), []);
}

#[test]
fn members_that_only_guess_are_noticed() {
    let folder = TempDir::new().expect("a folder");
    let (members, graph) = without_batch_norm(folder.path());
    // Every other label of the test split is wrong, and there is no validation split.
    let data = json!({"name": dataset(folder.path(), Some(2)), "normalize": "train", "validation_fraction": 0});
    let (checks, warnings) = look((members, graph), &data);
    assert_eq!(codes(&checks), [CheckCode::MembersNearChance], "{checks:?}");
    assert!(warnings.iter().any(|warning| warning.ends_with("[members_near_chance]")), "{warnings:?}");
}
