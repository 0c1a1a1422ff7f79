//! Sorts units into groups: producers that share a unit, however indirectly, belong together.

use std::collections::BTreeSet;

use super::units::Units;
use super::{Axis, CouplingError, Group, GroupId, Owner, Segment, refuse};
use crate::model::graph::{Graph, NodeId, Op};

/// Which group each unit belongs to.
pub(super) struct Owners {
    /// By representative: owner and index among the owner's units.
    place: Vec<Option<(Owner, usize)>>,
    /// Representatives that stand side by side, the second of which begins another operand of a concatenation.
    apart: BTreeSet<(usize, usize)>,
    outputs: usize,
    pub(super) groups: Vec<Group>,
    pub(super) heads: Vec<NodeId>,
}

impl Owners {
    /// Sorts the producers into groups, in walk order.
    pub(super) fn assign(graph: &Graph, units: &mut Units, order: &[NodeId]) -> Result<Self, CouplingError> {
        let place = vec![None; units.count()];
        let apart = apart(graph, units);
        let mut owners = Self { place, apart, outputs: 0, groups: Vec::new(), heads: Vec::new() };
        owners.claim(&units.roots(NodeId(0)), Owner::Input, 0);
        let outputs = units.roots(graph.output());
        if outputs.iter().any(|root| owners.place[*root].is_some()) {
            return Err(refuse(
                graph.node(graph.output()),
                "an output is an input of the network, added or passed through",
            ));
        }
        owners.outputs = owners.claim(&outputs, Owner::Output, 0);
        refuse_nonlinear_outputs(graph, units, &outputs)?;
        let makers = Makers::of(units, order);
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

    /// Enters one producer, as a head, into the group whose units it shares, or into a new group. A grouped convolution
    /// opens a group, but makes no units.
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
        if owners.contains(&Owner::Input) {
            let detail = "its units are tied to the network's input, which the members share";
            return Err(refuse(node, detail));
        }
        if owners.contains(&Owner::Output) {
            if !node.op.is_dense() {
                return Err(refuse(node, super::READS_OUTPUTS));
            }
            self.outputs = self.claim(&roots, Owner::Output, self.outputs);
            self.heads.push(producer);
            return Ok(());
        }
        let group = if let Some(Owner::Group(group)) = owners.first() {
            *group
        } else {
            self.new_group(&makers.all_units(&roots, units))
        };
        if node.op.is_dense() {
            self.groups[group.0].producers.push(producer);
        }
        Ok(())
    }

    /// Opens a group for `units`.
    fn new_group(&mut self, units: &[usize]) -> GroupId {
        let group = GroupId(self.groups.len());
        self.groups.push(Group {
            width: units.len(),
            producers: Vec::new(),
            consumers: Vec::new(),
            channelwise: Vec::new(),
            parts: Vec::new(),
        });
        self.claim(units, Owner::Group(group), 0);
        group
    }

    /// A node's channel axis as segments.
    pub(super) fn axis(&self, units: &mut Units, node: NodeId) -> Axis {
        let roots = units.roots(node);
        let mut joints = units.joints(node).iter().copied().peekable();
        let mut runs: Axis = Vec::new();
        let mut before = None;
        for (channel, &root) in roots.iter().enumerate() {
            let joint = joints.next_if_eq(&channel).is_some();
            let Some((owner, unit)) = self.place[root] else { continue };
            match runs.last_mut() {
                Some(run) if before == Some(root) && !joint => run.repeat += 1,
                _ => runs.push(Segment { owner, first: unit, units: 1, repeat: 1 }),
            }
            before = Some(root);
        }
        self.join(runs, &roots, units.joints(node))
    }

    /// Joins neighbouring stretches of consecutive units, but for those that concatenations keep apart.
    fn join(&self, runs: Axis, roots: &[usize], joints: &[usize]) -> Axis {
        let mut joined: Axis = Vec::new();
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
        joined
    }
}

/// Whether `run` is the next unit behind `last`.
fn continues(last: &Segment, run: &Segment) -> bool {
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

/// For every unit, the producers that make it.
struct Makers {
    /// (unit, producer), ascending.
    pairs: Vec<(usize, NodeId)>,
}

impl Makers {
    fn of(units: &mut Units, order: &[NodeId]) -> Self {
        let mut pairs: Vec<(usize, NodeId)> = Vec::new();
        for &producer in order {
            pairs.extend(units.roots(producer).into_iter().map(|root| (root, producer)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        Self { pairs }
    }

    fn of_unit(&self, unit: usize) -> impl Iterator<Item = NodeId> {
        let from = self.pairs.partition_point(|pair| pair.0 < unit);
        self.pairs[from..].iter().take_while(move |pair| pair.0 == unit).map(|pair| pair.1)
    }

    /// All units of the group that begins with `roots`: those of every producer that is tied to it, however indirectly.
    fn all_units(&self, roots: &[usize], units: &mut Units) -> Vec<usize> {
        let mut all: Vec<usize> = Vec::new();
        let mut known: BTreeSet<usize> = BTreeSet::new();
        let mut producers: BTreeSet<NodeId> = BTreeSet::new();
        let mut waiting: Vec<usize> = roots.to_vec();
        let mut at = 0;
        while at < waiting.len() {
            let root = waiting[at];
            at += 1;
            if !known.insert(root) {
                continue;
            }
            all.push(root);
            for producer in self.of_unit(root) {
                if producers.insert(producer) {
                    waiting.extend(units.roots(producer));
                }
            }
        }
        all
    }
}

/// Outputs may be flattened, averaged and summed on their way, but not bent: the mean of the members would be lost.
fn refuse_nonlinear_outputs(graph: &Graph, units: &mut Units, outputs: &[usize]) -> Result<(), CouplingError> {
    let outputs: BTreeSet<usize> = outputs.iter().copied().collect();
    for (id, node) in graph.iter().filter(|(_, node)| !keeps_means(&node.op) && !node.op.has_parameters()) {
        if units.roots(id).iter().any(|root| outputs.contains(root)) {
            return Err(refuse(
                node,
                "the network's outputs pass through it; the mean of the members needs linear outputs",
            ));
        }
    }
    Ok(())
}

/// Whether an operation of means is the mean of the operations.
fn keeps_means(op: &Op) -> bool {
    let mean = matches!(
        op,
        Op::AvgPool1d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::GlobalAvgPool2d
            | Op::TokenMean
    );
    let places =
        matches!(op, Op::Flatten | Op::Reshape { .. } | Op::Concat | Op::Dropout { .. } | Op::TokenSelect { .. });
    mean || places || matches!(op, Op::Add | Op::Input { .. })
}
