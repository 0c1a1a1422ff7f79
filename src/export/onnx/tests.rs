//! What is written is read back: the same weights, and a network that computes the same.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::fusion::Member;
use crate::fusion::reference::verify;
use crate::model::formats::onnx;
use crate::model::graph::{Node, Op};
use crate::model::parameters;
use crate::tensors::operation_cases::{Case, cases};
use crate::tensors::{Checkpoint, StateDict};

fn written(graph: &Graph, weights: &dyn Weights, normalize: Option<&Normalize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_onnx(graph, weights, normalize, &mut bytes).unwrap();
    bytes
}

/// The file as a checkpoint, with the network that it states.
fn read(bytes: &[u8]) -> (Checkpoint, Graph) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    let graph = serde_json::from_value(checkpoint.header().stated.clone().unwrap()).unwrap();
    (checkpoint, graph)
}

/// Whether the reader is known to refuse the operation: maxima over parts of different sizes are no single operator of ONNX.
fn is_refused(graph: &Graph) -> bool {
    let parts_differ = |node: &Node| match node.op {
        Op::AdaptiveMaxPool2d { output } => {
            let input = &graph.shape(node.inputs[0])[1..];
            output.iter().zip(input).any(|(output, input)| !input.is_multiple_of(*output))
        }
        _ => false,
    };
    graph.nodes().iter().any(parts_differ)
}

#[test]
fn every_operation_is_read_as_it_was_written() {
    let mut refused = 0;
    for case in cases::<f32>() {
        let weights = case.weights();
        let bytes = written(&case.graph(), &weights, None);
        assert_eq!(bytes, written(&case.graph(), &weights, None), "{}", case.name);
        if case.tensors.is_empty() {
            // No checkpoint: its network is all that there is.
            match onnx::read(&bytes) {
                Ok(model) => check(&case, &model.graph, &StateDict::default()),
                Err(error) => {
                    assert!(is_refused(&case.graph()), "{}: {error}", case.name);
                    refused += 1;
                }
            }
            continue;
        }
        let (checkpoint, graph) = read(&bytes);
        check(&case, &graph, &checkpoint);
        for (name, tensor) in &case.tensors {
            assert_eq!(checkpoint.f32(name).unwrap()[..], tensor.values, "{} {name}", case.name);
            assert_eq!(checkpoint.header().get(name).unwrap().shape, tensor.shape, "{} {name}", case.name);
        }
    }
    assert!(refused < 5, "{refused} are refused");
}

/// Both networks compute the same.
fn check(case: &Case<f32>, graph: &Graph, weights: &dyn Weights) {
    let names = |graph: &Graph| parameters::of_graph(graph).into_iter().map(|tensor| tensor.name).collect::<Vec<_>>();
    assert_eq!(names(graph), names(&case.graph()), "{}", case.name);
    let got = verify::reference(Member { graph, weights }, &case.inputs, case.batch).unwrap();
    assert_eq!(got.len(), case.outputs.len(), "{}", case.name);
    let most = got.iter().zip(&case.outputs).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
    assert!(most < 5e-6, "{}: {most}", case.name);
}

#[test]
fn what_cannot_be_written_is_refused_before_the_first_byte() {
    let graph = |out: usize| -> Graph {
        let nodes = json!([
            {"name": "input", "op": "input", "shape": [2]},
            {"name": "fc", "op": "linear", "in_features": 2, "out_features": out},
        ]);
        serde_json::from_value(json!({ "nodes": nodes })).unwrap()
    };
    let mut weights = StateDict::default();
    weights.insert_f32("fc.weight", &[1, 2], vec![0.5, 1.0]).unwrap();
    let write = |graph: &Graph, weights: &dyn Weights, normalize: Option<Normalize>| {
        let mut bytes = Vec::new();
        let result = write_onnx(graph, weights, normalize.as_ref(), &mut bytes);
        assert!(result.is_ok() || bytes.is_empty());
        result
    };
    write(&graph(1), &weights, None).unwrap();
    assert!(matches!(write(&graph(2), &weights, None), Err(OnnxExportError::Size { expected: 4, got: 2, .. })));
    assert!(matches!(write(&graph(1), &StateDict::default(), None), Err(OnnxExportError::Weights(_))));
    for (mean, std) in
        [(vec![0.0; 3], vec![1.0; 3]), (vec![0.0; 2], vec![1.0, 0.0]), (vec![f32::NAN, 0.0], vec![1.0; 2])]
    {
        let normalize = Some(Normalize { mean, std });
        assert!(matches!(write(&graph(1), &weights, normalize), Err(OnnxExportError::Normalize { .. })));
    }
}

/// As many weights as an ONNX file cannot hold, without a byte of them.
struct Huge;

impl Weights for Huge {
    fn f32(&self, name: &str) -> Result<std::borrow::Cow<'_, [f32]>, CheckpointError> {
        Err(CheckpointError::Missing(name.to_owned()))
    }

    fn elements(&self, _name: &str) -> Result<Elements<'_>, CheckpointError> {
        Ok(Elements::Bytes { bytes: zeros(), dtype: Dtype::F32 })
    }

    fn counter(&self, _name: &str) -> Option<i64> {
        None
    }
}

/// 2 GiB of a file that has none of them.
fn zeros() -> &'static [u8] {
    static MAP: std::sync::OnceLock<memmap2::Mmap> = std::sync::OnceLock::new();
    MAP.get_or_init(|| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 31).unwrap();
        crate::tensors::map(&file).unwrap()
    })
}

#[test]
fn a_file_of_two_gibibytes_is_refused() {
    let nodes = json!([
        {"name": "input", "op": "input", "shape": [1 << 14]},
        {"name": "fc", "op": "linear", "in_features": 1 << 14, "out_features": 1 << 15},
    ]);
    let graph: Graph = serde_json::from_value(json!({ "nodes": nodes })).unwrap();
    let mut bytes = Vec::new();
    let error = write_onnx(&graph, &Huge, None, &mut bytes).unwrap_err();
    assert!(matches!(error, OnnxExportError::TooLarge(_)) && bytes.is_empty(), "{error}");
}

#[test]
fn sixteen_bit_weights_stay_what_they_are_and_inputs_are_normalised() {
    let case = cases::<f32>().into_iter().find(|case| case.name.starts_with("conv2d")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    case.weights().save_as(&path, &BTreeMap::new(), |_| Dtype::F16).unwrap();
    let half = Checkpoint::open(&path).unwrap();
    let channels = case.graph().input_shape()[0];
    let (mean, std) = (vec![0.25; channels], vec![0.5; channels]);
    let normalize = Normalize { mean, std };
    let (checkpoint, graph) = read(&written(&case.graph(), &half, Some(&normalize)));
    for name in case.tensors.keys() {
        assert_eq!(checkpoint.header().get(name).unwrap().dtype, Dtype::F16);
        assert_eq!(checkpoint.f32(name).unwrap(), half.f32(name).unwrap());
    }
    let raw: Vec<f32> = case.inputs.iter().map(|value| value * 0.5 + 0.25).collect();
    let got = verify::reference(Member { graph: &graph, weights: &checkpoint }, &raw, case.batch).unwrap();
    let member = Member { graph: &case.graph(), weights: &half };
    let expected = verify::reference(member, &case.inputs, case.batch).unwrap();
    assert!(verify::Agreement::of(&expected, &got).max_difference < 1e-5);
}
