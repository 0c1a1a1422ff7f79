//! A whole fusion with calibration on the GPU, and the same on two threads of the processor.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use engraft::domain::gpu::{Gpu, GpuVersions};
use engraft::model::families::fresh;
use engraft::model::formats::safetensors::encode_header;
use engraft::model::graph::Graph;
use engraft::model::header::{Dtype, TensorInfo};
use engraft::pipeline::{self, JobOutcome};
use engraft::plan::network::KnownSpeed;
use engraft::plan::parse::parse;
use engraft::process::protocol::{InputFile, Task, TaskGpu, TaskOrigin};
use engraft::settings::Device;
use engraft::train::init;
use serde_json::{Value, json};

/// Seconds of fusing two ResNet-18 with that many images, by phase and in all, on both.
pub(crate) fn fuse(images: usize) -> Result<Value> {
    let graph = fresh::resnet18(&vec![3, 32, 32], 64, 10)?;
    let folder = tempfile::tempdir()?;
    for seed in 0..2 {
        init(&graph, seed)?.save(&folder.path().join(format!("m{seed}.safetensors")), &BTreeMap::new())?;
    }
    std::fs::write(folder.path().join("data.safetensors"), dataset(&graph, images))?;
    let (cuda_seconds, cuda) = one(folder.path(), Device::Cuda(0))?;
    let (cpu_seconds, cpu) = one(folder.path(), Device::Cpu)?;
    Ok(json!({
        "cuda_seconds": cuda_seconds, "cpu_seconds": cpu_seconds,
        "cuda": cuda["seconds"], "cpu": cpu["seconds"], "compensation": cuda["compensation"],
    }))
}

/// Noise with labels, as a file.
fn dataset(graph: &Graph, images: usize) -> Vec<u8> {
    let shape = [&[images][..], graph.input_shape()].concat();
    let pixels: usize = shape.iter().product();
    let tensor = |name: &str, shape: Vec<usize>| TensorInfo { name: name.to_owned(), dtype: Dtype::U8, shape };
    let mut file = encode_header(&[tensor("x", shape), tensor("y", vec![images])], &BTreeMap::new());
    file.extend((0..pixels).map(|at| (at * 7919 % 251) as u8));
    file.extend((0..images).map(|image| (image % graph.classes()) as u8));
    file
}

/// The seconds of a job on `device`, and its report.
fn one(folder: &Path, device: Device) -> Result<(f64, Value)> {
    let body = json!({
        "members": ["m0.safetensors", "m1.safetensors"], "architecture": {"assume": true}, "dataset": "data.safetensors",
        "finetune": null, "evaluate": ["fused"],
    });
    let job = parse(&body).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let file = |name: &str| InputFile { name: name.to_owned(), path: folder.join(name), sha256: String::new() };
    let facts = Gpu {
        index: 0,
        name: "the first GPU".to_owned(),
        memory_bytes: 0,
        compute_capability: [9, 0],
        multiprocessors: 0,
    };
    let scratch = tempfile::tempdir_in(folder)?;
    let task = Task {
        members: job.members.iter().map(|name| file(name)).collect(),
        dataset: Some(file("data.safetensors")),
        validation: None,
        test: None,
        reference: None,
        scratch: scratch.path().to_owned(),
        resume: None,
        device,
        gpu: device.is_gpu().then(|| TaskGpu { facts, versions: GpuVersions::default(), memory_limit: None }),
        speed: KnownSpeed::default(),
        threads: 2,
        memory_limit: None,
        origin: TaskOrigin::default(),
        job,
    };
    let start = Instant::now();
    let outcome = pipeline::run(&task, &mut |_| {}, &AtomicBool::new(false));
    let seconds = start.elapsed().as_secs_f64();
    match outcome.map_err(|problem| anyhow::anyhow!("{problem:?}"))? {
        JobOutcome::Finished(files) => {
            let report = files.iter().find(|file| file.name == "report").context("there is no report")?;
            Ok((seconds, serde_json::from_slice(&std::fs::read(&report.path)?)?))
        }
        JobOutcome::Stopped => bail!("nobody stopped it"),
    }
}
