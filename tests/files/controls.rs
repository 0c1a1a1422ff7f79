//! What fusion is compared with, and what the ensemble is: rules, controls, members that stay as they are.

use std::path::Path;

use crate::common::packing::safetensors;
use crate::fuse::{Files, accuracy, json_file, mlp};
use engraft::model::header::Dtype;
use engraft::plan::parse::parse;
use engraft::tensors::{Checkpoint, Weights};
use serde_json::{Value, json};

fn two() -> Files {
    Files::new(&[mlp(&[6, 12, 12, 3], 1), mlp(&[6, 12, 12, 3], 2)], Dtype::F32)
}

fn kinds(report: &Value) -> Vec<String> {
    let rows = report["candidates"].as_array().unwrap();
    rows.iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_rule_makes_an_ensemble_that_teaches_and_is_compared_with() {
    let files = two();
    let data = files.dataset(&[900, 6], 3);
    let mut ensembles = Vec::new();
    for rule in ["mean_logits", "mean_probabilities", "entropy", "class_share"] {
        let finetune = json!({"epochs": 1, "batch_size": 32, "objective": "distill"});
        let artifacts = files.run(json!({"method": {"ensemble": rule}, "dataset": data, "finetune": finetune}));
        let report = json_file(&artifacts["report"]);
        assert_eq!((&report["ensemble"]["rule"], &report["ensemble"]["by"]), (&json!(rule), &json!("request")));
        assert!(
            report["verification"]["max_difference"].as_f64().unwrap()
                <= report["verification"]["tolerance"].as_f64().unwrap()
        );
        let output_layer = &report["compensation"]["output_layer"];
        assert!(
            output_layer["loss_after"].as_f64().unwrap() < output_layer["loss_before"].as_f64().unwrap(),
            "{rule}: {output_layer}"
        );
        let row =
            report["candidates"].as_array().unwrap().iter().find(|row| row["kind"] == "ensemble").unwrap().clone();
        ensembles.push(row["validation"]["loss"].as_f64().unwrap());
    }
    ensembles.dedup();
    assert_eq!(ensembles.len(), 4, "each is another one");
    let logits = files.run(json!({"dataset": data, "method": {"calibration": {"output_layer": "logits"}}}));
    assert_eq!(json_file(&logits["report"])["compensation"]["output_layer"], Value::Null);
}

#[test]
fn one_member_speaks_for_itself_by_any_rule_and_rules_need_outputs() {
    let files = Files::new(&[mlp(&[6, 12, 12, 3], 1)], Dtype::F32);
    let data = files.dataset(&[600, 6], 3);
    for rule in ["auto", "entropy", "class_share"] {
        let body = json!({"method": {"ensemble": rule}, "dataset": data, "target": {"width": 0.5}});
        let report = json_file(&files.run(body)["report"]);
        let of_kind = |kind: &str| {
            let row = report["candidates"].as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap();
            row["validation"]["accuracy"].as_f64().unwrap()
        };
        assert!((of_kind("ensemble") - of_kind("member")).abs() < 1e-9, "{rule}");
    }
    let faults = parse(&json!({"members": ["a", "b"], "method": {"ensemble": "entropy"}})).unwrap_err();
    assert_eq!(faults[0].pointer, "/dataset");
}

#[test]
fn the_rule_is_chosen_by_labels_or_by_what_the_members_know() {
    let files = two();
    let data = files.dataset(&[900, 6], 3);
    let chosen = |dataset: Value| json_file(&files.run(json!({"dataset": dataset}))["report"])["ensemble"].clone();
    let by_labels = chosen(json!(data));
    let tried: Vec<&str> =
        by_labels["tried"].as_array().unwrap().iter().map(|tried| tried["rule"].as_str().unwrap()).collect();
    assert_eq!(tried, ["mean_logits", "mean_probabilities", "entropy", "class_share"], "90 labels fit nothing");
    assert_eq!((&by_labels["by"], &by_labels["examples"]), (&json!("validation"), &json!(90)));
    let by_spread = chosen(json!({"name": data, "validation_fraction": 0}));
    let spread = by_spread["spread"].as_f64().unwrap();
    assert_eq!((&by_spread["by"], &by_spread["tried"]), (&json!("spread"), &json!([])));
    assert_eq!(by_spread["rule"], if spread > 1.25 { "entropy" } else { "mean_logits" });
}

#[test]
fn controls_stand_beside_every_recovery_unless_they_are_left_out() {
    let files = two();
    let data = files.dataset(&[600, 6], 3);
    let finetune = json!({"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.05}});
    let report = json_file(&files.run(json!({"dataset": data, "finetune": finetune}))["report"]);
    let all =
        ["member", "member", "ensemble", "trained_on", "distilled", "fused_uncompensated", "fused_zero_shot", "fused"];
    assert_eq!(kinds(&report), all);
    let paired = report["paired"].as_array().unwrap();
    let against: Vec<&str> = paired.iter().map(|test| test["against"].as_str().unwrap()).collect();
    assert_eq!(against, ["best_member", "trained_on", "distilled"]);
    for test in paired {
        let count = |field: &str| test[field].as_f64().unwrap();
        let difference = (count("only_fused") - count("only_other")) / count("examples");
        let other = match test["against"].as_str().unwrap() {
            "best_member" => {
                let rows = report["candidates"].as_array().unwrap().iter().filter(|row| row["kind"] == "member");
                rows.map(|row| row["validation"]["accuracy"].as_f64().unwrap()).fold(0.0, f64::max)
            }
            kind => accuracy(&report, kind),
        };
        assert!((difference - (accuracy(&report, "fused") - other)).abs() < 1e-9, "{test}");
        assert!(count("p") <= count("adjusted_p") && count("adjusted_p") <= 1.0);
    }
    let loss = |kind: &str| {
        let row = report["candidates"].as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap();
        row["validation"]["loss"].as_f64().unwrap()
    };
    assert!((loss("trained_on") - loss("distilled")).abs() > 1e-9, "two trainings");
    let report = json_file(&files.run(json!({"dataset": data, "finetune": finetune, "evaluate": ["fused"]}))["report"]);
    assert_eq!((kinds(&report).len(), &report["paired"]), (3, &json!([])));
}

#[test]
fn the_training_follows_from_the_network_and_says_so() {
    let files = two();
    let data = files.dataset(&[600, 6], 3);
    let recovery = |finetune: Value| {
        json_file(&files.run(json!({"dataset": data, "finetune": finetune, "evaluate": ["fused"]}))["report"])["recovery"].clone()
    };
    let open = recovery(json!({"epochs": 1, "batch_size": 32}));
    assert_eq!((&open["objective"], &open["soft_weight"], &open["lr"]), (&json!("distill"), &json!(0.3), &json!(0.02)));
    assert!(open["rule"].as_str().unwrap().contains("a chain of matrices"));
    let given =
        recovery(json!({"epochs": 1, "batch_size": 32, "objective": "cross_entropy", "optimizer": {"lr": 0.02}}));
    assert_eq!(
        (&given["objective"], &given["lr"], &given["rule"]),
        (&json!("cross_entropy"), &json!(0.02), &Value::Null)
    );
}

#[test]
fn where_validation_is_unseen_a_member_may_stay_but_for_its_last_layers() {
    let files = two();
    let data = files.dataset(&[600, 6], 3);
    let report = |dataset: Value| {
        let artifacts = files.run(json!({"dataset": dataset}));
        (json_file(&artifacts["report"]), Checkpoint::open(Path::new(&artifacts["model"])).unwrap())
    };
    let (unknown, _) = report(json!(data));
    assert!(unknown["warnings"].to_string().contains("drawn from the train split"), "{}", unknown["warnings"]);
    let based = |report: &Value| -> Vec<Value> {
        let tried = report["choice"]["tried"].as_array().unwrap();
        tried.iter().filter(|tried| !tried["base"].is_null()).cloned().collect()
    };
    assert!(based(&unknown).is_empty());
    // Another dataset validates, so the members have not seen it.
    let (unseen, model) = report(json!({"name": data, "validation": data}));
    assert!(!unseen["warnings"].to_string().contains("drawn from the train split"));
    let based = based(&unseen);
    let mixed: Vec<usize> = based.iter().map(|tried| tried["base"]["mixed"].as_array().unwrap().len()).collect();
    assert_eq!(mixed, [0, 1, 0], "its output layer refitted, its last hidden layer mixed, and as it is");
    let choice = &unseen["choice"];
    let kept = &choice["tried"][choice["kept"].as_u64().unwrap() as usize];
    let judged = |tried: &Value| tried["validation"]["accuracy"].as_f64().unwrap();
    assert!(choice["tried"].as_array().unwrap().iter().all(|tried| judged(tried) <= judged(kept)));
    assert!((accuracy(&unseen, "fused") - judged(kept)).abs() < 1e-9, "what was judged is what is published");
    // A member's first layer stays bit for bit wherever the published network is based on it.
    if let Some(name) = kept["base"]["member"].as_str() {
        let member = Checkpoint::open(Path::new(name)).unwrap();
        assert_eq!(model.f32("fc1.weight").unwrap(), member.f32("fc1.weight").unwrap());
    }
}

/// The class that the chain of three layers names for an input.
fn named(member: &dyn Weights, input: &[f32]) -> u8 {
    let layer = |name: &str, input: &[f32]| -> Vec<f32> {
        let [weight, bias] = ["weight", "bias"].map(|part| member.f32(&format!("{name}.{part}")).unwrap());
        let rows = weight.chunks_exact(input.len()).zip(bias.iter());
        rows.map(|(row, bias)| row.iter().zip(input).map(|(a, b)| a * b).sum::<f32>() + bias).collect()
    };
    let relu = |values: Vec<f32>| values.into_iter().map(|value| value.max(0.0)).collect::<Vec<f32>>();
    let hidden = relu(layer("fc2", &relu(layer("fc1", input))));
    let outputs = layer("fc3", &hidden);
    (0..3).max_by(|a, b| outputs[usize::from(*a)].total_cmp(&outputs[usize::from(*b)])).unwrap()
}

#[test]
fn a_member_that_is_best_as_it_is_is_not_what_training_starts_from_and_that_is_said() {
    let files = two();
    let noise = Checkpoint::open(Path::new(&files.dataset(&[400, 6], 3))).unwrap();
    // Large enough that their layers say more than the biases.
    let inputs: Vec<f32> = noise.f32("x").unwrap().iter().map(|value| value * 20.0).collect();
    // The labels are what the first member says, so that nothing is right as often.
    let first = mlp(&[6, 12, 12, 3], 1);
    let labels: Vec<u8> = inputs.chunks_exact(6).map(|input| named(&first, input)).collect();
    let bytes = inputs.iter().flat_map(|value| value.to_le_bytes()).collect();
    let own = safetensors(&[("x", "F32", &[400, 6], bytes), ("y", "U8", &[400], labels)]);
    let data = files.store("own.safetensors", &own);
    let report = |finetune: Value| {
        let artifacts = files.run(json!({"dataset": {"name": data, "validation": data}, "finetune": finetune}));
        let page = std::fs::read_to_string(&artifacts["report.html"]).unwrap();
        (json_file(&artifacts["report"])["choice"].clone(), page)
    };
    let (untrained, page) = report(Value::Null);
    assert!(untrained["started_from"].is_null() && !page.contains("raining starts"), "{untrained:#}");
    let (trained, page) = report(json!({"epochs": 1}));
    let tried = |field: &str| &trained["tried"][trained[field].as_u64().unwrap() as usize];
    assert!(!tried("kept")["base"].is_null() && tried("started_from")["base"].is_null(), "{trained:#}");
    assert!(page.contains("Training starts from another network"));
}
