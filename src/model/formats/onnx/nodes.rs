//! Node by node from the operators of a file to operations: constants are computed, reshapes and transposes become views, and
//! everything else an operation of the network or a part of one that later nodes complete.

use std::collections::{BTreeMap, BTreeSet};

use super::constant::{Constant, MAX_SMALL, place_of_axis};
use super::error::OnnxError;
use super::file::{File, FileInput, FileNode, shortest};
use super::file_tensor::dtype;
use super::functions::ScalarFunction;
use super::operation::OperationKind;
use super::reader::{Reader, fault};
use super::size::AxisSize;
use super::value::OnnxValue;
use super::view::ValueView;
use super::{channels, combine, folding, layers, pixels, shapes, splits, tokens};
use crate::model::graph::Op;
use crate::model::header::Dtype;

/// Most elements of all constants that are computed, and of their operands.
const MAX_COMPUTED: usize = 1 << 23;
impl<'a> Reader<'a> {
    /// Reads the whole file; returns the reader and the value of its output.
    pub(super) fn run(file: &'a File<'a>) -> Result<(Self, ValueView), OnnxError> {
        let tensors = file.tensors.iter().collect();
        let mut reader = Self {
            file,
            tensors,
            values: BTreeMap::new(),
            uses: BTreeMap::new(),
            operations: Vec::new(),
            settled: BTreeMap::new(),
            readers: BTreeMap::new(),
            batch: AxisSize::BATCH,
            origin: 0,
            left: MAX_COMPUTED,
            matrices: 0,
        };
        let [output] = file.outputs[..] else {
            let names = file.outputs.join("`, `");
            return Err(OnnxError::Model(format!("expected one output, got {} (`{names}`)", file.outputs.len())));
        };
        for (place, tensor) in file.tensors.iter().enumerate() {
            let fail = |detail| OnnxError::Tensor { name: tensor.name.to_owned(), detail };
            let constant = Constant::stored(tensor.name, tensor, place).map_err(fail)?;
            if reader.values.insert(tensor.name, OnnxValue::Constant(constant)).is_some() {
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
        let Some(OnnxValue::Live(view)) = reader.values.get(output) else {
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
        let own = |input: &&FileInput<'a>| !self.values.contains_key(input.name);
        let inputs: Vec<_> = self.file.inputs.iter().filter(own).collect();
        let [input] = inputs[..] else {
            let names: Vec<&str> = inputs.iter().map(|input| input.name).collect();
            let list = names.join("`, `");
            return Err(OnnxError::Model(format!("expected one input, got {} (`{list}`)", names.len())));
        };
        let fail = |detail: String| OnnxError::Model(format!("its input `{}` {detail}", input.name));
        if !dtype(input.data_type).is_some_and(Dtype::is_float) {
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
            self.batch = AxisSize::of(*fixed);
            if *fixed < 1 {
                return Err(fail(format!("has a batch of {fixed}")));
            }
        }
        let kind = OperationKind::Graph(Op::Input { shape: shape.clone() });
        let node = self.push(kind, Vec::new(), shape, Vec::new()).map_err(fail)?;
        self.values.insert(input.name, OnnxValue::Live(self.view(node)));
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
    fn values_of(&mut self, node: &'a FileNode<'a>) -> Result<Vec<OnnxValue<'a>>, String> {
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
            ("CastLike", [Some(OnnxValue::Constant(constant)), Some(OnnxValue::Constant(like))]) => {
                let value = constant.cast(!like.is_of_sizes(), &self.tensors)?;
                return Ok(vec![OnnxValue::Constant(value)]);
            }
            // The network is computed in one type.
            ("CastLike", [Some(value), _]) => return Ok(vec![value.clone()]),
            ("SplitToSequence", _) => {
                return splits::parts_of(node, &operands).map(|parts| vec![OnnxValue::Parts(parts)]);
            }
            ("SequenceAt", [Some(OnnxValue::Parts(parts)), Some(OnnxValue::Constant(at))]) => {
                let [at] = at.integers()?[..] else { return Err("expected one index".to_owned()) };
                return Ok(vec![parts[place_of_axis(at, parts.len())?].clone()]);
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
        operands: &[Option<OnnxValue<'a>>],
    ) -> Result<Option<Vec<OnnxValue<'a>>>, String> {
        if node.op == "Constant" {
            return self.literal(node, name).map(|constant| Some(vec![OnnxValue::Constant(constant)]));
        }
        if let ("Shape", [Some(OnnxValue::Live(view))]) = (node.op, operands) {
            return shapes::shape_of(node, name, &view.sizes()).map(|shape| Some(vec![OnnxValue::Constant(shape)]));
        }
        if let ("Clip", [Some(OnnxValue::Constant(x)), bounds @ ..]) = (node.op, operands) {
            return folding::clipped(name, x, bounds, &self.tensors)
                .map(|value| Some(vec![OnnxValue::Constant(value)]));
        }
        let mut constants = Vec::with_capacity(operands.len());
        for operand in operands.iter().flatten() {
            match operand {
                OnnxValue::Constant(constant) => constants.push(constant),
                OnnxValue::Live(_) => return Ok(None),
                OnnxValue::Parts(_) => return Err("an operand is a list of values".to_owned()),
            }
        }
        // What is larger is not copied.
        let small = |constant: &&Constant<'_>| constant.count().filter(|count| *count <= MAX_SMALL);
        self.take(constants.iter().filter_map(small).sum())?;
        let values = if let Some(value) = folding::elementwise(node.op, name, &constants, &self.tensors)? {
            vec![value]
        } else if let Some(value) = folding::list(node, name, &constants, &self.tensors)? {
            vec![value]
        } else {
            shapes::of_constants(node, name, &constants, &self.tensors)?
        };
        self.take(values.iter().filter_map(|value| small(&value)).sum())?;
        Ok(Some(values.into_iter().map(OnnxValue::Constant).collect()))
    }

    /// Counts elements that constants are computed of.
    pub(super) fn take(&mut self, elements: usize) -> Result<(), String> {
        let left = self.left.checked_sub(elements + 1);
        self.left = left.ok_or_else(|| format!("constants of more than {MAX_COMPUTED} elements are computed"))?;
        Ok(())
    }

    /// What a Constant node says.
    fn literal(&mut self, node: &'a FileNode<'a>, name: &'a str) -> Result<Constant<'a>, String> {
        if let Some(tensor) = node.tensor("value") {
            self.tensors.push(tensor);
            return Constant::stored(name, tensor, self.tensors.len() - 1);
        }
        if let Some(value) = node.integer("value_int") {
            return Constant::of_sizes(name, Vec::new(), vec![AxisSize::of(value)]);
        }
        if let Some(value) = node.float("value_float") {
            return Constant::of_floats(name, Vec::new(), vec![value]);
        }
        if let Some(values) = node.integers("value_ints") {
            return Constant::list(name, values.iter().copied().map(AxisSize::of).collect());
        }
        if let Some(values) = node.floats("value_floats") {
            let floats = values.iter().copied().map(shortest).collect();
            return Constant::of_floats(name, vec![AxisSize::of(values.len() as i64)], floats);
        }
        Err("its value is of a kind that is not read".to_owned())
    }

    /// The outputs of a node that depends on the input.
    fn live(
        &mut self,
        node: &'a FileNode<'a>,
        operands: &[Option<OnnxValue<'a>>],
    ) -> Result<Vec<OnnxValue<'a>>, String> {
        if let Some(view) = pixels::read(self, node, operands)? {
            return Ok(vec![OnnxValue::Live(view)]);
        }
        if let ("Slice", [Some(OnnxValue::Live(x)), ..]) = (node.op, operands) {
            let slices = splits::slices(node, operands, x.axes.len())?;
            if let Some(view) = channels::every_few(self, x, &slices)? {
                return Ok(vec![OnnxValue::Live(view)]);
            }
        }
        if let Some(views) = shapes::of_view(node, operands)? {
            return Ok(views.into_iter().map(OnnxValue::Live).collect());
        }
        let view = match ScalarFunction::of_node(node, operands, &self.tensors)? {
            Some((function, x)) if function.changes_nothing() => x,
            Some((function, x)) => self.function(function, &x)?,
            None if node.op == "Where" => combine::chosen(self, operands)?,
            None => match tokens::read(self, node, operands)? {
                Some(view) => view,
                None => layers::read(self, node, operands)?,
            },
        };
        Ok(vec![OnnxValue::Live(view)])
    }

    /// The network's output as the last operation.
    fn finished(&mut self, view: &ValueView) -> Result<ValueView, String> {
        let arranged = self.feature_map(view)?;
        let node = self.settle(arranged.node)?;
        Ok(arranged.onto(node))
    }
}
