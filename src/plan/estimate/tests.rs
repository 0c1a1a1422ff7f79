//! Estimates of jobs on two members 784-512-512-10.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::dataset::{DatasetFacts, DatasetFormat, SplitFacts};
use crate::domain::speed::Speed;
use crate::model::header::{CheckpointHeader, Dtype, TensorInfo};
use crate::plan::Plan;
use crate::plan::network::{DatasetInput, JobFiles, KnownSpeed};
use crate::plan::parse::parse;
use crate::plan::resolve::resolve;

/// The plan of a job; with 10,000 examples for training and 1,000 to test on where it names a dataset.
fn plan(more: &Value) -> Plan {
    planned(more, KnownSpeed::default())
}

/// The same on a machine of this speed.
fn planned(more: &Value, speed: KnownSpeed) -> Plan {
    let shapes = [("fc1", [512, 784]), ("fc2", [512, 512]), ("fc3", [10, 512])];
    let tensor = |(name, shape): (&str, [usize; 2])| TensorInfo {
        name: format!("{name}.weight"),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let header = CheckpointHeader::new(shapes.into_iter().map(tensor).collect());
    let split = |examples: usize| SplitFacts { examples, per_class: vec![examples / 10; 10] };
    let facts = DatasetFacts {
        format: DatasetFormat::Idx,
        splits: BTreeMap::from([("train".to_owned(), split(10_000)), ("test".to_owned(), split(1_000))]),
        ..DatasetFacts::of_arrays(&[1, 28, 28], vec![0; 10])
    };
    let mut body = json!({"members": ["a", "b"]});
    body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    let dataset = body.get("dataset").map(|_| DatasetInput::Ready(&facts));
    let inputs = JobFiles { members: vec![&header, &header], dataset, speed, ..JobFiles::default() };
    let resolved = resolve(parse(&body).expect("a request"), &inputs).expect("a job that fits");
    resolved.planned.expect("a network").plan
}

#[test]
fn selection_alone_takes_little_memory() {
    let plan = plan(&json!({"method": {"compensate": "none"}}));
    assert!(plan.memory_peak_bytes < 52 << 20, "{}", plan.memory_basis);
    assert!(plan.seconds_estimate < 0.1, "{}", plan.seconds_basis);
    assert!(plan.memory_basis.contains("in `verify`"), "{}", plan.memory_basis);
}

#[test]
fn a_gpu_needs_memory_for_training_and_less_with_half_the_bits() {
    let job = |precision: &str, batch: u64| {
        let finetune = json!({"epochs": 1, "batch_size": batch, "optimizer": {"name": "adamw"}});
        let method = json!({"compensate": "none"});
        let planned = plan(&json!({
            "dataset": "d", "precision": precision, "evaluate": ["fused"], "method": method, "finetune": finetune
        }));
        assert!(planned.gpu_memory_basis.contains("images, where there is room"), "{}", planned.gpu_memory_basis);
        planned.gpu_memory_bytes
    };
    let weights = 4 * (784 * 512 + 512 * 512 + 512 * 10);
    assert_eq!(plan(&json!({})).gpu_memory_bytes, 0, "nothing runs without data");
    // Weights, gradients and two buffers; then the factors in half the bits, and activations of half the size.
    let images = 11_000 * 784;
    assert!(job("f32", 1) > (512 << 20) + (64 << 20) + images + 4 * weights, "{}", job("f32", 1));
    assert_eq!(job("tf32", 4096), job("f32", 4096));
    assert!(job("bf16", 4096) < job("f32", 4096) && job("f32", 4096) > job("f32", 1024));
}

#[test]
fn calibration_counts_on_a_gpu_too() {
    let job = |method: Value| plan(&json!({"dataset": "d", "finetune": null, "method": method})).gpu_memory_bytes;
    let [without, with] = ["none", "calibration"].map(|compensate| job(json!({"compensate": compensate})));
    // Both members and the fused network, and the moments of 1,024 units with themselves and 512 others.
    let expected = 3 * 4 * 784 * 512 + 20 * 1024 * 1536;
    assert!(with > without + expected, "{with} and {without}");
}

#[test]
fn a_machine_of_twice_the_speed_takes_half_the_time() {
    let at = |factor: f64| {
        let known = Speed::default();
        let speed = Speed {
            products: factor * known.products,
            convolutions: factor * known.convolutions,
            elements: factor * known.elements,
            solving: factor * known.solving,
            step_seconds: known.step_seconds,
        };
        let finetune = json!({"epochs": 20});
        planned(
            &json!({"dataset": "d", "finetune": finetune, "method": {"compensate": "none"}}),
            KnownSpeed { speed, measured_on: Some("`cpu` of the worker on shed".to_owned()) },
        )
    };
    let (slow, fast) = (at(1.0), at(2.0));
    let ratio = slow.seconds_estimate / fast.seconds_estimate;
    assert!((1.9..=2.0).contains(&ratio), "{ratio}: {} and {}", slow.seconds_basis, fast.seconds_basis);
    assert!(fast.seconds_basis.ends_with("as measured on `cpu` of the worker on shed"), "{}", fast.seconds_basis);
    let assumed = plan(&json!({"dataset": "d"})).seconds_basis;
    assert!(assumed.contains("which are assumed"), "{assumed}");
}

#[test]
fn deciding_between_networks_takes_time() {
    let data = json!({"dataset": "d", "method": {"compensate": "none"}});
    let known = json!({"dataset": "d", "method": {"compensate": "none"}, "architecture": {"activation": "relu"}});
    let (open, known) = (plan(&data), plan(&known));
    assert!(open.seconds_basis.contains("to identify the network"), "{}", open.seconds_basis);
    assert!(!known.seconds_basis.contains("to identify the network"), "{}", known.seconds_basis);
    assert!(open.seconds_estimate > known.seconds_estimate);
}

#[test]
fn compensation_counts_with_and_without_data() {
    let alone = plan(&json!({"method": {"compensate": "none"}}));
    let data_free = plan(&json!({"architecture": {"activation": "relu"}}));
    // Moments of 1024 units of the members and 512 of the fused network, at least twice.
    assert!(data_free.memory_peak_bytes - alone.memory_peak_bytes > 2 * 1536 * 1536 * 4, "{}", data_free.memory_basis);
    assert!(data_free.memory_basis.contains("moments of all units"), "{}", data_free.memory_basis);
    assert!(data_free.seconds_estimate > 2.0 * alone.seconds_estimate);
    let by = |importance: &str| plan(&json!({"dataset": "d", "finetune": null, "method": {"importance": importance}}));
    let calibrated = by("magnitude");
    let basis = &calibrated.memory_basis;
    assert!(basis.contains("in `compensate`") && basis.contains("activations of calibration examples"), "{basis}");
    // Of 9,000 examples is kept what each network's second layer reads.
    assert!(basis.contains(&format!("{:.1} MB activations of cal", 9000.0 * 3.0 * 512.0 * 4.0 / 1e6)), "{basis}");
    assert!(calibrated.seconds_basis.contains("to calibrate and refit"), "{}", calibrated.seconds_basis);
    // `auto` runs one more fused network beside them, and ranks by activations first.
    let both = by("auto");
    let inputs = format!("{:.1} MB activations of cal", 9000.0 * 4.0 * 512.0 * 4.0 / 1e6);
    assert!(both.memory_basis.contains(&inputs), "{}", both.memory_basis);
    assert!(both.memory_peak_bytes > calibrated.memory_peak_bytes);
    assert!(both.seconds_estimate > 1.2 * calibrated.seconds_estimate, "{}", both.seconds_basis);
    let ranked =
        plan(&json!({"dataset": "d", "finetune": null, "method": {"importance": "css", "compensate": "none"}}));
    assert!(ranked.memory_basis.contains("in `score`"), "{}", ranked.memory_basis);
    let sampled = plan(&json!({"dataset": "d", "finetune": null, "method": {"calibration": {"samples": 1000}}}));
    assert!(sampled.memory_peak_bytes < calibrated.memory_peak_bytes);
    assert!(sampled.seconds_estimate < calibrated.seconds_estimate);
}

#[test]
fn training_counts_weights_optimizer_activations_and_the_teacher() {
    let train = |optimizer: &str, batch: usize, epochs: usize| {
        let finetune = json!({"epochs": epochs, "batch_size": batch, "optimizer": {"name": optimizer}});
        plan(&json!({"dataset": "d", "method": {"compensate": "none"}, "finetune": finetune, "evaluate": ["fused"]}))
    };
    let plain = train("sgd", 256, 2);
    let weights = 4 * (784 * 512 + 512 * 512 + 512 * 10);
    let values = 256 * (784 + 512 + 512 + 10 + 2 * 784) * 4;
    let (teacher, examples, batches) = (9000 * 10 * 4, 11_000 * (4 + 8 + 8), 2 * 256 * 784 * 4);
    let expected = (48 << 20) + examples + 6 * weights + values + batches + teacher;
    assert_eq!(plain.memory_peak_bytes, expected, "{}", plain.memory_basis);
    assert_eq!(train("adamw", 256, 2).memory_peak_bytes, expected + 2 * weights);
    assert!(train("sgd", 512, 2).memory_peak_bytes > expected);
    assert!(train("sgd", 256, 4).seconds_estimate > 1.4 * plain.seconds_estimate, "{}", plain.seconds_basis);
    let finetune = json!({"epochs": 2, "augment": {"flip": true}});
    let varied =
        plan(&json!({"dataset": "d", "method": {"compensate": "none"}, "finetune": finetune, "evaluate": ["fused"]}));
    let members = 2 * weights + 3 * 256 * 2 * 784 * 4;
    assert_eq!(varied.memory_peak_bytes, expected - teacher + members, "{}", varied.memory_basis);
    assert!(varied.seconds_estimate > plain.seconds_estimate, "the members look at every batch");
}
