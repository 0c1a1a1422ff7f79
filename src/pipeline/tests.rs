//! Whole jobs on a GPU that is emulated, beside the same jobs on the processor.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{JobOutcome, run};
use crate::domain::gpu::{Gpu, GpuVersions};
use crate::domain::progress::Phase;
use crate::exec::EMULATED;
use crate::model::formats::safetensors::encode_header;
use crate::model::header::{Dtype, TensorInfo};
use crate::plan::network::KnownSpeed;
use crate::plan::parse::parse;
use crate::process::protocol::{InputFile, Message, Task, TaskGpu, TaskOrigin};
use crate::settings::Device;
use crate::tensors::{Checkpoint, StateDict, Weights};

const CLASSES: usize = 4;
const SIDE: usize = 6;

/// A residual network of one block in each of two stages, under the usual names.
fn member(seed: u64) -> StateDict {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut state = StateDict::default();
    let mut put = |name: String, shape: &[usize], range: [f32; 2]| {
        let values = (0..shape.iter().product()).map(|_| rng.random_range(range[0]..range[1])).collect();
        state.insert_f32(&name, shape, values).expect("a tensor");
    };
    let convolutions = [
        ("conv1", 3, 6, 3, "bn1"),
        ("layer1.0.conv1", 6, 6, 3, "layer1.0.bn1"),
        ("layer1.0.conv2", 6, 6, 3, "layer1.0.bn2"),
        ("layer2.0.conv1", 6, 12, 3, "layer2.0.bn1"),
        ("layer2.0.conv2", 12, 12, 3, "layer2.0.bn2"),
        ("layer2.0.shortcut.0", 6, 12, 1, "layer2.0.shortcut.1"),
    ];
    for (name, from, to, side, norm) in convolutions {
        let bound = (6.0 / (from * side * side) as f32).sqrt();
        put(format!("{name}.weight"), &[to, from, side, side], [-bound, bound]);
        for (suffix, range) in
            [("weight", [0.5, 1.0]), ("bias", [-0.2, 0.2]), ("running_mean", [-0.2, 0.2]), ("running_var", [0.5, 1.0])]
        {
            put(format!("{norm}.{suffix}"), &[to], range);
        }
    }
    put("linear.weight".to_owned(), &[CLASSES, 12], [-0.5, 0.5]);
    put("linear.bias".to_owned(), &[CLASSES], [-0.1, 0.1]);
    state
}

/// Images of bytes whose class is the quarter that is bright.
fn dataset(path: &Path) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut tensors, mut bytes) = (Vec::new(), Vec::new());
    for (suffix, count) in [("", 80), ("_test", 40)] {
        for image in 0..count {
            for at in 0..3 * SIDE * SIDE {
                let quarter = 2 * (at / SIDE % SIDE / (SIDE / 2)) + at % SIDE / (SIDE / 2);
                let bright = if quarter == image % CLASSES { 110 } else { 0 };
                bytes.push(bright + rng.random_range(0..140_u8));
            }
        }
        bytes.extend((0..count).map(|image| (image % CLASSES) as u8));
        let tensor = |name: &str, shape: &[usize]| TensorInfo {
            name: format!("{name}{suffix}"),
            dtype: Dtype::U8,
            shape: shape.to_vec(),
        };
        tensors.extend([tensor("x", &[count, 3, SIDE, SIDE]), tensor("y", &[count])]);
    }
    let file = [encode_header(&tensors, &BTreeMap::new()), bytes].concat();
    std::fs::write(path, file).expect("writes");
}

/// What a job on `device` makes: its report and its network.
fn fuse(folder: &Path, device: Device, more: &Value) -> (Value, Checkpoint) {
    listened(folder, device, more, &mut |_| {})
}

/// The same, and what it says meanwhile.
fn listened(
    folder: &Path,
    device: Device,
    more: &Value,
    listen: &mut (dyn FnMut(Message) + Send),
) -> (Value, Checkpoint) {
    let path = |name: &str| folder.join(name);
    let mut body = json!({
        "members": ["m0.safetensors", "m1.safetensors"],
        "architecture": {"assume": true},
        "dataset": {"name": "data.safetensors", "normalize": {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.3, 0.2]}},
        "precision": "f32",
    });
    body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    let job = parse(&body).expect("a request");
    let scratch = tempfile::tempdir_in(folder).expect("a folder").keep();
    let file = |name: &str| InputFile { name: name.to_owned(), path: path(name), sha256: String::new() };
    let facts = Gpu {
        index: EMULATED,
        name: "Emulated".to_owned(),
        memory_bytes: 1 << 34,
        compute_capability: [9, 0],
        multiprocessors: 1,
    };
    let gpu = device.is_gpu().then(|| TaskGpu { facts, versions: GpuVersions::default(), memory_limit: None });
    let task = Task {
        origin: TaskOrigin::default(),
        members: job.members.iter().map(|name| file(name)).collect(),
        dataset: Some(file("data.safetensors")),
        validation: None,
        test: None,
        reference: None,
        scratch,
        resume: None,
        device,
        gpu,
        speed: KnownSpeed::default(),
        threads: 2,
        memory_limit: None,
        job,
    };
    match run(&task, listen, &AtomicBool::new(false)) {
        Ok(JobOutcome::Finished(files)) => {
            let find = |name: &str| files.iter().find(|file| file.name == name).map(|file| file.path.clone());
            let report = std::fs::read(find("report").expect("a report")).expect("readable");
            let model = Checkpoint::open(&find("model").expect("a model")).expect("a network");
            (serde_json::from_slice(&report).expect("JSON"), model)
        }
        other => panic!("{more}: {other:?}"),
    }
}

/// The largest difference of all weights, as a part of the largest weight of each tensor.
fn difference(one: &Checkpoint, other: &Checkpoint) -> f32 {
    let tensors = one.header().tensors.iter().filter(|info| !info.name.ends_with("num_batches_tracked"));
    let worst = tensors.map(|info| {
        let [one, other] = [one, other].map(|file| file.f32(&info.name).expect("the tensor"));
        let scale = one.iter().fold(1e-3_f32, |most, value| most.max(value.abs()));
        one.iter().zip(&other[..]).fold(0.0_f32, |most, (one, other)| most.max((one - other).abs())) / scale
    });
    worst.fold(0.0, f32::max)
}

/// Jobs, and how far their weights may be apart.
fn jobs() -> [(&'static str, Value, f32); 5] {
    let train = |epochs: usize, more: Value| {
        let mut finetune = json!({
            "epochs": epochs, "batch_size": 20,
            "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}
        });
        finetune.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        finetune
    };
    let taught = json!({"objective": "distill", "augment": {"crop_padding": 1, "flip": true}});
    [
        // Ranked, and refitted, by statistics that are taken on the device.
        ("ranked", json!({"finetune": null, "method": {"importance": "css", "compensate": "none"}}), 1e-6),
        (
            "refitted, at three quarters of the width",
            json!({"finetune": null, "target": {"width": 0.75}, "method": {"importance": "magnitude"}}),
            // A fit of few examples with a small ridge magnifies what rounding leaves.
            3e-2,
        ),
        ("by gradients", json!({"finetune": null, "method": {"importance": "taylor", "compensate": "none"}}), 1e-6),
        (
            "trained",
            json!({"finetune": train(2, json!({"objective": "cross_entropy"})), "method": {"compensate": "none"}}),
            5e-3,
        ),
        ("taught by the members", json!({"finetune": train(1, taught), "method": {"compensate": "none"}}), 5e-3),
    ]
}

/// The members and the dataset.
fn files() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..2 {
        let path = folder.path().join(format!("m{seed}.safetensors"));
        member(seed).save(&path, &BTreeMap::new()).expect("a file");
    }
    dataset(&folder.path().join("data.safetensors"));
    folder
}

#[test]
fn a_job_says_how_far_it_is_as_a_whole_and_never_goes_back() {
    let folder = files();
    let (mut seen, mut planned) = (Vec::new(), false);
    let job = json!({
        "finetune": {"epochs": 2, "batch_size": 20},
        "method": {"importance": "css", "order": "hierarchical"},
        "members": ["m0.safetensors", "m1.safetensors", "m0.safetensors"],
    });
    listened(folder.path(), Device::Cpu, &job, &mut |message| match message {
        Message::Phase { phase } => planned = phase > Phase::Plan,
        Message::Progress(progress) if planned => seen.push(progress),
        _ => {}
    });
    let phases: Vec<Phase> = seen.iter().map(|progress| progress.phase).collect();
    for phase in [Phase::Verify, Phase::Score, Phase::Prune, Phase::Compensate, Phase::Finetune, Phase::Evaluate] {
        assert!(phases.contains(&phase), "{phase:?}");
    }
    let done: Vec<f64> = seen.iter().map(|progress| progress.job_fraction.expect("there is a plan")).collect();
    assert!(done.is_sorted() && done[0] < 0.5 && done.last() == Some(&1.0), "{done:?}");
    for phase in [Phase::Finetune, Phase::Evaluate] {
        let of_phase = seen.iter().filter(|progress| progress.phase == phase).map(|progress| progress.fraction);
        assert!(of_phase.is_sorted(), "{phase:?}");
    }
    assert!(seen.iter().all(|progress| progress.job_eta_s.is_some_and(|left| left >= 0.0)));
    assert_eq!(seen.last().map(|last| (last.phase, last.job_eta_s)), Some((Phase::Publish, Some(0.0))));
}

#[test]
fn a_whole_job_on_an_emulated_gpu_ends_as_on_the_processor() {
    let folder = files();
    let mut wrong = Vec::new();
    for (what, job, tolerance) in jobs() {
        let (on_cpu, expected) = fuse(folder.path(), Device::Cpu, &job);
        let (on_gpu, model) = fuse(folder.path(), Device::Cuda(EMULATED), &job);
        let apart = difference(&expected, &model);
        if apart > tolerance {
            wrong.push(format!("{what}: weights are {apart} apart"));
        }
        if !on_gpu["computation"].to_string().contains("Emulated") {
            wrong.push(format!("{what}: {}", on_gpu["computation"]));
        }
        let rows = |report: &Value| report["candidates"].as_array().expect("rows").clone();
        let (expected, rows) = (rows(&on_cpu), rows(&on_gpu));
        assert!(rows.len() > 3 && rows.len() == expected.len(), "{what}: {rows:?}");
        for (expected, row) in expected.iter().zip(&rows) {
            assert_eq!((&row["kind"], &row["name"]), (&expected["kind"], &expected["name"]), "{what}");
            for split in ["validation", "test"] {
                let accuracy = |row: &Value| row[split]["accuracy"].as_f64().expect("an accuracy");
                // One example of the 8 to validate on may be decided otherwise, no more.
                if (accuracy(row) - accuracy(expected)).abs() > 0.13 {
                    wrong.push(format!("{what}, {split}: {row} for {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
