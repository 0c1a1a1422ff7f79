//! Jobs on data as people have it: splits of its own, classes by name, grey images for networks that read colours.

use crate::common::packing::{picture, zip};
use crate::fuse::{Files, json_file, mlp, resnet};
use engraft::model::header::Dtype;
use image::ImageFormat::Png;
use serde_json::{Value, json};

/// Grey images of 8x8 pixels in each class folder of each split: `count` in the first, and each time one more.
fn pictures(splits: &[(&str, &[&str])], count: usize) -> Vec<u8> {
    let mut files = Vec::new();
    for (split, classes) in splits {
        for (label, class) in classes.iter().enumerate() {
            for index in 0..count + label {
                let shade = [(40 * label + 7 * index) as u8];
                files.push((format!("{split}/{class}/{index}.png"), picture(Png, 8, 8, &shade)));
            }
        }
    }
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    zip(&files)
}

fn report(files: &Files, dataset: &Value) -> Value {
    json_file(
        &files.run(
            json!({"dataset": dataset, "finetune": {"epochs": 1, "batch_size": 8}, "evaluate": ["members", "fused"]}),
        )["report"],
    )
}

#[test]
fn grey_images_with_a_validation_split_serve_networks_that_read_colours() {
    let files = Files::new(&[resnet(4, [1, 1], 1), resnet(4, [1, 1], 2)], Dtype::F32);
    let classes = ["a", "b", "c", "d"];
    let data =
        files.store("grey.zip", &pictures(&[("train", &classes), ("val", &classes), ("test", &classes[..3])], 6));
    let own = report(&files, &json!({"name": data, "normalize": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}}));
    assert_eq!(own["examples"], json!({"train": 30, "validation": 30, "test": 21}));
    assert_eq!(own["epoch_choice"], "best", "nobody trains on a validation split");
    let warnings = own["warnings"].to_string();
    assert!(warnings.contains("repeated for the network's three") && !warnings.contains("drawn from"), "{warnings}");
    let drawn = report(&files, &json!({"name": data, "validation_fraction": 0.25, "normalize": "train"}));
    assert_eq!(drawn["examples"], json!({"train": 22, "validation": 8, "test": 21}));
    assert_eq!(
        (drawn["epoch_choice"].as_str(), drawn["normalize"]["mean"].as_array().map(Vec::len)),
        (Some("last"), Some(1))
    );
}

#[test]
fn classes_follow_their_names() {
    let files = Files::new(&[resnet(4, [1, 1], 1), resnet(4, [1, 1], 2)], Dtype::F32);
    let data =
        files.store("all.zip", &pictures(&[("train", &["a", "b", "c", "d"]), ("test", &["a", "b", "c", "d"])], 6));
    let accuracy = |classes: &Value| -> f64 {
        let report = report(&files, &json!({"name": data, "classes": classes}));
        let rows = report["candidates"].as_array().expect("rows").clone();
        let member = rows.iter().find(|row| row["kind"] == "member").expect("a member");
        member["test"]["accuracy"].as_f64().expect("a test split")
    };
    let alphabet = accuracy(&Value::Null);
    assert!((alphabet - accuracy(&json!(["a", "b", "c", "d"]))).abs() < 1e-9);
    // Classes have other numbers of examples, so that it matters which of them an output is.
    assert!((alphabet - accuracy(&json!(["d", "c", "b", "a"]))).abs() > 0.05, "{alphabet}");
}

#[test]
fn rows_are_the_channels_of_networks_on_sequences() {
    let mut members = [mlp(&[8, 4], 1), mlp(&[8, 4], 2)];
    for (seed, member) in members.iter_mut().enumerate() {
        let values =
            |count: usize| (0..count).map(|at| ((at * 7 + seed) % 11) as f32 / 11.0 - 0.5).collect::<Vec<f32>>();
        member.insert_f32("conv.weight", &[8, 3, 5], values(120)).expect("a tensor");
        member.insert_f32("conv.bias", &[8], values(8)).expect("a tensor");
    }
    let files = Files::new(&members, Dtype::F32);
    let graph = json!({"nodes": [
        {"name": "input", "op": "input", "shape": [3, 16]},
        {"name": "conv", "op": "conv1d", "in_channels": 3, "out_channels": 8, "kernel": 5, "bias": true},
        {"name": "relu", "op": "relu"},
        {"name": "pool", "op": "max_pool1d", "kernel": 12},
        {"name": "flatten", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in_features": 8, "out_features": 4, "bias": true},
    ]});
    let data = files.dataset(&[60, 3, 16], 4);
    let loss = |mean: Value, std: Value| {
        let dataset = json!({"name": data, "normalize": {"mean": mean, "std": std}});
        let body = json!({"dataset": dataset, "architecture": {"graph": graph}, "evaluate": ["members"]});
        json_file(&files.run(body)["report"])["candidates"][0]["validation"]["loss"].clone()
    };
    let one = loss(json!([0.5]), json!([1]));
    assert_eq!(loss(json!([0.5, 0.5, 0.5]), json!([1, 1, 1])), one);
    assert_ne!(loss(json!([0.5, 0.0, 0.5]), json!([1, 1, 1])), one);
}
