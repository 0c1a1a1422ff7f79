//! What the writers of all operations share: names, constants, weights, and outputs in either order of their axes.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{self, Attribute, data_type};
use super::{INPUT, OUTPUT, OnnxExportError, dtype};
use crate::model::formats::protobuf::put_bytes;
use crate::model::graph::{Graph, NodeId};
use crate::model::header::Dtype;
use crate::model::parameters;
use crate::settings::Normalize;
use crate::tensors::Weights;

/// A tensor of constants in the file.
#[derive(Debug)]
pub(super) struct Initializer {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) source: ConstantSource,
}

/// Where a constant's data come from.
#[derive(Debug)]
pub(super) enum ConstantSource {
    /// From the weights, by name.
    Weight(String),
    /// Little endian.
    Bytes(Vec<u8>),
}

/// The order of a value's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AxisOrder {
    /// N x C x positions, as convolutions read them.
    ChannelsFirst,
    /// N x positions x C, as matrix products read them.
    ChannelsLast,
}

use AxisOrder::{ChannelsFirst, ChannelsLast};

/// The names of a node's output in the orders in which it is there already.
#[derive(Debug, Clone, Default)]
struct Output {
    first: Option<String>,
    last: Option<String>,
}

/// Collects a graph's operators and constants.
pub(super) struct Emitter<'a> {
    pub(super) graph: &'a Graph,
    weights: &'a dyn Weights,
    names: BTreeSet<String>,
    nodes: Vec<u8>,
    initializers: Vec<Initializer>,
    /// Constants by what they hold.
    constants: BTreeMap<Vec<u8>, String>,
    outputs: Vec<Output>,
    /// The node that is being written: its operators are named after it.
    scope: String,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(graph: &'a Graph, weights: &'a dyn Weights) -> Self {
        let names = [INPUT, OUTPUT].map(str::to_owned).into();
        let (nodes, initializers, constants) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { graph, weights, names, nodes, initializers, constants, outputs: Vec::new(), scope: String::new() }
    }

    /// Writes all nodes.
    pub(super) fn run(&mut self, normalize: Option<&Normalize>) -> Result<(), OnnxExportError> {
        let graph = self.graph;
        // The names of the `state_dict` come first.
        for parameter in parameters::of_graph(graph) {
            self.add_weight(&parameter.name, &parameter.shape)?;
        }
        for (id, node) in graph.iter() {
            node.name.clone_into(&mut self.scope);
            if id.0 == 0 {
                let input = self.normalized(normalize)?;
                self.put(ChannelsFirst, input);
            } else {
                self.operation(id, node)?;
            }
        }
        let output = self.get(graph.output(), ChannelsFirst);
        let node = message::node("Identity", OUTPUT, &[&output], &[OUTPUT], &[]);
        put_bytes(&mut self.nodes, 1, &node);
        Ok(())
    }

    /// The operators, each as a field of the graph, and the constants.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<Initializer>) {
        (self.nodes, self.initializers)
    }

    fn normalized(&mut self, normalize: Option<&Normalize>) -> Result<String, OnnxExportError> {
        let Some(Normalize { mean, std }) = normalize else { return Ok(INPUT.to_owned()) };
        let channels = self.graph.input_shape()[0];
        let finite = mean.iter().chain(std).all(|value| value.is_finite()) && !std.contains(&0.0);
        let count = mean.len();
        if !finite || count == 0 || std.len() != count || !channels.is_multiple_of(count) {
            return Err(OnnxExportError::Normalize { channels, mean: mean.clone(), std: std.clone() });
        }
        let shape = self.by_channel(self.graph.input_shape().len() - 1);
        // One for all, or one for each channel of an image whose values are the network's channels.
        let [mean, std] = [mean, std].map(|values| -> Vec<f32> {
            values.iter().flat_map(|value| std::iter::repeat_n(*value, channels / count)).collect()
        });
        let (mean, std) = (self.floats("mean", &shape, &mean), self.floats("std", &shape, &std));
        let centred = self.node("Sub", &[INPUT, &mean], &[]);
        Ok(self.node("Div", &[&centred, &std], &[]))
    }

    /// The shape of one value for each input channel before `positions` axes.
    fn by_channel(&self, positions: usize) -> Vec<usize> {
        [vec![self.graph.input_shape()[0]], vec![1; positions]].concat()
    }

    /// A name like `wish` that nothing else has.
    fn unique(&mut self, wish: &str) -> String {
        let mut name = wish.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wish}_{count}");
        }
        name
    }

    /// Writes an operator with one output; returns that output's name.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = self.unique(&format!("{}/{op}", self.scope));
        let node = message::node(op, &name, inputs, &[&name], attributes);
        put_bytes(&mut self.nodes, 1, &node);
        name
    }

    /// Writes a split of the last axis into equal parts of the sizes in `sizes`.
    pub(super) fn split_last(&mut self, value: &str, sizes: [usize; 3]) -> [String; 3] {
        let name = self.unique(&format!("{}/Split", self.scope));
        let parts = ["query", "key", "value"].map(|part| self.unique(&format!("{name}/{part}")));
        let sizes = self.integers(&message::integers(&sizes));
        let outputs = [0, 1, 2].map(|part: usize| parts[part].as_str());
        let node = message::node("Split", &name, &[value, &sizes], &outputs, &[("axis", Attribute::Integer(-1))]);
        put_bytes(&mut self.nodes, 1, &node);
        parts
    }

    /// A constant, which is in the file once.
    fn constant(&mut self, wish: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> String {
        let key = [format!("{dtype:?} {shape:?} ").into_bytes(), bytes.clone()].concat();
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = self.unique(wish);
        self.constants.insert(key, name.clone());
        let source = ConstantSource::Bytes(bytes);
        self.initializers.push(Initializer { name: name.clone(), dtype, shape: shape.to_vec(), source });
        name
    }

    /// A vector of 64-bit integers.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant("sizes", Dtype::I64, &[values.len()], bytes)
    }

    /// A single 64-bit integer, without axes.
    pub(super) fn integer(&mut self, value: i64) -> String {
        self.constant("index", Dtype::I64, &[], value.to_le_bytes().to_vec())
    }

    /// A single float, without axes.
    pub(super) fn scalar(&mut self, value: f64) -> String {
        self.floats("scalar", &[], &[value as f32])
    }

    /// A tensor of floats.
    pub(super) fn floats(&mut self, wish: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(wish, Dtype::F32, shape, bytes)
    }

    fn add_weight(&mut self, name: &str, shape: &[usize]) -> Result<(), OnnxExportError> {
        let elements = self.weights.elements(name)?;
        let expected = shape.iter().product();
        if elements.len() != expected {
            return Err(OnnxExportError::Size { name: name.to_owned(), expected, got: elements.len() });
        }
        let source = ConstantSource::Weight(name.to_owned());
        let dtype = dtype(&elements);
        let own = self.unique(name);
        self.initializers.push(Initializer { name: own, dtype, shape: shape.to_vec(), source });
        Ok(())
    }

    /// The tensors of the node `id` as f32, in the order of [`parameters::of_node`].
    pub(super) fn weights(&mut self, id: NodeId) -> Vec<String> {
        let graph = self.graph;
        let wanted = parameters::of_node(graph.node(id)).into_iter();
        let wanted: Vec<(String, Dtype)> = wanted
            .filter_map(|parameter| {
                let is_it =
                    |it: &&Initializer| matches!(&it.source, ConstantSource::Weight(name) if *name == parameter.name);
                self.initializers.iter().find(is_it).map(|found| (found.name.clone(), found.dtype))
            })
            .collect();
        let as_f32 = |(name, dtype): (String, Dtype)| match dtype {
            Dtype::F32 => name,
            _ => self.node("Cast", &[&name], &[("to", Attribute::Integer(data_type(Dtype::F32)))]),
        };
        wanted.into_iter().map(as_f32).collect()
    }

    /// A value with as many axes of the given sizes; 0 keeps the size of the batch.
    pub(super) fn reshaped(&mut self, value: &str, sizes: &[i64]) -> String {
        let sizes = self.integers(sizes);
        self.node("Reshape", &[value, &sizes], &[])
    }

    /// Says that `value` is the output of the next node.
    pub(super) fn put(&mut self, order: AxisOrder, value: String) {
        let mut output = Output::default();
        // A vector has no positions to go before or behind.
        if self.graph.shape(NodeId(self.outputs.len())).len() == 1 {
            output = Output { first: Some(value.clone()), last: Some(value) };
        } else if order == ChannelsFirst {
            output.first = Some(value);
        } else {
            output.last = Some(value);
        }
        self.outputs.push(output);
    }

    /// Says that the next node's output is that of `id`.
    pub(super) fn put_same(&mut self, id: NodeId) {
        self.outputs.push(self.outputs[id.0].clone());
    }

    /// The order in which most of these nodes' outputs are there.
    pub(super) fn order(&self, ids: &[NodeId]) -> AxisOrder {
        let count = |has: fn(&Output) -> bool| ids.iter().filter(|id| has(&self.outputs[id.0])).count();
        let (first, last) = (count(|output| output.first.is_some()), count(|output| output.last.is_some()));
        if last > first { ChannelsLast } else { ChannelsFirst }
    }

    /// The output of the node `id` in this order.
    pub(super) fn get(&mut self, id: NodeId, order: AxisOrder) -> String {
        let Output { first, last } = self.outputs[id.0].clone();
        let axes = self.graph.shape(id).len() as i64;
        let (have, other, moved) = match order {
            ChannelsFirst => (first, last, [vec![0, axes], (1..axes).collect()].concat()),
            ChannelsLast => (last, first, [vec![0], (2..=axes).collect(), vec![1]].concat()),
        };
        match (have, other) {
            (Some(value), _) => value,
            (None, other) => {
                let other = other.unwrap_or_default();
                let value = self.node("Transpose", &[&other], &[("perm", Attribute::Integers(moved))]);
                let output = &mut self.outputs[id.0];
                *if order == ChannelsFirst { &mut output.first } else { &mut output.last } = Some(value.clone());
                value
            }
        }
    }
}
