//! Every operation on the GPU, forward and backward, beside what PyTorch computes (`tests/fixtures/ops`).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use engraft::exec::gpu::cuda::GpuOptions;
use engraft::exec::{Engine, Inputs};
use engraft::kernels::dropout::Draw;
use engraft::kernels::loss::Targets;
use engraft::model::graph::json::parse;
use engraft::settings::Precision;
use engraft::tensors::StateDict;
use serde_json::{Value, json};

use crate::on_gpu;

/// Checks all cases in f32 and bf16; the answer has the largest error of each, as a part of the largest number beside it.
pub(crate) fn check() -> Result<Value> {
    let fixture: Value = serde_json::from_str(include_str!("../../tests/fixtures/ops/ops.json"))?;
    let cases = fixture["cases"].as_array().context("cases")?;
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    let mut failed = Vec::new();
    for (precision, name, bound) in [(Precision::F32, "f32", 2e-4), (Precision::Bf16, "bf16", 6e-2)] {
        for case in cases {
            let what = format!("{} {name}", case["name"].as_str().unwrap_or_default());
            match errors(case, precision) {
                Ok([outputs, gradients]) => {
                    let gradients = if precision == Precision::F32 { gradients } else { 0.0 };
                    let error = outputs.max(gradients);
                    if error.is_nan() || error > bound {
                        failed.push(json!({"case": what, "outputs": outputs, "gradients": gradients}));
                    }
                    let most = worst.entry(name.to_owned()).or_default();
                    *most = most.max(error);
                }
                Err(error) => failed.push(json!({"case": what, "error": format!("{error:#}")})),
            }
        }
    }
    let checked = 2 * cases.len();
    Ok(json!({"checked": checked, "worst": worst, "failed": failed}))
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().into_iter().flatten().map(|number| number.as_f64().unwrap_or(f64::NAN) as f32).collect()
}

/// The errors of outputs and of gradients.
fn errors(case: &Value, precision: Precision) -> Result<[f64; 2]> {
    let mut nodes = case["graph"]["nodes"].as_array().context("nodes")?.clone();
    let channels = nodes[0]["shape"][0].clone();
    nodes[0]["name"] = json!("raw");
    nodes.insert(1, json!({"name": "input", "op": "layer_scale", "features": channels}));
    nodes.push(json!({"name": "all", "op": "flatten"}));
    let graph = parse(&json!({"nodes": nodes})).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let mut weights = StateDict::default();
    for (name, tensor) in case["tensors"].as_object().context("tensors")? {
        let shape: Vec<usize> = numbers(&tensor["shape"]).iter().map(|size| *size as usize).collect();
        weights.insert_f32(name, &shape, numbers(&tensor["values"]))?;
    }
    let channels = graph.input_shape()[0];
    weights.insert_f32("input", &[channels], vec![1.0; channels])?;
    let batch = case["batch"].as_u64().context("batch")? as usize;
    let mut network = on_gpu(&graph, batch, GpuOptions { precision, deterministic: true, captures: false })?;
    network.load(&weights)?;
    let inputs = numbers(&case["inputs"]);
    let outputs = error(network.forward(Inputs::Images(&inputs))?, &numbers(&case["outputs"]), 0.0);
    let Some(expected) = case["gradients"].as_object() else { return Ok([outputs, 0.0]) };
    let labels: Vec<u32> = (0..batch).map(|i| (i % network.classes()) as u32).collect();
    let gradients = network.gradients(Inputs::Images(&inputs), Targets::of(&labels), Draw::default())?;
    let names: Vec<String> = network.learned().iter().map(|(name, _)| (*name).to_owned()).collect();
    let all = names.iter().flat_map(|name| numbers(&expected[name]));
    let most = all.fold(0.0_f32, |most, value| most.max(value.abs()));
    let each = names.iter().zip(&gradients.tensors);
    let worst = each.map(|(name, got)| error(got, &numbers(&expected[name]), 1e-2 * most)).fold(0.0, f64::max);
    Ok([outputs, worst])
}

/// The largest difference, as a part of the largest number (or of `least`).
fn error(got: &[f32], expected: &[f32], least: f32) -> f64 {
    let scale = expected.iter().fold(least.max(1e-6), |most, value| most.max(value.abs()));
    let apart = got.iter().zip(expected).map(|(got, expected)| f64::from((got - expected).abs() / scale));
    apart.fold(0.0, |most, difference| if difference.is_nan() { f64::INFINITY } else { most.max(difference) })
}
