//! Runs a network, or the virtual concatenation of several: activations of all members stacked as in the concatenated
//! network, each operation with weights computed block by block from the members' own tensors. Normalisations over
//! channels, softmax and attentions see one member at a time, whatever stands beside it. Independent of the training
//! engine, which it is there to check.

mod attention;
mod dense;
mod elementwise;
mod feature_map;
mod normalise;
mod pool;
pub mod verify;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::fusion::assemble::routes::Routes;
use crate::fusion::reference::feature_map::{FeatureMap, last_uses};
use crate::fusion::{Ensemble, FusionError, Member, Selection, Shares};
use crate::model::graph::{Graph, GraphError, Node, NodeId, Op};
use crate::model::parameters;

/// The concatenation's values of the node `last`, N x its shape.
pub(super) fn concatenation(
    ensemble: &Ensemble<'_>,
    inputs: &[f32],
    batch: usize,
    last: NodeId,
) -> Result<Vec<f32>, FusionError> {
    let places = Places::Stacked(ensemble, Selection::all(ensemble));
    Stack { graph: ensemble.graph(), members: ensemble.members(), places, batch, last }.run(inputs)
}

/// One network's values of the node `last`, N x its shape; it may be a network that has no concatenation.
pub(super) fn alone(member: Member<'_>, inputs: &[f32], batch: usize, last: NodeId) -> Result<Vec<f32>, FusionError> {
    Stack { graph: member.graph, members: &[member], places: Places::Alone, batch, last }.run(inputs)
}

/// Where the members' channels stand.
enum Places<'a> {
    /// There is one member: where it has them.
    Alone,
    /// Side by side.
    Stacked(&'a Ensemble<'a>, Selection),
}

/// What all operations need to know.
struct Stack<'a> {
    graph: &'a Graph,
    members: &'a [Member<'a>],
    places: Places<'a>,
    batch: usize,
    /// Nothing behind it is computed.
    last: NodeId,
}

impl Stack<'_> {
    fn run(&self, inputs: &[f32]) -> Result<Vec<f32>, FusionError> {
        let graph = self.graph;
        let expected = self.batch * graph.input_shape().iter().product::<usize>();
        if inputs.len() != expected {
            let detail = format!("expected {expected} input values for {} examples, got {}", self.batch, inputs.len());
            return Err(GraphError { node: graph.nodes()[0].name.clone(), detail }.into());
        }
        let mut done: Vec<Option<FeatureMap>> = Vec::with_capacity(graph.nodes().len());
        // What members make of the input's channels, each by itself: these are not stacked.
        let mut apart: BTreeMap<NodeId, Vec<FeatureMap>> = BTreeMap::new();
        let last_use = last_uses(graph);
        for (id, node) in graph.iter().take(self.last.0 + 1) {
            let output = if id.0 == 0 {
                Some(FeatureMap::new(inputs.to_vec(), graph.input_shape()[0], &graph.input_shape()[1..]))
            } else {
                let of_member = |member: usize| -> Vec<&FeatureMap> {
                    let operand = |id: &NodeId| apart.get(id).map(|own| &own[member]).or(done[id.0].as_ref());
                    node.inputs.iter().filter_map(operand).collect()
                };
                if self.is_apart(id) || !node.op.is_dense() && node.inputs.iter().any(|input| apart.contains_key(input))
                {
                    let own = (0..self.members.len())
                        .map(|member| self.alone(member).compute(id, node, &|_| of_member(member)));
                    let own = own.collect::<Result<_, _>>()?;
                    apart.insert(id, own);
                    None
                } else {
                    Some(self.compute(id, node, &of_member)?)
                }
            };
            done.push(output);
            for input in &node.inputs {
                if last_use[input.0] == id.0 {
                    done[input.0] = None;
                }
            }
        }
        Ok(done.pop().flatten().map(|logits| logits.values).unwrap_or_default())
    }

    /// Whether the node works on the input's channels with weights of each member's own.
    fn is_apart(&self, id: NodeId) -> bool {
        matches!(&self.places, Places::Stacked(ensemble, _) if ensemble.couplings()[0].is_on_input(id))
    }

    /// One of the members.
    fn alone(&self, member: usize) -> Stack<'_> {
        let members = &self.members[member..=member];
        Stack { graph: members[0].graph, members, places: Places::Alone, batch: self.batch, last: self.last }
    }

    /// One node; `of_member` gives its operands as a member has them, which are the same for all where they are stacked.
    fn compute<'x>(
        &self,
        id: NodeId,
        node: &Node,
        of_member: &dyn Fn(usize) -> Vec<&'x FeatureMap>,
    ) -> Result<FeatureMap, FusionError> {
        let positions = &self.graph.shape(id)[1..];
        if node.op.is_dense() || node.op.convolution().is_some() {
            return self.dense(id, of_member);
        }
        let operands = &of_member(0)[..];
        let x = operands[0];
        if node.op.has_parameters() || node.op == Op::Softmax {
            return self.channelwise(id, x);
        }
        if let Some(function) = elementwise::function(&node.op) {
            return Ok(elementwise::map(x, function));
        }
        Ok(match &node.op {
            Op::Flatten | Op::Reshape { .. } => {
                let channels = x.channels * x.positions() / positions.iter().product::<usize>();
                FeatureMap::new(x.values.clone(), channels, positions)
            }
            Op::ZeroPad { begin, .. } => feature_map::within_zeros(x, begin, positions),
            Op::Zeros { .. } => FeatureMap::zeros(self.batch, self.rows(id).len, positions),
            Op::Add => elementwise::add(x, operands[1]),
            Op::Multiply => elementwise::multiply(x, operands[1]),
            Op::Concat => feature_map::concat(operands, self.batch),
            Op::TokenSelect { index } => {
                let picked = x.values.chunks_exact(x.positions()).map(|channel| channel[*index]).collect();
                FeatureMap::new(picked, x.channels, positions)
            }
            op => pool::pool(op, x, positions),
        })
    }

    /// Matrices, convolutions and attentions: each member's block reads its own channels and writes its own, or, at the
    /// output, adds its share to the mean.
    fn dense<'x>(
        &self,
        id: NodeId,
        of_member: &dyn Fn(usize) -> Vec<&'x FeatureMap>,
    ) -> Result<FeatureMap, FusionError> {
        let (columns, rows) = (self.columns(id), self.rows(id));
        let mut y = FeatureMap::zeros(self.batch, rows.len, &self.graph.shape(id)[1..]);
        for (index, member) in self.members.iter().enumerate() {
            let tensors = tensors(*member, id)?;
            let block = of_member(index)[0].take(&columns.runs[index], self.batch);
            let size = y.size();
            let mut part = match (&member.graph.node(id).op, member.graph.node(id).op.convolution()) {
                (_, Some(conv)) => dense::convolve(&block, &conv, &tensors, size),
                (Op::Attention { heads, .. }, _) => attention::attend(&block, *heads, member.graph.node(id), &tensors),
                _ => dense::linear(&block, member.graph.shape(id)[0], &tensors),
            };
            if let Some(shares) = self.output_shares(id) {
                let (classes, positions) = (member.graph.shape(id)[0], y.positions());
                for (row, values) in part.chunks_exact_mut(positions.max(1)).enumerate() {
                    let share = shares.of(index, row % classes) as f32;
                    for value in values {
                        *value *= share;
                    }
                }
            }
            y.add(&part, &rows.runs[index]);
        }
        Ok(y)
    }

    /// Operations that see the channels of one member only, and give as many.
    fn channelwise(&self, id: NodeId, x: &FeatureMap) -> Result<FeatureMap, FusionError> {
        let rows = self.rows(id);
        let mut y = FeatureMap::zeros(self.batch, rows.len, &self.graph.shape(id)[1..]);
        for (index, member) in self.members.iter().enumerate() {
            let tensors = tensors(*member, id)?;
            let block = x.take(&rows.runs[index], self.batch);
            y.put(&normalise::apply(&member.graph.node(id).op, block, &tensors), &rows.runs[index]);
        }
        Ok(y)
    }

    fn rows(&self, id: NodeId) -> Routes {
        match &self.places {
            Places::Alone => Routes::identity(self.graph.shape(id)[0]),
            Places::Stacked(ensemble, everything) => Routes::rows(ensemble, id, everything),
        }
    }

    fn columns(&self, id: NodeId) -> Routes {
        match &self.places {
            Places::Alone => Routes::identity(self.graph.shape(self.graph.node(id).inputs[0])[0]),
            Places::Stacked(ensemble, everything) => Routes::columns(ensemble, id, everything),
        }
    }

    /// How much each member counts in what the node writes; none but for outputs of several.
    fn output_shares(&self, id: NodeId) -> Option<&Shares> {
        match &self.places {
            Places::Stacked(ensemble, _) if ensemble.is_output_layer(id) => Some(ensemble.shares()),
            _ => None,
        }
    }
}

/// A member's tensors of the node `id`, in the order of [`parameters::of_node`].
fn tensors(member: Member<'_>, id: NodeId) -> Result<Vec<Cow<'_, [f32]>>, FusionError> {
    let names = parameters::of_node(member.graph.node(id)).into_iter();
    Ok(names.map(|tensor| member.weights.f32(&tensor.name)).collect::<Result<_, _>>()?)
}
