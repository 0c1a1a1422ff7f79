//! A network as PyTorch source: one readable `nn.Module` of the very widths, with the names of the `state_dict`, for networks that no
//! library builds.

mod forward;
mod modules;
mod names;

use std::fmt::Write as _;

use super::ExportOptions;
use crate::domain::problem::{Code, Problem};
use crate::model::graph::{Graph, Op};
use crate::model::parameters;
use crate::settings::Normalize;
use forward::Forward;
use modules::Modules;

/// Most names below one another: the parser of Python refuses deeper brackets.
const MAX_DEPTH: usize = 40;

/// The source of a module that computes `graph`.
///
/// # Errors
/// [`Code::InvalidRequest`] where names are nested too deep for a source, or `normalize` does not fit the network's input.
pub fn source(graph: &Graph, options: &ExportOptions) -> Result<String, Problem> {
    let deepest = parameters::of_graph(graph).into_iter().max_by_key(|tensor| depth(&tensor.name));
    if let Some(tensor) = deepest.filter(|tensor| depth(&tensor.name) > MAX_DEPTH) {
        let detail =
            format!("tensor `{}`: expected at most {MAX_DEPTH} names below one another for a source", tensor.name);
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let modules = Modules::of(graph);
    let forward = Forward::of(graph, &modules);
    let normalize = options.normalize.as_ref().map(|normalize| normalization(graph, normalize)).transpose()?;
    let mut parts = vec![head(graph, options)];
    if let Some((constants, _)) = &normalize {
        parts.push(constants.clone());
    }
    parts.extend(forward.helpers().into_iter().map(str::to_owned));
    parts.extend(modules.helper().map(str::to_owned));
    parts.push(format!(
        "class Network(nn.Module):\n    \"\"\"Modules are named as in the state_dict.\"\"\"\n\n    def __init__(self):\n        super().__init__()\n{}\n    \
         def forward(self, x):\n{}",
        modules.statements(),
        forward.statements()
    ));
    parts.extend(normalize.map(|(_, function)| function));
    parts.push(LOAD.to_owned());
    Ok(parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n\n") + "\n")
}

fn depth(name: &str) -> usize {
    name.split('.').count()
}

/// The docstring and the imports.
fn head(graph: &Graph, options: &ExportOptions) -> String {
    let weights: usize = parameters::of_graph(graph)
        .iter()
        .filter(|tensor| !tensor.role.is_statistic())
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum();
    let sizes = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let (input, output) = (sizes(graph.input_shape()), sizes(graph.shape(graph.output())));
    let file = options.weights.as_deref().unwrap_or("fused.safetensors");
    let call = if options.normalize.is_some() { "normalize(inputs)" } else { "inputs" };
    let imported = if options.normalize.is_some() { "load, normalize" } else { "load" };
    format!(
        "\"\"\"A network of {weights} weights, as engraft knows it.\n\n    from model import {imported}\n\n    network = load({})\n    \
         outputs = network({call})  # [N, {output}], for inputs of shape [N, {input}]\n\"\"\"\n\nimport torch\n{}from torch import nn",
        names::quoted(file),
        if graph.nodes().iter().any(|node| needs_functional(&node.op)) {
            "import torch.nn.functional as F\n"
        } else {
            ""
        },
    )
}

/// Whether an operation is called from `torch.nn.functional`.
fn needs_functional(op: &Op) -> bool {
    let other = matches!(
        op,
        Op::Input { .. }
            | Op::Sigmoid
            | Op::Tanh
            | Op::Softmax
            | Op::GlobalAvgPool2d
            | Op::Flatten
            | Op::Reshape { .. }
            | Op::Add
            | Op::Multiply
            | Op::Concat
            | Op::Scale { .. }
            | Op::Zeros { .. }
            | Op::TokenMean
            | Op::TokenSelect { .. }
    );
    !other && (!op.has_parameters() || matches!(op, Op::Attention { .. }))
}

/// The numbers of a normalisation, and the function that applies it.
fn normalization(graph: &Graph, normalize: &Normalize) -> Result<(String, String), Problem> {
    let (shape, channels) = (graph.input_shape(), normalize.mean.len());
    if channels != normalize.std.len() || channels == 0 || !shape[0].is_multiple_of(channels) {
        let detail = format!(
            "expected a mean and a standard deviation for each of the {} channels of the input, got {channels} and {}",
            shape[0],
            normalize.std.len()
        );
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let numbers = |values: &[f32]| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ");
    let constants = format!(
        "# Of each channel; bytes of images are divided by 255 before.\nMEAN = [{}]\nSTD = [{}]",
        numbers(&normalize.mean),
        numbers(&normalize.std)
    );
    let mut axes = String::new();
    if channels > 1 && channels < shape[0] {
        // The channels of an image one after another.
        let _ = write!(axes, ".repeat_interleave({})", shape[0] / channels);
    }
    if shape.len() > 1 {
        let _ = write!(axes, ".view(-1{})", ", 1".repeat(shape.len() - 1));
    }
    let function = format!(
        "def normalize(inputs):\n    \"\"\"Inputs as the network needs them.\"\"\"\n    mean, std = \
         (torch.tensor(values, device=inputs.device){axes} for values in (MEAN, STD))\n    return (inputs - mean) / std"
    );
    Ok((constants, function))
}

const LOAD: &str = "\
def load(path):
    \"\"\"The network with the weights of a safetensors file, ready to be used.\"\"\"
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(path))
    return network.eval()";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::json::parse;
    use serde_json::json;

    fn network(first: &str) -> Graph {
        let nodes = json!({"nodes": [
            {"name": "input", "op": "input", "shape": [3, 4, 4]},
            {"name": first, "op": "conv2d", "in_channels": 3, "out_channels": 4, "kernel": 3, "padding": 1, "bias": true},
            {"name": "act", "op": "relu"},
            {"name": "stage.0", "op": "conv2d", "in_channels": 4, "out_channels": 4, "kernel": 1},
            {"name": "sum", "op": "add", "inputs": ["stage.0", "act"]},
            {"name": "pool", "op": "global_avg_pool2d"},
            {"name": "flat", "op": "flatten"},
            {"name": "fc", "op": "linear", "in_features": 4, "out_features": 2, "bias": true},
        ]});
        parse(&nodes).expect("a network")
    }

    #[test]
    fn a_source_reads_like_what_a_person_writes() {
        let normalize = Some(Normalize { mean: vec![0.5], std: vec![0.25] });
        let text = source(&network("stem"), &ExportOptions { normalize, weights: None, ..ExportOptions::default() })
            .expect("a source");
        for part in [
            "outputs = network(normalize(inputs))  # [N, 2], for inputs of shape [N, 3, 4, 4]\n",
            "MEAN = [0.5]\nSTD = [0.25]\n",
            "        self.stem = nn.Conv2d(3, 4, 3, padding=1)\n        self.stage = nn.ModuleDict({\n            \"0\": nn.Conv2d(4, 4, 1, bias=False),\n        })\n",
            "    def forward(self, x):\n        x1 = F.relu(self.stem(x))\n        x = self.stage[\"0\"](x1)\n        x = x + x1\n        x = x.mean((2, 3), keepdim=True)\n        \
             x = x.flatten(1)\n        return self.fc(x)\n",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
    }

    #[test]
    fn names_are_written_as_texts_where_they_are_no_names() {
        let of = |first: &str| source(&network(first), &ExportOptions::default()).expect("a source");
        assert!(
            of("0").contains("self.add_module(\"0\", nn.Conv2d(") && of("0").contains("self.get_submodule(\"0\")(x)")
        );
        assert!(of("a.keys").contains("class Parts(nn.Module)"), "nn.ModuleDict has a method of this name");
        let hostile = "x\"]); import os #\n";
        assert!(of(hostile).contains(r#"self.add_module("x\"]); import os #\n", nn.Conv2d("#));
        let deep = "a.".repeat(50) + "b";
        assert!(source(&network(&deep), &ExportOptions::default()).is_err());
        let wrong = ExportOptions {
            normalize: Some(Normalize { mean: vec![0.5; 2], std: vec![0.5; 2] }),
            weights: None,
            ..ExportOptions::default()
        };
        assert!(source(&network("stem"), &wrong).is_err());
    }
}
