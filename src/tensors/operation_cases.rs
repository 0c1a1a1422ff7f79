//! Every operation as PyTorch computes it (`tests/fixtures/ops`), for the tests of whatever runs or writes operations.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::StateDict;
use crate::model::graph::Graph;
use crate::model::graph::json::parse;

/// A small network of one operation, mostly; its values are read as `T`.
#[derive(Deserialize)]
pub(crate) struct Case<T> {
    pub(crate) name: String,
    /// The network's JSON form.
    #[serde(rename = "graph")]
    pub(crate) form: Value,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    pub(crate) batch: usize,
    pub(crate) inputs: Vec<T>,
    pub(crate) outputs: Vec<T>,
    /// None where training draws by chance.
    pub(crate) gradients: Option<BTreeMap<String, Vec<T>>>,
}

/// A tensor of weights.
#[derive(Deserialize)]
pub(crate) struct StoredTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// All of them.
pub(crate) fn cases<T: DeserializeOwned>() -> Vec<Case<T>> {
    #[derive(Deserialize)]
    struct Fixture<T> {
        cases: Vec<Case<T>>,
    }
    let text = include_str!("../../tests/fixtures/ops/ops.json");
    serde_json::from_str::<Fixture<T>>(text).expect("the fixture").cases
}

impl<T> Case<T> {
    /// The network.
    pub(crate) fn graph(&self) -> Graph {
        serde_json::from_value(self.form.clone()).expect("a network")
    }

    /// The network with one factor per channel of its input, a layer scale `input`, and all outputs as a vector; with its weights.
    pub(crate) fn framed(&self) -> (Graph, StateDict) {
        let mut nodes = self.form["nodes"].as_array().expect("nodes").clone();
        let channels = nodes[0]["shape"][0].clone();
        nodes[0]["name"] = json!("raw");
        nodes.insert(1, json!({"name": "input", "op": "layer_scale", "features": channels}));
        nodes.push(json!({"name": "all", "op": "flatten"}));
        let graph = parse(&json!({"nodes": nodes})).expect("a network");
        let mut weights = self.weights();
        let channels = graph.input_shape()[0];
        weights.insert_f32("input", &[channels], vec![1.0; channels]).expect("a tensor");
        (graph, weights)
    }

    /// Its weights.
    pub(crate) fn weights(&self) -> StateDict {
        let mut weights = StateDict::default();
        for (name, tensor) in &self.tensors {
            weights.insert_f32(name, &tensor.shape, tensor.values.clone()).expect("a tensor");
        }
        weights
    }
}
