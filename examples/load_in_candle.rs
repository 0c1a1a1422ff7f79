//! Runs a fused network in candle: the graph comes from its architecture file, the weights from its safetensors file.
//!
//! ```text
//! cargo run --example load_in_candle -- architecture.json fused.safetensors
//! ```
//!
//! Prints the logits for one example of zeros. It knows what multilayer perceptrons, LeNet, VGG and ResNet are made of;
//! another operation is another arm of the match in [`step`].

use std::collections::BTreeMap;

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use candle_nn::{BatchNormConfig, Conv2dConfig, Module, ModuleT, VarBuilder};
use serde_json::Value;

fn main() -> Result<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [architecture, weights] = &files[..] else { bail!("expected an architecture file and a safetensors file") };
    let graph: Value = serde_json::from_slice(&std::fs::read(architecture)?).map_err(Error::wrap)?;
    let weights = VarBuilder::from_buffered_safetensors(std::fs::read(weights)?, DType::F32, &Device::Cpu)?;
    let mut shape = vec![1];
    shape.extend(sizes(&graph["nodes"][0]["shape"]));
    println!("{}", forward(&graph, &weights, &Tensor::zeros(shape, DType::F32, &Device::Cpu)?)?);
    Ok(())
}

/// The outputs (batch x classes) of `graph`, in the JSON form of `docs/graph.md`, for a batch of its inputs.
///
/// # Errors
/// When a tensor is missing or has another shape, or an operation is not among those of this example.
pub(crate) fn forward(graph: &Value, weights: &VarBuilder<'_>, batch: &Tensor) -> Result<Tensor> {
    let Some(nodes) = graph["nodes"].as_array() else { bail!("expected a list `nodes`") };
    let mut values: BTreeMap<&str, Tensor> = BTreeMap::new();
    let mut last = batch.clone();
    for node in nodes {
        let named = node["inputs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut operands: Vec<Tensor> = named.filter_map(|name| values.get(name).cloned()).collect();
        if operands.is_empty() {
            operands.push(last);
        }
        last = step(node, &operands, weights)?;
        values.insert(node["name"].as_str().unwrap_or_default(), last.clone());
    }
    Ok(last)
}

/// One node: its tensors are called as the node is.
fn step(node: &Value, operands: &[Tensor], weights: &VarBuilder<'_>) -> Result<Tensor> {
    let (x, op) = (&operands[0], node["op"].as_str().unwrap_or_default());
    let weights = weights.pp(node["name"].as_str().unwrap_or_default());
    let size = |field: &str| sizes(&node[field]).first().copied().unwrap_or(0);
    let size_or = |field: &str, default: usize| sizes(&node[field]).first().copied().unwrap_or(default);
    let has_bias = node["bias"] == true;
    match op {
        "input" => Ok(x.clone()),
        "flatten" => x.flatten_from(1),
        "relu" => x.relu(),
        "add" => &operands[0] + &operands[1],
        "linear" => {
            let make = if has_bias { candle_nn::linear } else { candle_nn::linear_no_bias };
            make(size("in_features"), size("out_features"), weights)?.forward(x)
        }
        "conv2d" => {
            let config = Conv2dConfig {
                padding: size_or("padding", 0),
                stride: size_or("stride", 1),
                dilation: size_or("dilation", 1),
                groups: size_or("groups", 1),
                ..Conv2dConfig::default()
            };
            let make = if has_bias { candle_nn::conv2d } else { candle_nn::conv2d_no_bias };
            make(size("in_channels"), size("out_channels"), size("kernel"), config, weights)?.forward(x)
        }
        "batch_norm" => {
            let config = BatchNormConfig { eps: node["eps"].as_f64().unwrap_or(1e-5), ..BatchNormConfig::default() };
            candle_nn::batch_norm(size("features"), config, weights)?.forward_t(x, false)
        }
        "max_pool2d" if size_or("padding", 0) == 0 => {
            x.max_pool2d_with_stride(size("kernel"), size_or("stride", size("kernel")))
        }
        "global_avg_pool2d" => x.mean_keepdim((2, 3)),
        _ => bail!("node {}: this example has no {op} with these fields", node["name"]),
    }
}

/// A size, or one for each axis.
fn sizes(value: &Value) -> Vec<usize> {
    let numbers = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    numbers.iter().filter_map(Value::as_u64).map(|size| size as usize).collect()
}
