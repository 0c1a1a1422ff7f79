//! What a plan counts is what the job does: joins, members and networks that are measured, examples that they see, and the
//! sizes of the systems that are solved.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engraft::cost::systems::refits;
use engraft::data::{Limits, inspect};
use engraft::pipeline::{JobOutcome, run_counted};
use engraft::plan::network::{DatasetInput, JobFiles, KnownSpeed};
use engraft::plan::parse::parse;
use engraft::plan::resolve::{Planned, resolve};
use engraft::process::protocol::{InputFile, OutputFile, Task, TaskOrigin};
use engraft::settings::{Convolutions, Device};
use engraft::tensors::{Checkpoint, StateDict};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use tempfile::{NamedTempFile, TempDir};

const TRAIN: usize = 60;
const TEST: usize = 20;

/// Members 6-w-5-3 without biases, `w` one of `widths` each.
fn members(folder: &Path, widths: &[usize]) -> Vec<String> {
    let save = |(index, width): (usize, &usize)| {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        let mut state = StateDict::default();
        for (name, shape) in [("fc1.weight", [*width, 6]), ("fc2.weight", [5, *width]), ("fc3.weight", [3, 5])] {
            let values = (0..shape[0] * shape[1]).map(|_| rng.random_range(-1.0..1.0_f32)).collect();
            state.insert_f32(name, &shape, values).expect("a tensor");
        }
        let path = folder.join(format!("m{index}.safetensors"));
        state.save(&path, &BTreeMap::new()).expect("a file");
        path.display().to_string()
    };
    widths.iter().enumerate().map(save).collect()
}

/// Vectors of six numbers in three classes, as a safetensors file.
fn dataset() -> NamedTempFile {
    arrays(true)
}

/// The same with labels or without.
fn arrays(labelled: bool) -> NamedTempFile {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (mut header, mut bytes) = (Map::new(), Vec::new());
    let mut add = |name: &str, dtype: &str, shape: Value, data: Vec<u8>| {
        let offsets = [bytes.len(), bytes.len() + data.len()];
        header.insert(name.to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        bytes.extend(data);
    };
    for (part, count) in [("train", TRAIN), ("test", TEST)] {
        let x = (0..count * 6).flat_map(|_| rng.random_range(-1.0..1.0_f32).to_le_bytes()).collect();
        add(&format!("x_{part}"), "F32", json!([count, 6]), x);
        if labelled {
            add(&format!("y_{part}"), "U8", json!([count]), (0..count).map(|index| (index % 3) as u8).collect());
        }
    }
    let header = Value::Object(header).to_string();
    let mut file = NamedTempFile::new().expect("a file");
    for part in [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes] {
        file.write_all(part).expect("writes");
    }
    file
}

fn input(path: &str) -> InputFile {
    InputFile { name: path.to_owned(), path: PathBuf::from(path), sha256: String::new() }
}

/// The plan of a job.
fn planned(body: &Value, data: &Path) -> Planned {
    let job = parse(body).unwrap_or_else(|faults| panic!("{faults:?}"));
    let open = |name: &String| Checkpoint::open(Path::new(name)).expect("a checkpoint");
    let checkpoints: Vec<Checkpoint> = job.members.iter().map(open).collect();
    let facts = inspect(data, &Limits::default()).expect("a dataset");
    let dataset = job.dataset.as_ref().map(|_| DatasetInput::Ready(&facts));
    let members = checkpoints.iter().map(Checkpoint::header).collect();
    let resolved = resolve(job, &JobFiles { members, dataset, ..JobFiles::default() }).expect("a job that fits");
    resolved.planned.expect("all files are there")
}

/// What was counted when it ran, and its artifacts.
fn counted(body: &Value, scratch: &TempDir) -> (engraft::cost::Counts, Vec<OutputFile>) {
    let job = parse(body).expect("a request");
    let task = Task {
        origin: TaskOrigin::default(),
        reference: None,
        members: job.members.iter().map(|name| input(name)).collect(),
        dataset: job.dataset.as_ref().map(|dataset| input(&dataset.name)),
        validation: None,
        test: None,
        scratch: scratch.path().to_owned(),
        resume: None,
        device: Device::Cpu,
        gpu: None,
        speed: KnownSpeed::default(),
        threads: 1,
        memory_limit: None,
        job,
    };
    match run_counted(&task, &mut |_| {}, &AtomicBool::new(false)).expect("a job that succeeds") {
        (JobOutcome::Finished(artifacts), counts) => (counts, artifacts),
        (JobOutcome::Stopped, _) => panic!("nobody asked to stop"),
    }
}

/// Unknowns of every system in a report.
fn reported(artifacts: &[OutputFile]) -> Vec<u64> {
    let report = artifacts.iter().find(|artifact| artifact.name == "report").expect("a report");
    let report: Value = serde_json::from_slice(&std::fs::read(&report.path).expect("a file")).expect("JSON");
    let layers = report["compensation"]["layers"].as_array().cloned().unwrap_or_default();
    layers.iter().map(|layer| layer["unknowns"].as_u64().expect("a number")).collect()
}

#[test]
fn what_is_planned_is_what_is_done() {
    let data = dataset();
    let name = data.path().display().to_string();
    let everything = json!([
        "members",
        "best_member",
        "ensemble",
        "vote",
        "average",
        "optimal_transport",
        "permutation_alignment",
        "neuron_interpolation",
        "distilled",
        "fused"
    ]);
    let calibrated = json!({"importance": "magnitude", "calibration": {"samples": 50}});
    let methods = [
        json!({"importance": "magnitude", "compensate": "none"}),
        calibrated.clone(),
        json!({"order": "iterative", "compensate": "none", "importance": "l1"}),
        json!({"order": "hierarchical", "compensate": "none", "importance": "css", "calibration": {"samples": 50}}),
        json!({"order": "prune_then_merge", "compensate": "none", "importance": "taylor"}),
        json!({"name": "average"}),
        json!({"name": "optimal_transport"}),
        json!({"name": "permutation_alignment"}),
        json!({"name": "neuron_interpolation", "calibration": {"samples": 30}}),
    ];
    let evaluations = [everything, json!(["vote"]), json!(["best_member", "fused"]), json!(["distilled"]), json!([])];
    let mut cases = 0;
    let mut compare = |widths: &[usize], method: &Value, evaluate: &Value, finetune: &Value| {
        let folder = tempfile::tempdir().expect("a folder");
        let body = json!({"members": members(folder.path(), widths), "architecture": {"assume": true}, "method": method, "evaluate": evaluate,
            "dataset": {"name": name, "validation_fraction": 0.2}, "finetune": finetune});
        let planned = planned(&body, data.path());
        let scratch = tempfile::tempdir().expect("a folder");
        let (counts, artifacts) = counted(&body, &scratch);
        assert_eq!(planned.counts, counts, "{body}");
        if method == &calibrated {
            let (fused, graphs) = (&planned.network.fusion.fused, &planned.network.detected.graphs);
            let systems: Vec<u64> =
                refits(fused, graphs, Convolutions::default(), 16).iter().map(|fit| fit.features).collect();
            assert_eq!(systems, reported(&artifacts), "{body}");
        }
        cases += 1;
    };
    for evaluate in &evaluations {
        for finetune in [Value::Null, json!({"epochs": 1, "batch_size": 16})] {
            for method in &methods {
                compare(&[8, 8, 8], method, evaluate, &finetune);
            }
        }
    }
    for count in 1..=6 {
        for order in ["joint", "iterative", "hierarchical"] {
            let method = json!({"order": order, "compensate": "none", "importance": "magnitude"});
            compare(&vec![8; count], &method, &json!(["fused"]), &Value::Null);
        }
    }
    // Members of different widths have no average, but their units have groups.
    for method in [&methods[1], &methods[8]] {
        compare(&[8, 7], method, &evaluations[0], &json!({"epochs": 1, "batch_size": 16}));
    }
    println!("{cases} jobs");
    assert_eq!(cases, 5 * 2 * 9 + 6 * 3 + 2);
}

#[test]
fn what_is_planned_without_labels_is_what_is_done() {
    let data = arrays(false);
    for finetune in [Value::Null, json!({"epochs": 1, "batch_size": 16})] {
        for method in [json!({}), json!({"importance": "magnitude", "compensate": "none"}), json!({"name": "average"})]
        {
            let folder = tempfile::tempdir().expect("a folder");
            let body = json!({"members": members(folder.path(), &[8, 8]), "architecture": {"assume": true}, "method": method,
                "dataset": data.path().display().to_string(), "finetune": finetune});
            let scratch = tempfile::tempdir().expect("a folder");
            assert_eq!(planned(&body, data.path()).counts, counted(&body, &scratch).0, "{body}");
        }
    }
}
