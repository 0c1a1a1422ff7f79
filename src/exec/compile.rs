//! From a graph to a list of layers.

use crate::exec::layer::{Layer, Operation};
use crate::exec::lowering::{Lowered, Plain, Weighted, channels_and_positions, lower, projection};
use crate::exec::memory::BufferValue;
use crate::exec::parameters::{LearnedParameter, RunningStatistics, Transposition};
use crate::kernels::Float;
use crate::kernels::attention::Attention;
use crate::kernels::dropout::Mask;
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::parameters::{self, Role};

/// A graph as layers.
#[derive(Debug)]
pub(in crate::exec) struct Compiled<T> {
    pub(in crate::exec) layers: Vec<Layer<T>>,
    pub(in crate::exec) values: Vec<BufferValue>,
    pub(in crate::exec) parameters: Vec<LearnedParameter<T>>,
    pub(in crate::exec) running: Vec<RunningStatistics<T>>,
    /// The value that holds the logits.
    pub(in crate::exec) output: usize,
    /// The value that holds each node's output, perhaps with what its reader makes of it.
    pub(in crate::exec) of_node: Vec<usize>,
}

/// What stands between the positions of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum Spacing {
    /// Nothing.
    Dense,
    /// Numbers that fill the channels up.
    Padded,
}

/// Whether several nodes may become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum Melting {
    /// ReLU melts into the layer before it where nobody else reads that; a flatten whose readers are linear layers costs nothing:
    /// their columns change order instead.
    Allowed,
    /// Every node's output is there as the graph has it, its channels last.
    Never,
}

/// Translates node after node.
pub(in crate::exec) fn compile<T: Float>(graph: &Graph, spacing: Spacing, melting: Melting) -> Compiled<T> {
    let mut compiler = Compiler::new(graph, spacing, melting);
    for (id, node) in graph.iter() {
        compiler.node(id, node);
    }
    compiler.finish()
}

/// What holds a node's output, and how its features are ordered inside, if not as outside.
type Held = (usize, Option<Transposition>);

#[derive(Debug)]
struct Compiler<'g, T> {
    graph: &'g Graph,
    spacing: Spacing,
    melting: Melting,
    readers: Vec<Vec<usize>>,
    /// By node.
    held: Vec<Held>,
    result: Compiled<T>,
}

impl<'g, T: Float> Compiler<'g, T> {
    fn new(graph: &'g Graph, spacing: Spacing, melting: Melting) -> Self {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (id, node) in graph.iter() {
            node.inputs.iter().for_each(|input| readers[input.0].push(id.0));
        }
        let result = Compiled {
            layers: Vec::new(),
            values: Vec::new(),
            parameters: Vec::new(),
            running: Vec::new(),
            output: 0,
            of_node: Vec::new(),
        };
        Self { graph, spacing, melting, readers, held: Vec::new(), result }
    }

    /// Adds what `node` needs, if anything, and notes where its output is.
    fn node(&mut self, id: NodeId, node: &Node) {
        let held = self.alias(id, node).unwrap_or_else(|| (self.layers(id, node), None));
        self.held.push(held);
    }

    /// What holds the output already, where the node needs no layer.
    fn alias(&self, id: NodeId, node: &Node) -> Option<Held> {
        let source = *node.inputs.first()?;
        if node.op == Op::Flatten {
            return self.free_flatten(source, id);
        }
        let [before, after] = [source, id].map(|id| channels_and_positions(self.graph.shape(id)));
        let melts = node.op == Op::Relu && self.melts(source);
        let never_drops = matches!(node.op, Op::Dropout { p } if p <= 0.0);
        let moves_nothing = matches!(node.op, Op::Reshape { .. }) && before == after;
        (melts || never_drops || moves_nothing).then_some(self.held[source.0])
    }

    /// Whether the only reader of `id` is a ReLU that its layer can apply itself.
    fn melts(&self, id: NodeId) -> bool {
        let op = &self.graph.node(id).op;
        let capable = matches!(op, Op::Linear { .. } | Op::BatchNorm { .. } | Op::Add) || op.convolution().is_some();
        let capable = capable && self.melting == Melting::Allowed;
        capable && matches!(self.readers[id.0][..], [only] if self.graph.nodes()[only].op == Op::Relu)
    }

    /// Whether the input may stay as it comes, channels first: nobody reads it as an image or a sequence.
    fn input_stays(&self) -> bool {
        self.readers[0].iter().all(|&reader| self.graph.nodes()[reader].op == Op::Flatten)
    }

    /// A flatten of `source` that needs no layer: the value itself and how its features are ordered inside.
    fn free_flatten(&self, source: NodeId, id: NodeId) -> Option<Held> {
        let (value, order) = self.held[source.0];
        let stays = source.0 == 0 && self.input_stays();
        let [channels, positions] = channels_and_positions(self.graph.shape(source));
        let is_image = positions > 1 && !stays;
        let order = if is_image { Transposition::new(channels, positions) } else { order };
        let linear = |&reader: &usize| matches!(self.graph.nodes()[reader].op, Op::Linear { .. });
        let readers = &self.readers[id.0];
        let is_row = order.is_none() && !(is_image && self.spacing == Spacing::Padded);
        let reorders = self.melting == Melting::Allowed && !readers.is_empty() && readers.iter().all(linear);
        let free = is_row || reorders;
        free.then_some((value, order))
    }

    /// Adds the layers of `node`; returns the value that holds its output.
    fn layers(&mut self, id: NodeId, node: &Node) -> usize {
        let inputs: Vec<usize> = node.inputs.iter().map(|input| self.held[input.0].0).collect();
        let operation = match lower(self.graph, id) {
            Lowered::Input { channels, positions } => {
                Operation::Input { channels: if self.input_stays() { 1 } else { channels }, pixels: positions }
            }
            Lowered::Plain(Plain::Add { .. }) => Operation::Plain(Plain::Add { relu: self.melts(id) }),
            Lowered::Plain(Plain::Dropout(mask)) => {
                Operation::Plain(Plain::Dropout(Mask { layer: self.result.layers.len(), ..mask }))
            }
            Lowered::Plain(plain) => Operation::Plain(plain),
            Lowered::Weighted(operation) => self.with_weights(id, node, operation),
            Lowered::Attention(sizes) => return self.attention(id, node, sizes, inputs[0]),
        };
        let [channels, positions] = channels_and_positions(self.graph.shape(id));
        let is_vector = matches!(operation, Operation::Input { .. }) && self.input_stays();
        let size = if is_vector { [channels * positions, 1] } else { [channels, positions] };
        self.push(operation, inputs, size)
    }

    /// The operation of a node with weights, its tensors registered.
    fn with_weights(&mut self, id: NodeId, node: &Node, operation: Weighted<T>) -> Operation<T> {
        let is_matrix = matches!(operation, Weighted::Linear(_));
        let order = if is_matrix { self.order_of_operand(node) } else { operation.transposition() };
        let features = self.graph.shape(id)[0];
        let is_norm = matches!(operation, Weighted::BatchNorm(_));
        let running = is_norm.then(|| self.register_running(node, features));
        let [weights, biases] = self.register(node, &[Role::Weight, Role::Embedding], &[Role::Bias], order);
        let (weight, bias, relu) = (weights.first().copied(), biases.first().copied(), self.melts(id));
        Operation::Weighted { operation, weight, bias, running, relu }
    }

    /// Projections, the attention between them, and its output projection.
    fn attention(&mut self, id: NodeId, node: &Node, sizes: Attention, x: usize) -> usize {
        let [channels, tokens] = channels_and_positions(self.graph.shape(id));
        let [matrices, biases] = self.register(node, &[Role::Projection], &[Role::ProjectionBias], None);
        // One matrix for queries, keys and values together, or one for each.
        let width = 3 * channels / matrices.len();
        let mut parts = Vec::new();
        for (index, &weight) in matrices.iter().enumerate() {
            let operation = linear([channels, width], weight, biases.get(index).copied());
            parts.push(self.push(operation, vec![x], [width, tokens]));
        }
        let qkv = if let [all] = parts[..] {
            all
        } else {
            let concat = Plain::Concat { channels: vec![width; parts.len()], all: 3 * channels };
            self.push(Operation::Plain(concat), parts, [3 * channels, tokens])
        };
        let between = Operation::Plain(Plain::Attention(sizes));
        let mixed = self.push(between, vec![qkv], [channels, tokens]);
        let [matrices, biases] = self.register(node, &[Role::OutputWeight], &[Role::OutputBias], None);
        let output = linear([channels, channels], matrices[0], biases.first().copied());
        self.push(output, vec![mixed], [channels, tokens])
    }

    /// Adds a layer that writes `[channels, positions]` of each example.
    fn push(&mut self, operation: Operation<T>, inputs: Vec<usize>, [channels, positions]: [usize; 2]) -> usize {
        let layer = self.result.layers.len();
        for &input in &inputs {
            self.result.values[input].last_reader = layer;
        }
        let upstream = inputs.iter().any(|&input| self.result.values[input].needs_gradient);
        let needs_gradient = upstream || matches!(operation, Operation::Weighted { .. });
        let (len, last_reader) = (channels * positions, layer);
        self.result.values.push(BufferValue { len, channels, producer: layer, last_reader, needs_gradient });
        let output = self.result.values.len() - 1;
        self.result.layers.push(Layer { operation, accumulate: vec![false; inputs.len()], inputs, output });
        output
    }

    /// How the features of what `node` reads are ordered inside.
    fn order_of_operand(&self, node: &Node) -> Option<Transposition> {
        node.inputs.first().and_then(|input| self.held[input.0].1)
    }

    /// Registers the trained tensors of `node` in the roles of weights and of biases; blocks of the weights are
    /// transposed as `order` says. Returns the positions of the weights and of the biases.
    fn register(
        &mut self,
        node: &Node,
        weights: &[Role],
        biases: &[Role],
        order: Option<Transposition>,
    ) -> [Vec<usize>; 2] {
        let mut places = [Vec::new(), Vec::new()];
        for parameter in parameters::of_node(node) {
            let role = parameter.role;
            let (of_role, order) = if weights.contains(&role) {
                (0, order)
            } else if biases.contains(&role) {
                (1, None)
            } else {
                continue;
            };
            places[of_role].push(self.result.parameters.len());
            self.result.parameters.push(LearnedParameter::new(parameter.name, parameter.shape, order));
        }
        places
    }

    /// Registers the running statistics of a BatchNorm; returns their position.
    fn register_running(&mut self, node: &Node, features: usize) -> usize {
        self.result.running.push(RunningStatistics::new(node.name.clone(), features));
        self.result.running.len() - 1
    }

    /// Notes which gradients are there already when a layer's turn comes in the backward pass.
    fn finish(mut self) -> Compiled<T> {
        let mut result = self.result;
        result.of_node = self.held.iter().map(|(value, _)| *value).collect();
        result.output = self.held.pop().map(|(value, _)| value).unwrap_or_default();
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

/// A matrix from `input` to `output` channels at every position.
fn linear<T>([input, output]: [usize; 2], weight: usize, bias: Option<usize>) -> Operation<T> {
    Operation::Weighted { operation: projection(input, output), weight: Some(weight), bias, running: None, relu: false }
}
