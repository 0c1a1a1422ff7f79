//! Units on the channel axes of a network, handed through its operations.

use std::rc::Rc;

use crate::model::graph::{Graph, NodeId, Op};

/// The units on every node's channel axis, with a union-find over them.
pub(super) struct Units {
    parent: Vec<usize>,
    axes: Vec<Channels>,
}

/// A node's channels.
#[derive(Clone)]
struct Channels {
    /// The unit of each.
    units: Rc<[usize]>,
    /// Channels, ascending, before which another operand of a concatenation begins. In a concatenated network the
    /// members' units are stacked between two such places.
    joints: Rc<[usize]>,
}

impl Units {
    /// Hands units through the graph.
    pub(super) fn trace(graph: &Graph) -> Self {
        let mut units = Self { parent: Vec::new(), axes: Vec::with_capacity(graph.nodes().len()) };
        for (id, node) in graph.iter() {
            let operands: Vec<Channels> = node.inputs.iter().map(|input| units.axes[input.0].clone()).collect();
            let axis = match node.op {
                Op::Input { .. } | Op::Zeros { .. } => units.fresh(graph.shape(id)[0]),
                _ if node.op.is_dense() => units.fresh(graph.shape(id)[0]),
                Op::Flatten | Op::Reshape { .. } => {
                    let positions = |id: NodeId| graph.shape(id)[1..].iter().product();
                    units.reshaped(&operands[0], positions(node.inputs[0]), positions(id))
                }
                Op::Add | Op::Multiply => units.tied(&operands[0], &operands[1]),
                Op::Concat => concatenated(&operands),
                Op::GroupNorm { group_width: Some(width), .. } => {
                    operands[0].units.chunks(width).for_each(|group| units.unite_all(group));
                    operands[0].clone()
                }
                _ => match node.op.convolution().and_then(|conv| Some((conv.groups(), conv.group_width?))) {
                    Some((groups, width)) => units.grouped(&operands[0], width, graph.shape(id)[0] / groups),
                    None => operands[0].clone(),
                },
            };
            units.axes.push(axis);
        }
        units
    }

    fn fresh(&mut self, count: usize) -> Channels {
        let first = self.parent.len();
        self.parent.extend(first..first + count);
        Channels { units: (first..first + count).collect(), joints: Rc::from([]) }
    }

    /// The channels of the same values in the same order with other positions; units that come to share a channel
    /// become one.
    fn reshaped(&mut self, from: &Channels, positions_from: usize, positions_to: usize) -> Channels {
        let channels = from.units.len() * positions_from / positions_to;
        let units = (0..channels).map(|channel| {
            let (first, end) = (channel * positions_to, (channel + 1) * positions_to);
            let covered = &from.units[first / positions_from..end.div_ceil(positions_from)];
            self.unite_all(covered);
            covered[0]
        });
        let units = units.collect();
        let joints = from.joints.iter().map(|joint| joint * positions_from / positions_to);
        Channels { units, joints: joints.collect() }
    }

    /// Makes the units of two operands the same, pair by pair.
    fn tied(&mut self, left: &Channels, right: &Channels) -> Channels {
        left.units.iter().zip(&*right.units).for_each(|(&a, &b)| self.unite(a, b));
        let mut joints: Vec<usize> = left.joints.iter().chain(&*right.joints).copied().collect();
        joints.sort_unstable();
        joints.dedup();
        Channels { units: Rc::clone(&left.units), joints: joints.into() }
    }

    /// The output of a grouped convolution: what belongs to one of its groups is one unit.
    fn grouped(&mut self, from: &Channels, inputs: usize, outputs: usize) -> Channels {
        let groups = from.units.chunks(inputs);
        groups.clone().for_each(|group| self.unite_all(group));
        let joints = from.joints.iter().map(|joint| joint / inputs * outputs);
        Channels {
            units: groups.flat_map(|group| std::iter::repeat_n(group[0], outputs)).collect(),
            joints: joints.collect(),
        }
    }

    /// The representative of a unit: the oldest of those that are the same.
    fn find(&mut self, mut unit: usize) -> usize {
        while self.parent[unit] != unit {
            self.parent[unit] = self.parent[self.parent[unit]];
            unit = self.parent[unit];
        }
        unit
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        let (older, younger) = (a.min(b), a.max(b));
        self.parent[younger] = older;
    }

    fn unite_all(&mut self, units: &[usize]) {
        units.windows(2).for_each(|pair| self.unite(pair[0], pair[1]));
    }

    /// Number of all units that were ever made; representatives lie below it.
    pub(super) fn count(&self) -> usize {
        self.parent.len()
    }

    /// Representatives of the units on a node's axis.
    pub(super) fn roots(&mut self, node: NodeId) -> Vec<usize> {
        let axis = Rc::clone(&self.axes[node.0].units);
        axis.iter().map(|&unit| self.find(unit)).collect()
    }

    /// The channels of a node before which another operand of a concatenation begins.
    pub(super) fn joints(&self, node: NodeId) -> &[usize] {
        &self.axes[node.0].joints
    }
}

/// Channels one after another.
fn concatenated(operands: &[Channels]) -> Channels {
    let mut joints = Vec::new();
    let mut start = 0;
    for operand in operands {
        joints.extend((start > 0).then_some(start));
        joints.extend(operand.joints.iter().map(|joint| start + joint));
        start += operand.units.len();
    }
    let units = operands.iter().flat_map(|operand| operand.units.iter().copied()).collect();
    Channels { units, joints: joints.into() }
}
