//! Sorts units into groups: those that come out of the same producers belong together.

use std::collections::{BTreeMap, BTreeSet};

use super::units::Units;
use super::{Axis, AxisSegment, CouplingError, Group, GroupId, Owner, refuse};
use crate::model::graph::{Graph, NodeId, Op};

/// Which group each unit belongs to.
pub(super) struct Owners {
    /// By representative: owner and index among the owner's units.
    place: Vec<Option<(Owner, usize)>>,
    /// Representatives that stand side by side, the second of which begins another operand of a concatenation.
    apart: BTreeSet<(usize, usize)>,
    outputs: usize,
    /// Groups by the producers of their units.
    made_by: BTreeMap<Vec<NodeId>, GroupId>,
    pub(super) groups: Vec<Group>,
    pub(super) output_layers: Vec<NodeId>,
    pub(super) linear_end: NodeId,
}

impl Owners {
    /// Sorts the producers into groups, in walk order.
    pub(super) fn assign(graph: &Graph, units: &mut Units, order: &[NodeId]) -> Result<Self, CouplingError> {
        let place = vec![None; units.count()];
        let apart = apart(graph, units);
        let (made_by, groups, output_layers) = (BTreeMap::new(), Vec::new(), Vec::new());
        let linear_end = graph.output();
        let mut owners = Self { place, apart, outputs: 0, made_by, groups, output_layers, linear_end };
        owners.claim(&units.roots(NodeId(0)), Owner::Input, 0);
        let outputs = units.roots(graph.output());
        if outputs.iter().any(|root| owners.place[*root].is_some()) {
            return Err(refuse(
                graph.node(graph.output()),
                "an output is an input of the network, added or passed through",
            ));
        }
        owners.outputs = owners.claim(&outputs, Owner::Output, 0);
        owners.linear_end = linear_end_of(graph, units, &outputs)?;
        let makers = Makers::of(graph, units, order);
        for &producer in order {
            owners.place_producer(graph, units, producer, &makers)?;
        }
        Ok(owners)
    }

    /// Gives all of `roots` that nobody owns to `owner`, in order, with indices from `next` on; returns the next index.
    fn claim(&mut self, roots: &[usize], owner: Owner, mut next: usize) -> usize {
        for &root in roots {
            if self.place[root].is_none() {
                self.place[root] = Some((owner, next));
                next += 1;
            }
        }
        next
    }

    /// Enters one producer, as an output layer or into the groups of its units; opens those that are new. A grouped convolution opens
    /// groups, but makes no units.
    fn place_producer(
        &mut self,
        graph: &Graph,
        units: &mut Units,
        producer: NodeId,
        makers: &Makers,
    ) -> Result<(), CouplingError> {
        let roots = units.roots(producer);
        let owners: BTreeSet<Owner> = roots.iter().filter_map(|root| self.place[*root]).map(|place| place.0).collect();
        let node = graph.node(producer);
        if super::keeps_channels(&node.op) && owners.iter().all(|owner| *owner == Owner::Input) {
            return Ok(());
        }
        if owners.contains(&Owner::Input) {
            let detail = "its units are tied to the network's input, which the members share";
            return Err(refuse(node, detail));
        }
        if owners.contains(&Owner::Output) {
            if !node.op.is_dense() {
                return Err(refuse(node, super::READS_OUTPUTS));
            }
            self.outputs = self.claim(&roots, Owner::Output, self.outputs);
            self.output_layers.push(producer);
            return Ok(());
        }
        let is_zeros = |id: &NodeId| matches!(graph.node(*id).op, Op::Zeros { .. });
        if is_zeros(&producer) && roots.iter().any(|root| makers.of_unit(*root).iter().all(is_zeros)) {
            return Err(refuse(node, "channels of zeros are only read where they are added to a layer's channels"));
        }
        for &root in &roots {
            let group = match self.place[root] {
                Some((owner, _)) => owner,
                None => Owner::Group(self.enter(root, makers.of_unit(root))),
            };
            if let Owner::Group(group) = group {
                let producers = &mut self.groups[group.0].producers;
                if node.op.is_dense() && producers.last() != Some(&producer) {
                    producers.push(producer);
                }
            }
        }
        Ok(())
    }

    /// Enters a unit into the group of those that come out of the same `producers`.
    fn enter(&mut self, root: usize, producers: &[NodeId]) -> GroupId {
        let group = self.made_by.get(producers).copied().unwrap_or_else(|| {
            let group = GroupId(self.groups.len());
            let (producers_met, consumers, channelwise) = (Vec::new(), Vec::new(), Vec::new());
            self.groups.push(Group { width: 0, producers: producers_met, consumers, channelwise });
            self.made_by.insert(producers.to_vec(), group);
            group
        });
        let width = &mut self.groups[group.0].width;
        self.place[root] = Some((Owner::Group(group), *width));
        *width += 1;
        group
    }

    /// A node's channel axis as segments.
    pub(super) fn axis(&self, units: &mut Units, node: NodeId) -> Axis {
        let roots = units.roots(node);
        let mut joints = units.joints(node).iter().copied().peekable();
        let mut runs: Vec<AxisSegment> = Vec::new();
        let mut before = None;
        for (channel, &root) in roots.iter().enumerate() {
            let joint = joints.next_if_eq(&channel).is_some();
            let Some((owner, unit)) = self.place[root] else { continue };
            match runs.last_mut() {
                Some(run) if before == Some(root) && !joint => run.repeat += 1,
                _ => runs.push(AxisSegment { owner, first: unit, units: 1, repeat: 1 }),
            }
            before = Some(root);
        }
        self.join(runs, &roots, units.joints(node))
    }

    /// Joins neighbouring stretches of consecutive units, but for those that concatenations keep apart.
    fn join(&self, runs: Vec<AxisSegment>, roots: &[usize], joints: &[usize]) -> Axis {
        let mut joined: Vec<AxisSegment> = Vec::new();
        let mut channel = 0;
        for run in runs {
            let apart = channel > 0
                && (self.apart.contains(&(roots[channel - 1], roots[channel]))
                    || joints.binary_search(&channel).is_ok());
            channel += run.repeat;
            match joined.last_mut() {
                Some(last) if !apart && continues(last, &run) => last.units += 1,
                _ => joined.push(run),
            }
        }
        joined.into_iter().collect()
    }
}

/// Whether `run` is the next unit behind `last`.
fn continues(last: &AxisSegment, run: &AxisSegment) -> bool {
    last.owner == run.owner && last.repeat == run.repeat && last.first + last.units == run.first
}

/// Pairs of units between which concatenations put the members' other units: they stay apart wherever they meet, so that
/// operands of a sum are stacked alike.
fn apart(graph: &Graph, units: &mut Units) -> BTreeSet<(usize, usize)> {
    let mut apart = BTreeSet::new();
    for (id, _) in graph.iter().filter(|(_, node)| matches!(node.op, Op::Concat | Op::Add | Op::Multiply)) {
        let roots = units.roots(id);
        let pairs = units.joints(id).iter().map(|&joint| (roots[joint - 1], roots[joint]));
        apart.extend(pairs.filter(|(left, right)| left != right));
    }
    apart
}

/// For every unit, the dense operations that it comes out of, and the zeros that are added to it.
struct Makers {
    /// Unit by unit, each ascending.
    makers: Vec<NodeId>,
    /// Where each unit's begin; one more at the end.
    first: Vec<usize>,
}

impl Makers {
    fn of(graph: &Graph, units: &mut Units, order: &[NodeId]) -> Self {
        let mut pairs: Vec<(usize, NodeId)> = Vec::new();
        let makes = |op: &Op| op.is_dense() || matches!(op, Op::Zeros { .. });
        for &producer in order.iter().filter(|id| makes(&graph.node(**id).op)) {
            pairs.extend(units.roots(producer).into_iter().map(|root| (root, producer)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut first = vec![0; units.count() + 1];
        for (unit, _) in &pairs {
            first[unit + 1] += 1;
        }
        for unit in 1..first.len() {
            first[unit] += first[unit - 1];
        }
        Self { makers: pairs.into_iter().map(|pair| pair.1).collect(), first }
    }

    fn of_unit(&self, unit: usize) -> &[NodeId] {
        &self.makers[self.first[unit]..self.first[unit + 1]]
    }
}

/// Up to where the mean of the members is the mean of their outputs. Outputs may be flattened, averaged and summed on their way. Functions
/// of single values may bend them only at the end, where each value goes its way alone: then the mean is exact before them.
fn linear_end_of(graph: &Graph, units: &mut Units, outputs: &[usize]) -> Result<NodeId, CouplingError> {
    let outputs: BTreeSet<usize> = outputs.iter().copied().collect();
    let mut tail = BTreeSet::new();
    let mut at = graph.output();
    while let ([input], false) = (&graph.node(at).inputs[..], graph.node(at).op.has_parameters()) {
        tail.insert(at);
        at = *input;
    }
    let mut end = graph.output();
    for (id, node) in graph.iter().filter(|(_, node)| !keeps_means(&node.op) && !node.op.has_parameters()) {
        if !units.roots(id).iter().any(|root| outputs.contains(root)) {
            continue;
        }
        if !tail.contains(&id) || node.op == Op::Softmax {
            return Err(refuse(
                node,
                "the network's outputs pass through it; the mean of the members needs linear outputs",
            ));
        }
        end = end.min(node.inputs[0]);
    }
    Ok(end)
}

/// Whether an operation of means is the mean of the operations.
fn keeps_means(op: &Op) -> bool {
    let mean = matches!(
        op,
        Op::AvgPool1d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::GlobalAvgPool2d
            | Op::BlurPool2d { .. }
            | Op::TokenMean
            | Op::Scale { .. }
            | Op::ZeroPad { .. }
    );
    let places =
        matches!(op, Op::Flatten | Op::Reshape { .. } | Op::Concat | Op::Dropout { .. } | Op::TokenSelect { .. });
    mean || places || matches!(op, Op::Add | Op::Input { .. })
}
