//! A GPU beside the processor and, by `benches/gpu/check.sh`, beside PyTorch: the half that is ours.
//!
//! Every line of the standard input is a question in JSON, every line of the output its answer; see [`answer`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use engraft::domain::gpu::CONTEXT_BYTES;
use engraft::exec::gpu::GpuNetwork;
use engraft::exec::gpu::cuda::{Gpu, GpuOptions, Session, libraries, modules};
use engraft::exec::gpu::kernels::Unit;
use engraft::exec::gpu::tape::Storage;
use engraft::exec::{CpuNetwork, Engine, Inputs, Update};
use engraft::kernels::dropout::Draw;
use engraft::kernels::loss::Targets;
use engraft::model::families;
use engraft::model::graph::Graph;
use engraft::settings::{Architecture, Optimizer, Precision};
use engraft::tensors::{Checkpoint, Weights};
use engraft::train::init;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

mod fusion;
#[path = "../networks/mod.rs"]
mod networks;
mod operations;

const UPDATE: Update = Update { lr_scale: 1.0, clip_norm: None };

/// Parts that the time of a question is measured in.
const PARTS: usize = 5;

/// A compiled network and how it was compiled.
type Compiled = BTreeMap<String, GpuNetwork<Gpu>>;

fn main() {
    // `cargo test` and others start benches without this argument and without questions.
    if !std::env::args().any(|argument| argument == "--bench") && std::env::var_os("ENGRAFT_GPU_BENCH").is_none() {
        return;
    }
    let mut compiled = Compiled::new();
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        let answer =
            serde_json::from_str(&line).map_err(Into::into).and_then(|question| answer(&question, &mut compiled));
        println!("{}", answer.unwrap_or_else(|error| json!({"error": format!("{error:#}")})));
        io::stdout().flush().expect("a reader");
    }
}

/// The answer to a question, which says what to `do`.
fn answer(question: &Value, compiled: &mut Compiled) -> Result<Value> {
    match text(question, "do")? {
        "devices" => devices(),
        "compile" => compile(text(question, "architecture")?),
        "kernels" => operations::check(),
        "losses" => losses(question),
        "step" => step(question, compiled),
        "profile" => profile(question, compiled),
        "forget" => {
            compiled.clear();
            Ok(json!({}))
        }
        "fuse" => fusion::fuse(number(question, "images")?),
        "resume" => resume(),
        "out_of_memory" => out_of_memory(),
        other => bail!("`{other}` is not known yet"),
    }
}

fn text<'a>(question: &'a Value, name: &str) -> Result<&'a str> {
    question[name].as_str().with_context(|| format!("`{name}` is missing"))
}

fn number(question: &Value, name: &str) -> Result<usize> {
    Ok(question[name].as_u64().with_context(|| format!("`{name}` is missing"))? as usize)
}

/// How a question wants the GPU to compute.
fn options(question: &Value) -> Result<GpuOptions> {
    let precision: Precision = serde_json::from_value(question["precision"].clone()).context("`precision`")?;
    let captures = question["captured"].as_bool().unwrap_or(true);
    let deterministic = question["deterministic"].as_bool().unwrap_or(true);
    Ok(GpuOptions { precision, deterministic, captures })
}

pub(crate) fn on_gpu(graph: &Graph, batch: usize, options: GpuOptions) -> Result<GpuNetwork<Gpu>> {
    let storage = if options.precision == Precision::Bf16 { Storage::Bf16 } else { Storage::F32 };
    Ok(GpuNetwork::compile(Gpu::new(Session::open(0)?, options), graph, batch, 2, storage)?)
}

fn devices() -> Result<Value> {
    let loaded = libraries::load().map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let versions = [&loaded.driver, &loaded.nvrtc, &loaded.cublaslt, &loaded.cudnn];
    let libraries: BTreeMap<_, _> = versions.iter().map(|library| (library.name, library.version.clone())).collect();
    Ok(json!({"name": Session::open(0)?.name(), "driver": loaded.driver.version, "libraries": libraries}))
}

/// Compiles all kernels for a GPU that need not be there.
fn compile(architecture: &str) -> Result<Value> {
    libraries::nvrtc().map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let start = Instant::now();
    let units: Vec<Unit> = Unit::all().collect();
    let bytes = units.par_iter().map(|unit| Ok(modules::image(*unit, architecture)?.len()));
    let bytes: usize = bytes.collect::<Result<Vec<_>>>()?.into_iter().sum();
    Ok(json!({"units": units.len(), "bytes": bytes, "seconds": start.elapsed().as_secs_f64()}))
}

/// SGD as both halves have it.
fn sgd(lr: f32) -> Optimizer {
    Optimizer::Sgd { lr, momentum: 0.9, nesterov: false, weight_decay: 5e-4, decay_norms_and_biases: true }
}

/// The losses of a step on each batch, and the digest of the weights behind the last one. `weights` are those of a known network;
/// `batches` has the images `x` (steps x batch x channels x height x width) and the labels `y` (steps x batch), both as f32.
fn losses(question: &Value) -> Result<Value> {
    let weights = Checkpoint::open(Path::new(text(question, "weights")?))?;
    let batches = Checkpoint::open(Path::new(text(question, "batches")?))?;
    let lr = question["lr"].as_f64().context("`lr` is missing")? as f32;
    let shape = batches.header().get("x").context("there are no images `x`")?.shape.clone();
    let input = Some(shape[2..].to_vec());
    let detected = families::detect(&[weights.header()], &Architecture::default(), input.as_ref())?;
    let graph = &detected.graphs[0];
    let mut network: Box<dyn Engine> = if text(question, "device")? == "cpu" {
        Box::new(CpuNetwork::<f32>::compile(graph, shape[1], 8)?)
    } else {
        Box::new(on_gpu(graph, shape[1], options(question)?)?)
    };
    network.load(&weights)?;
    network.init_optimizer(&sgd(lr));
    let (images, labels) = (batches.f32("x")?, batches.f32("y")?);
    let labels: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
    let steps = images.chunks_exact(shape[1] * network.example_len()).zip(labels.chunks_exact(shape[1]));
    let mut losses = Vec::new();
    for (index, (images, labels)) in steps.enumerate() {
        network.step(Inputs::Images(images), Targets::of(labels), UPDATE, Draw { seed: 0, step: index as u64 })?;
        losses.extend(network.take_steps(false)?.iter().map(|step| step.loss));
    }
    losses.extend(network.take_steps(true)?.iter().map(|step| step.loss));
    Ok(json!({"losses": losses, "digest": digest(network.as_mut())?}))
}

/// One text for all weights.
fn digest(network: &mut dyn Engine) -> Result<String> {
    let weights = network.state_dict()?;
    let mut names: Vec<&String> = weights.keys().collect();
    names.sort();
    let mut digest = Sha256::new();
    for name in names.into_iter().filter(|name| !name.ends_with("num_batches_tracked")) {
        weights.f32(name)?.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    Ok(hex::encode(digest.finalize()))
}

/// Images and labels that are not all alike.
fn batch(network: &dyn Engine, examples: usize) -> (Vec<f32>, Vec<u32>) {
    let noise = |i: usize| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0;
    let images = (0..examples * network.example_len()).map(noise).collect();
    (images, (0..examples as u32).map(|i| i % 10).collect())
}

/// The network of a question, which has done a step.
fn stepped<'a>(question: &Value, compiled: &'a mut Compiled) -> Result<&'a mut GpuNetwork<Gpu>> {
    let (name, examples) = (text(question, "network")?, number(question, "batch")?);
    let options = options(question)?;
    let key = format!("{name} {examples} {options:?}");
    if !compiled.contains_key(&key) {
        let graph = networks::by_name(name).with_context(|| format!("no network `{name}`"))?;
        let mut network = on_gpu(&graph, examples, options)?;
        network.load(&init(&graph, 1)?)?;
        network.init_optimizer(&sgd(1e-3));
        let (images, labels) = batch(&network, examples);
        network.step(Inputs::Images(&images), Targets::of(&labels), UPDATE, Draw::default())?;
        network.take_steps(true)?;
        compiled.insert(key.clone(), network);
    }
    compiled.get_mut(&key).context("it was just compiled")
}

/// Microseconds of each command of a step by itself, the same ones added up, the longest first.
fn profile(question: &Value, compiled: &mut Compiled) -> Result<Value> {
    let network = stepped(question, compiled)?;
    let program = network.played().context("a step")?;
    let mut sums: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for (what, seconds) in network.device().profile(program, 20)? {
        let sum = sums.entry(what).or_default();
        *sum = (sum.0 + 1, sum.1 + seconds * 1e6);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|one, two| two.1.1.total_cmp(&one.1.1));
    let all: f64 = sums.iter().map(|(_, (_, us))| us).sum();
    let rows: Vec<Value> =
        sums.iter().map(|(what, (count, us))| json!([what, count, (us * 10.0).round() / 10.0])).collect();
    Ok(json!({"microseconds": all, "commands": rows}))
}

/// Seconds of a step with a batch that is on the device, in some parts of the time.
fn step(question: &Value, compiled: &mut Compiled) -> Result<Value> {
    let steps = number(question, "steps")?;
    let network = stepped(question, compiled)?;
    network.repeat(3)?;
    network.device().wait()?;
    let part = (steps / PARTS).max(1);
    let mut seconds = Vec::new();
    for _ in 0..PARTS {
        let start = Instant::now();
        network.repeat(part)?;
        network.device().wait()?;
        seconds.push(start.elapsed().as_secs_f64() / part as f64);
    }
    Ok(json!({"seconds": seconds}))
}

/// Whether a training that goes on in another network computes the same bits.
fn resume() -> Result<Value> {
    let graph = networks::by_name("lenet").context("a network")?;
    let options = GpuOptions { precision: Precision::Tf32, deterministic: true, captures: true };
    let mut whole = on_gpu(&graph, 32, options)?;
    whole.load(&init(&graph, 1)?)?;
    whole.init_optimizer(&sgd(0.01));
    let (images, labels) = batch(&whole, 32);
    let step = |network: &mut GpuNetwork<Gpu>, number: u64| {
        network.step(Inputs::Images(&images), Targets::of(&labels), UPDATE, Draw { seed: 1, step: number })
    };
    (0..4).try_for_each(|number| step(&mut whole, number))?;
    let (steps, state) = whole.save_optimizer()?;
    let mut other = on_gpu(&graph, 32, options)?;
    other.load(&whole.state_dict()?)?;
    other.init_optimizer(&sgd(0.01));
    other.load_optimizer(steps, &state)?;
    for network in [&mut whole, &mut other] {
        (4..8).try_for_each(|number| step(network, number))?;
    }
    Ok(json!({"equal": digest(&mut whole)? == digest(&mut other)?}))
}

/// What a network says that is larger than the memory it may take.
fn out_of_memory() -> Result<Value> {
    let session = Session::open(0)?;
    session.limit_memory(CONTEXT_BYTES + (64 << 20));
    let graph = networks::by_name("resnet18").context("a network")?;
    let options = GpuOptions { precision: Precision::F32, deterministic: true, captures: true };
    let outcome = on_gpu(&graph, 4096, options);
    session.limit_memory(u64::MAX);
    match outcome {
        Ok(_) => bail!("the network fits into 64 MiB"),
        Err(error) => {
            let problem =
                if error.to_string().contains("bytes of the GPU's memory") { "out_of_memory" } else { "other" };
            Ok(json!({"problem": problem, "detail": error.to_string()}))
        }
    }
}
