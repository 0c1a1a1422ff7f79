//! Every operation against what PyTorch computes; see `tests/fixtures/ops`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fusion::Member;
use crate::fusion::reference::verify;
use crate::model::graph::Graph;
use crate::tensors::StateDict;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    graph: Graph,
    tensors: BTreeMap<String, Stored>,
    batch: usize,
    inputs: Vec<f32>,
    outputs: Vec<f32>,
}

#[derive(Deserialize)]
struct Stored {
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[test]
fn every_operation_computes_what_pytorch_does() {
    let fixture: Fixture = serde_json::from_str(include_str!("../../../tests/fixtures/ops/ops.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &fixture.cases {
        let mut weights = StateDict::default();
        for (name, tensor) in &case.tensors {
            weights.insert_f32(name, &tensor.shape, tensor.values.clone()).unwrap();
        }
        let member = Member { graph: &case.graph, weights: &weights };
        let got = verify::reference(member, &case.inputs, case.batch).unwrap();
        assert_eq!(got.len(), case.outputs.len(), "{}", case.name);
        let most = got.iter().zip(&case.outputs).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        if most.is_nan() || most > 5e-6 {
            wrong.push(format!("{}: {most}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(fixture.cases.len() > 70);
}
