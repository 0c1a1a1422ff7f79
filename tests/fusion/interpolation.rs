//! Neuron interpolation against `tests/fixtures/interpolation/make.py`, which assigns units by trying every order.

use engraft::exec::statistics::Processor;
use engraft::fusion::calibration::{Sampling, UnlabelledInputs};
use engraft::fusion::interpolate::{InterpolateOptions, interpolate};
use engraft::fusion::{Ensemble, Member};
use engraft::model::graph::{Graph, Node, NodeId, Op};
use engraft::settings::Grouping;
use engraft::tensors::{StateDict, Weights};
use serde::Deserialize;

/// Weight and bias of each layer.
type Layers = Vec<[Vec<f32>; 2]>;

#[derive(Deserialize)]
struct Fixture {
    widths: Vec<usize>,
    ridge: f64,
    inputs: Vec<f32>,
    members: Vec<Layers>,
    fused: Layers,
}

/// Rows of inputs in memory.
struct InputTable {
    values: Vec<f32>,
    row_len: usize,
}

impl UnlabelledInputs for InputTable {
    fn len(&self) -> usize {
        self.values.len() / self.row_len
    }

    fn fill(&self, indices: &[usize], inputs: &mut [f32]) {
        for (target, index) in inputs.chunks_exact_mut(self.row_len).zip(indices) {
            target.copy_from_slice(&self.values[index * self.row_len..][..self.row_len]);
        }
    }
}

/// Linear layers with ReLU between them.
fn mlp(widths: &[usize]) -> Graph {
    let mut ops = vec![("input".to_owned(), Op::Input { shape: vec![widths[0]] })];
    for (index, pair) in widths.windows(2).enumerate() {
        if index > 0 {
            ops.push((format!("relu{index}"), Op::Relu));
        }
        ops.push((format!("fc{index}"), Op::Linear { in_features: pair[0], out_features: pair[1], bias: true }));
    }
    let node = |(index, (name, op)): (usize, (String, Op))| Node {
        name,
        op,
        inputs: index.checked_sub(1).map(NodeId).into_iter().collect(),
    };
    Graph::new(ops.into_iter().enumerate().map(node).collect()).expect("a network")
}

fn state(layers: &Layers) -> StateDict {
    let mut state = StateDict::default();
    for (index, [weight, bias]) in layers.iter().enumerate() {
        let shape = [bias.len(), weight.len() / bias.len()];
        state.insert_f32(&format!("fc{index}.weight"), &shape, weight.clone()).expect("a matrix");
        state.insert_f32(&format!("fc{index}.bias"), &shape[..1], bias.clone()).expect("a vector");
    }
    state
}

#[test]
fn assignment_and_fits_are_those_of_a_plain_computation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/interpolation/hungarian.json");
    let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("its form");
    let graph = mlp(&fixture.widths);
    let states: Vec<StateDict> = fixture.members.iter().map(state).collect();
    let members = states.iter().map(|weights| Member { graph: &graph, weights }).collect();
    let ensemble = Ensemble::new(members).expect("one topology");
    let inputs = InputTable { values: fixture.inputs, row_len: fixture.widths[0] };
    let sampling = Sampling { samples: Some(inputs.len()), positions: 1, seed: 0 };
    let options = InterpolateOptions { sampling, grouping: Grouping::Hungarian, ridge: Some(fixture.ridge) };
    let fused =
        interpolate(&ensemble, &graph, &inputs, &options, &Processor, &mut |_| true).expect("a fused network").weights;
    let expected = state(&fixture.fused);
    for name in expected.names() {
        let (expected, got) = (expected.f32(name).expect("there"), fused.f32(name).expect("there"));
        let scale = expected.iter().fold(0.0, |scale: f32, value| scale.max(value.abs()));
        for (expected, got) in expected.iter().zip(&*got) {
            assert!((expected - got).abs() < 2e-4 * scale, "{name}: expected {expected}, got {got}");
        }
    }
}
