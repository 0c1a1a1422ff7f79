//! From a graph to a list of layers.

use crate::kernels::Float;
use crate::kernels::Geometry;
use crate::kernels::batch_norm::{Affine, Statistics};
use crate::kernels::conv::Conv;
use crate::kernels::linear::Linear;
use crate::model::graph::{Graph, Node, NodeId, Op, Shape, Window};
use crate::model::parameters::{self, Role};
use crate::train::network::CompileError;
use crate::train::network::layer::{Layer, Norm, Operation};
use crate::train::network::memory::Value;
use crate::train::network::parameters::{Parameter, Running, Transposition};

/// A graph as layers.
#[derive(Debug)]
pub(super) struct Compiled<T> {
    pub(super) layers: Vec<Layer<T>>,
    pub(super) values: Vec<Value>,
    pub(super) parameters: Vec<Parameter<T>>,
    pub(super) running: Vec<Running<T>>,
    /// The value that holds the logits.
    pub(super) output: usize,
}

/// Translates node after node. ReLU melts into the layer before it where nobody else reads that; a flatten whose readers
/// are linear layers costs nothing: their columns change order instead.
pub(super) fn compile<T: Float>(graph: &Graph) -> Result<Compiled<T>, CompileError> {
    let mut compiler = Compiler::new(graph);
    for (id, node) in graph.iter() {
        compiler.node(id, node)?;
    }
    Ok(compiler.finish())
}

#[derive(Debug)]
struct Compiler<'g, T> {
    graph: &'g Graph,
    readers: Vec<Vec<usize>>,
    /// For each node the value that holds its output.
    value_of: Vec<usize>,
    /// For each node how the features of its output are ordered inside, if not as outside.
    order_of: Vec<Option<Transposition>>,
    result: Compiled<T>,
}

impl<'g, T: Float> Compiler<'g, T> {
    fn new(graph: &'g Graph) -> Self {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (id, node) in graph.iter() {
            node.inputs.iter().for_each(|input| readers[input.0].push(id.0));
        }
        let result =
            Compiled { layers: Vec::new(), values: Vec::new(), parameters: Vec::new(), running: Vec::new(), output: 0 };
        Self { graph, readers, value_of: Vec::new(), order_of: Vec::new(), result }
    }

    /// Adds what `node` needs, if anything, and notes where its output is.
    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), CompileError> {
        let source = node.inputs.first().map(|input| (self.value_of[input.0], self.order_of[input.0]));
        let alias = match (&node.op, source) {
            (Op::Relu, Some(source)) if self.melts(node.inputs[0]) => Some(source),
            (Op::Flatten, Some((value, _))) => self.free_flatten(value, id, node),
            _ => None,
        };
        let (value, order) = match alias {
            Some(alias) => alias,
            None => (self.layer(id, node)?, None),
        };
        self.value_of.push(value);
        self.order_of.push(order);
        Ok(())
    }

    /// Whether the only reader of `id` is a ReLU that its layer can apply itself.
    fn melts(&self, id: NodeId) -> bool {
        let op = &self.graph.node(id).op;
        let capable = matches!(op, Op::Linear { .. } | Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Add);
        capable && matches!(self.readers[id.0][..], [only] if self.graph.nodes()[only].op == Op::Relu)
    }

    /// Whether the input may stay as it comes, channels first: nobody reads it as an image.
    fn input_stays(&self) -> bool {
        self.readers[0].iter().all(|&reader| self.graph.nodes()[reader].op == Op::Flatten)
    }

    /// A flatten of `value` that needs no layer: the value itself and how its features are ordered inside.
    fn free_flatten(&self, value: usize, id: NodeId, node: &Node) -> Option<(usize, Option<Transposition>)> {
        let stays = node.inputs[0].0 == 0 && self.input_stays();
        let order = match self.graph.shape(node.inputs[0])[..] {
            [channels, h, w] if !stays => Transposition::new(channels, h * w),
            _ => self.order_of[node.inputs[0].0],
        };
        let linear = |&reader: &usize| matches!(self.graph.nodes()[reader].op, Op::Linear { .. });
        let readers = &self.readers[id.0];
        let free = order.is_none() || !readers.is_empty() && readers.iter().all(linear);
        free.then_some((value, order))
    }

    /// Adds the layer of `node`; returns the value that it writes.
    fn layer(&mut self, id: NodeId, node: &Node) -> Result<usize, CompileError> {
        let operation = self.operation(id, node)?;
        let inputs: Vec<usize> = node.inputs.iter().map(|input| self.value_of[input.0]).collect();
        let layer = self.result.layers.len();
        for &input in &inputs {
            self.result.values[input].last_reader = layer;
        }
        let upstream = inputs.iter().any(|&input| self.result.values[input].needs_gradient);
        self.result.values.push(Value {
            len: self.graph.shape(id).iter().product(),
            producer: layer,
            last_reader: layer,
            needs_gradient: upstream || node.op.has_parameters(),
        });
        let output = self.result.values.len() - 1;
        self.result.layers.push(Layer { operation, accumulate: vec![false; inputs.len()], inputs, output });
        Ok(output)
    }

    fn operation(&mut self, id: NodeId, node: &Node) -> Result<Operation<T>, CompileError> {
        let relu = self.melts(id);
        let operand = node.inputs.first().map(|input| self.graph.shape(*input).clone()).unwrap_or_default();
        let (channels, pixels) = channels_and_pixels(&operand);
        if graph_has_sequences(self.graph, id) {
            return Err(untrained(node));
        }
        Ok(match &node.op {
            Op::Input { shape } => {
                let (channels, pixels) = channels_and_pixels(shape);
                let channels = if self.input_stays() { 1 } else { channels };
                Operation::Input { channels, pixels }
            }
            Op::Linear { in_features, out_features, .. } if operand.len() == 1 => {
                let (weight, bias) = self.weight_and_bias(node, self.order_of[node.inputs[0].0]);
                Operation::Linear { sizes: Linear { input: *in_features, output: *out_features }, weight, bias, relu }
            }
            Op::Conv2d { in_channels, out_channels, group_width: None, window, .. } if window.dilation == [1, 1] => {
                let order = Transposition::new(*in_channels, window.kernel[0] * window.kernel[1]);
                let (weight, bias) = self.weight_and_bias(node, order);
                let sizes = Conv { geometry: self.geometry(&operand, id, window), out_channels: *out_channels };
                Operation::Conv { sizes, weight, bias, relu }
            }
            Op::BatchNorm { features, eps } => {
                let (weight, bias) = self.weight_and_bias(node, None);
                self.result.running.push(Running::new(node.name.clone(), *features));
                let running = self.result.running.len() - 1;
                let (statistics, affine) = (Statistics::default(), Affine::default());
                let norm = Norm { eps: *eps, running, statistics, affine };
                Operation::BatchNorm { norm, weight, bias: bias.unwrap_or(weight), relu }
            }
            Op::Relu => Operation::Relu,
            Op::MaxPool2d { window, ceil_mode: false } if window.dilation == [1, 1] => {
                Operation::MaxPool { geometry: self.geometry(&operand, id, window), winners: Vec::new() }
            }
            Op::AvgPool2d { window, ceil_mode: false, count_include_pad: true } => {
                Operation::AvgPool { geometry: self.geometry(&operand, id, window) }
            }
            Op::GlobalAvgPool2d => Operation::GlobalAvgPool { channels, pixels },
            Op::Flatten => Operation::ChannelsFirst { channels, pixels },
            Op::Add => Operation::Add { relu },
            _ => return Err(untrained(node)),
        })
    }

    /// Registers the trained tensors of `node`; the weight's blocks are transposed as `order` says.
    fn weight_and_bias(&mut self, node: &Node, order: Option<Transposition>) -> (usize, Option<usize>) {
        let first = self.result.parameters.len();
        let mut bias = None;
        for parameter in parameters::of_node(node) {
            let order = match parameter.role {
                Role::Weight => order,
                Role::Bias => {
                    bias = Some(self.result.parameters.len());
                    None
                }
                _ => continue,
            };
            self.result.parameters.push(Parameter::new(parameter.name, parameter.shape, order));
        }
        (first, bias)
    }

    fn geometry(&self, operand: &Shape, id: NodeId, window: &Window) -> Geometry {
        let size = |shape: &Shape| [shape[1], shape[2]];
        Geometry {
            channels: operand[0],
            input: size(operand),
            output: size(self.graph.shape(id)),
            kernel: window.kernel,
            stride: window.stride,
            padding: window.padding,
        }
    }

    /// Notes which gradients are there already when a layer's turn comes in the backward pass.
    fn finish(mut self) -> Compiled<T> {
        let mut result = self.result;
        result.output = self.value_of.pop().unwrap_or_default();
        result.values[result.output].last_reader = result.layers.len();
        let mut written = vec![false; result.values.len()];
        for layer in result.layers.iter_mut().rev() {
            for (&input, accumulate) in layer.inputs.iter().zip(&mut layer.accumulate) {
                *accumulate = std::mem::replace(&mut written[input], true);
            }
        }
        result
    }
}

/// Whether an operand or the output of `id` is a sequence.
fn graph_has_sequences(graph: &Graph, id: NodeId) -> bool {
    graph.node(id).inputs.iter().chain([&id]).any(|&id| graph.shape(id).len() == 2)
}

fn untrained(node: &Node) -> CompileError {
    CompileError::Untrained { node: node.name.clone(), op: format!("{:?}", node.op) }
}

fn channels_and_pixels(shape: &Shape) -> (usize, usize) {
    match shape[..] {
        [channels, h, w] => (channels, h * w),
        _ => (1, shape.iter().product()),
    }
}
