//! Node by node from the operators of a file to operations: constants are computed, reshapes and transposes become views, and
//! everything else an operation of the network or a part of one that later nodes complete.

use std::collections::{BTreeMap, BTreeSet};

use super::constant::Constant;
use super::error::OnnxError;
use super::file::{File, FileNode, FileTensor};
use super::functions::Function;
use super::size::{Size, shown};
use super::view::{Atom, Place, View, merged, whole};
use super::{folding, layers, shapes, tokens};
use crate::model::graph::{MAX_ELEMENTS, MAX_NODES, Op};

/// Operations on one value among which an equal one is looked for.
const REMEMBERED: usize = 8;

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// Independent of the input.
    Constant(Constant<'a>),
    /// Computed from the input.
    Live(View),
    /// The parts of another value.
    Parts(Vec<Value<'a>>),
}

/// What an operation computes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// An operation of the graph.
    Graph(Op),
    /// A function of each value, or of two operands' values; what it is a part of is recognised where it is used.
    Function(Function),
    /// A factor and a summand for each channel, which are its weights.
    Affine,
    /// A rim around each example's positions; before and behind each axis.
    Padded { begin: Vec<usize>, end: Vec<usize>, rim: Rim },
    /// Mean over the channels at each position.
    ChannelMean,
    /// A value without its mean over the channels.
    Centred,
    /// Mean of a [`Kind::Centred`]'s squares over the channels.
    ChannelVariance,
    /// Mean 0 and variance 1 over the channels.
    Standardised { eps: f64 },
    /// The same, with a factor for each channel.
    Scaled { eps: f64 },
    /// Mean 0 and variance 1 over each group's channels and all positions.
    GroupStandardised { groups: usize, eps: f64 },
    /// The same, with a factor for each channel.
    GroupScaled { groups: usize, eps: f64 },
    /// Products of queries and keys, heads x T x T; where each head's channels begin in their operands.
    Scores { width: usize, starts: [usize; 2], factor: f64 },
    /// Scores that sum up to 1 for each query.
    Probabilities,
    /// Values mixed by probabilities, C x T.
    Mixed { heads: usize, starts: [usize; 3] },
}

/// What stands in a rim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rim {
    Zeros,
    Lowest,
    Reflected,
}

/// An operation with its operands, which come before it.
#[derive(Debug, Clone)]
pub(super) struct Operation<'a> {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<usize>,
    /// Shape of one example, channels first.
    pub(super) shape: Vec<usize>,
    /// Its tensors, as the graph's operation has them.
    pub(super) weights: Vec<Constant<'a>>,
    /// The projections that an attention has taken in.
    pub(super) parts: Vec<usize>,
    /// The file's node that it came from.
    pub(super) origin: usize,
}

/// Reads the nodes of one file.
pub(super) struct Reader<'a> {
    pub(super) file: &'a File<'a>,
    /// All tensors of the file, those of nodes behind the others.
    pub(super) tensors: Vec<&'a FileTensor<'a>>,
    values: BTreeMap<&'a str, Value<'a>>,
    /// How many nodes read each value.
    pub(super) uses: BTreeMap<&'a str, usize>,
    pub(super) operations: Vec<Operation<'a>>,
    /// What has been recognised in functions.
    pub(super) settled: BTreeMap<usize, usize>,
    /// The last operations that read each operation.
    readers: BTreeMap<usize, Vec<usize>>,
    /// Number of examples, where the file fixes it.
    pub(super) batch: Size,
    origin: usize,
}

impl<'a> Reader<'a> {
    /// Reads the whole file; returns the reader and the value of its output.
    pub(super) fn run(file: &'a File<'a>) -> Result<(Self, View), OnnxError> {
        let tensors = file.tensors.iter().collect();
        let mut reader = Self {
            file,
            tensors,
            values: BTreeMap::new(),
            uses: BTreeMap::new(),
            operations: Vec::new(),
            settled: BTreeMap::new(),
            readers: BTreeMap::new(),
            batch: Size::BATCH,
            origin: 0,
        };
        let [output] = file.outputs[..] else {
            let names = file.outputs.join("`, `");
            return Err(OnnxError::Model(format!("expected one output, got {} (`{names}`)", file.outputs.len())));
        };
        for (place, tensor) in file.tensors.iter().enumerate() {
            let fail = |detail| OnnxError::Tensor { name: tensor.name.to_owned(), detail };
            let constant = Constant::stored(tensor.name, tensor, place).map_err(fail)?;
            if reader.values.insert(tensor.name, Value::Constant(constant)).is_some() {
                return Err(fail("there are two of this name".to_owned()));
            }
        }
        reader.input()?;
        let needed = reader.needed(output);
        for (index, node) in file.nodes.iter().enumerate().filter(|(index, _)| needed.contains(index)) {
            reader.origin = index;
            let fail = |detail| fault(node, detail);
            let values = reader.values_of(node).map_err(fail)?;
            for (name, value) in node.outputs.iter().zip(values) {
                if !name.is_empty() && reader.values.insert(name, value).is_some() {
                    return Err(fail(format!("the name of its output `{name}` is taken")));
                }
            }
        }
        let Some(Value::Live(view)) = reader.values.get(output) else {
            return Err(OnnxError::Model(format!("its output `{output}` is not computed from its input")));
        };
        let view = view.clone();
        let last = reader.origin;
        let view = reader.finished(&view).map_err(|detail| match file.nodes.get(last) {
            Some(node) => fault(node, detail),
            None => OnnxError::Model(detail),
        })?;
        Ok((reader, view))
    }

    /// Puts the network's input in.
    fn input(&mut self) -> Result<(), OnnxError> {
        let own = |input: &&super::file::FileInput<'a>| !self.values.contains_key(input.name);
        let inputs: Vec<_> = self.file.inputs.iter().filter(own).collect();
        let [input] = inputs[..] else {
            let names: Vec<&str> = inputs.iter().map(|input| input.name).collect();
            let list = names.join("`, `");
            return Err(OnnxError::Model(format!("expected one input, got {} (`{list}`)", names.len())));
        };
        let fail = |detail: String| OnnxError::Model(format!("its input `{}` {detail}", input.name));
        if !super::file::dtype(input.data_type).is_some_and(crate::model::header::Dtype::is_float) {
            return Err(fail(format!("is not of floats (element type {})", input.data_type)));
        }
        let Some((batch, axes)) = input.axes.split_first().filter(|(_, axes)| (1..=3).contains(&axes.len())) else {
            return Err(fail(format!("has {} axes; expected N x D, N x C x L or N x C x H x W", input.axes.len())));
        };
        let size = |axis: &Option<i64>| axis.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let shape: Option<Vec<usize>> = axes.iter().map(size).collect();
        let shape = shape.ok_or_else(|| {
            fail("leaves a size open besides the batch; export with examples of one fixed shape".to_owned())
        })?;
        if let Some(fixed) = batch {
            self.batch = Size::of(*fixed);
            if *fixed < 1 {
                return Err(fail(format!("has a batch of {fixed}")));
            }
        }
        let kind = Kind::Graph(Op::Input { shape: shape.clone() });
        let node = self.push(kind, Vec::new(), shape, Vec::new()).map_err(fail)?;
        self.values.insert(input.name, Value::Live(self.view(node)));
        Ok(())
    }

    /// The nodes that the output depends on; counts who reads what.
    fn needed(&mut self, output: &'a str) -> BTreeSet<usize> {
        let mut wanted = BTreeSet::from([output]);
        let mut needed = BTreeSet::new();
        for (index, node) in self.file.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|name| wanted.contains(name)) {
                needed.insert(index);
                for name in node.inputs.iter().filter(|name| !name.is_empty()) {
                    wanted.insert(name);
                    *self.uses.entry(name).or_default() += 1;
                }
            }
        }
        needed
    }

    /// The values of a node's outputs.
    fn values_of(&mut self, node: &'a FileNode<'a>) -> Result<Vec<Value<'a>>, String> {
        if !matches!(node.domain, "" | "ai.onnx") {
            return Err(format!("the operator is one of `{}`, which is not ONNX's own", node.domain));
        }
        let mut operands = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let value = match self.values.get(name) {
                _ if name.is_empty() => None,
                Some(value) => Some(value.clone()),
                None => return Err(format!("its operand `{name}` is not there before it")),
            };
            operands.push(value);
        }
        let name = node.outputs.first().copied().unwrap_or_default();
        match (node.op, &operands[..]) {
            // The network is computed in one type.
            ("CastLike", [Some(value), _]) => return Ok(vec![value.clone()]),
            ("SplitToSequence", _) => return shapes::parts_of(node, &operands).map(|parts| vec![Value::Parts(parts)]),
            ("SequenceAt", [Some(Value::Parts(parts)), Some(Value::Constant(at))]) => {
                let [at] = at.integers()?[..] else { return Err("expected one index".to_owned()) };
                return Ok(vec![parts[super::constant::place_of_axis(at, parts.len())?].clone()]);
            }
            _ => {}
        }
        if let Some(constant) = self.constant(node, name, &operands)? {
            return Ok(constant);
        }
        self.live(node, &operands)
    }

    /// The outputs of a node that depends on constants alone.
    fn constant(
        &mut self,
        node: &'a FileNode<'a>,
        name: &'a str,
        operands: &[Option<Value<'a>>],
    ) -> Result<Option<Vec<Value<'a>>>, String> {
        if node.op == "Constant" {
            return self.literal(node, name).map(|constant| Some(vec![Value::Constant(constant)]));
        }
        if let ("Shape", [Some(Value::Live(view))]) = (node.op, operands) {
            return shapes::shape_of(node, name, &view.sizes()).map(|shape| Some(vec![Value::Constant(shape)]));
        }
        let mut constants = Vec::with_capacity(operands.len());
        for operand in operands.iter().flatten() {
            match operand {
                Value::Constant(constant) => constants.push(constant),
                Value::Live(_) => return Ok(None),
                Value::Parts(_) => return Err("an operand is a list of values".to_owned()),
            }
        }
        let values = if let Some(value) = folding::elementwise(node.op, name, &constants, &self.tensors)? {
            vec![value]
        } else if let Some(value) = folding::list(node, name, &constants, &self.tensors)? {
            vec![value]
        } else {
            shapes::of_constants(node, name, &constants, &self.tensors)?
        };
        Ok(Some(values.into_iter().map(Value::Constant).collect()))
    }

    /// What a Constant node says.
    fn literal(&mut self, node: &'a FileNode<'a>, name: &'a str) -> Result<Constant<'a>, String> {
        if let Some(tensor) = node.tensor("value") {
            self.tensors.push(tensor);
            return Constant::stored(name, tensor, self.tensors.len() - 1);
        }
        if let Some(value) = node.integer("value_int") {
            return Constant::of_sizes(name, Vec::new(), vec![Size::of(value)]);
        }
        if let Some(value) = node.float("value_float") {
            return Constant::of_floats(name, Vec::new(), vec![value]);
        }
        if let Some(values) = node.integers("value_ints") {
            return Constant::list(name, values.iter().copied().map(Size::of).collect());
        }
        if let Some(values) = node.floats("value_floats") {
            let floats = values.iter().copied().map(super::file::shortest).collect();
            return Constant::of_floats(name, vec![Size::of(values.len() as i64)], floats);
        }
        Err("its value is of a kind that is not read".to_owned())
    }

    /// The outputs of a node that depends on the input.
    fn live(&mut self, node: &'a FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<Vec<Value<'a>>, String> {
        if let Some(views) = shapes::of_view(node, operands)? {
            return Ok(views.into_iter().map(Value::Live).collect());
        }
        let view = match Function::of_node(node, operands, &self.tensors)? {
            Some((function, x)) => self.function(function, &x)?,
            None if node.op == "Where" => layers::chosen(self, operands)?,
            None => match tokens::read(self, node, operands)? {
                Some(view) => view,
                None => layers::read(self, node, operands)?,
            },
        };
        Ok(vec![Value::Live(view)])
    }

    /// Adds an operation; one that is there already is not added again.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        inputs: Vec<usize>,
        shape: Vec<usize>,
        weights: Vec<Constant<'a>>,
    ) -> Result<usize, String> {
        let elements = shape.iter().try_fold(1_usize, |all, axis| all.checked_mul(*axis));
        if elements.is_none_or(|elements| elements == 0 || elements > MAX_ELEMENTS) {
            return Err(format!("its output {shape:?} is empty or has more than {MAX_ELEMENTS} elements"));
        }
        // Parts of operations come to few for each.
        if self.operations.len() >= 16 * MAX_NODES {
            return Err(format!("the network has more than {MAX_NODES} operations"));
        }
        let first = inputs.first().copied();
        let others = first.and_then(|first| self.readers.get(&first)).into_iter().flatten().copied();
        let same = |other: &Operation<'_>| {
            let pairs = || other.weights.iter().zip(&weights);
            other.kind == kind
                && other.inputs == inputs
                && other.weights.len() == weights.len()
                && pairs().all(|(a, b)| a.is_same(b))
        };
        if let Some(known) = others.rev().take(REMEMBERED).find(|other| same(&self.operations[*other])) {
            return Ok(known);
        }
        let new = self.operations.len();
        if let Some(first) = first {
            self.readers.entry(first).or_default().push(new);
        }
        self.operations.push(Operation { kind, inputs, shape, weights, parts: Vec::new(), origin: self.origin });
        Ok(new)
    }

    /// All of an operation's output, as ONNX orders it.
    pub(super) fn view(&self, node: usize) -> View {
        View::of(node, &self.operations[node].shape, self.batch)
    }

    pub(super) fn shape(&self, node: usize) -> &[usize] {
        &self.operations[node].shape
    }

    pub(super) fn kind(&self, node: usize) -> &Kind {
        &self.operations[node].kind
    }

    /// The same value as an operation's output that has one axis for each axis of the value but the batch, the channels
    /// those of the axis `channels`.
    pub(super) fn arrange(&mut self, view: &View, channels: usize) -> Result<View, String> {
        let view = &self.selected(view)?;
        let shape = self.shape(view.node).to_vec();
        let misfit = || {
            let sizes = shown(&view.sizes());
            format!(
                "the axes of its operand {sizes} are no channels and positions of an example {shape:?} in their order"
            )
        };
        let batch = view.batch_axis().ok_or_else(misfit)?;
        if !view.is_whole(&shape) || channels == batch || channels >= view.axes.len() {
            return Err(misfit());
        }
        let positions: Vec<usize> = (0..view.axes.len()).filter(|axis| *axis != batch && *axis != channels).collect();
        let order: Vec<usize> = std::iter::once(channels).chain(positions.iter().copied()).collect();
        let sizes: Option<Vec<usize>> = order.iter().map(|axis| view.size(*axis).usize()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() <= 3).ok_or_else(misfit)?;
        let through =
            |axes: &[usize]| -> Vec<Atom> { merged(axes.iter().flat_map(|axis| view.axes[*axis].iter().copied())) };
        let own = merged([Atom::new(0, 1, shape[0])]);
        let by_position = view.axes[channels] == own && through(&positions) == whole(&shape, 1);
        let in_order = positions.iter().all(|axis| *axis > channels) && through(&order) == whole(&shape, 0);
        if !by_position && !in_order {
            return Err(misfit());
        }
        let node = if sizes == shape {
            view.node
        } else {
            let op = match sizes[1..] {
                [] => Op::Flatten,
                _ => Op::Reshape { positions: sizes[1..].to_vec() },
            };
            let from = self.settle(view.node)?;
            self.push(Kind::Graph(op), vec![from], sizes.clone(), Vec::new())?
        };
        let mut axes = vec![Vec::new(); view.axes.len()];
        axes[batch].clone_from(&view.axes[batch]);
        for (place, axis) in order.iter().enumerate() {
            axes[*axis] = merged([Atom::new(place, 1, sizes[place])]);
        }
        Ok(View { node, axes, starts: vec![0; sizes.len()] })
    }

    /// The same value without the other tokens, where it is all channels of one token.
    fn selected(&mut self, view: &View) -> Result<View, String> {
        let [channels, tokens] = self.shape(view.node)[..] else { return Ok(view.clone()) };
        let mut atoms = view.axes.iter().flatten();
        let one = tokens > 1 && atoms.all(|atom| atom.place != Place::Axis(1));
        if !one || view.starts[0] != 0 || view.channel_axis(&[channels]).is_none() {
            return Ok(view.clone());
        }
        let from = self.settle(view.node)?;
        let op = Op::TokenSelect { index: view.starts[1] };
        let node = self.push(Kind::Graph(op), vec![from], vec![channels], Vec::new())?;
        Ok(View { node, axes: view.axes.clone(), starts: vec![0] })
    }

    /// As [`Self::arrange`], as convolutions read a value: N x C x positions.
    pub(super) fn feature_map(&mut self, view: &View) -> Result<View, String> {
        if view.batch_axis() != Some(0) {
            return Err(format!("the first axis of its operand {} is not the batch", shown(&view.sizes())));
        }
        self.arrange(view, 1)
    }

    /// The network's output as the last operation.
    fn finished(&mut self, view: &View) -> Result<View, String> {
        let arranged = self.feature_map(view)?;
        let node = self.settle(arranged.node)?;
        Ok(arranged.onto(node))
    }
}

/// A fault of a node.
pub(super) fn fault(node: &FileNode<'_>, detail: String) -> OnnxError {
    let output = node.outputs.first().copied().unwrap_or_default();
    let [node, operator, output] = [node.name, node.op, output].map(str::to_owned);
    OnnxError::Node { node, operator, output, detail }
}
