//! Sizes of the least-squares systems and second moments that calibration makes.

use crate::cost::calibration::{MOST_UNKNOWNS, mixes, reads_units};
use crate::model::graph::{Graph, NodeId, Op};
use crate::settings::Convolutions;

/// Second moments of features, and of features with targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Unknowns per row of the solution.
    pub features: u64,
    /// Rows of the solution.
    pub targets: u64,
    /// Rows of features; per example, until the number of examples is known.
    pub rows: u64,
    /// Systems of these sizes: one for each group of a grouped convolution.
    pub systems: u64,
}

impl Fit {
    /// Elements of the moments.
    #[must_use]
    pub fn moments(&self) -> u64 {
        self.systems * self.features * (self.features + self.targets)
    }

    /// Multiply-accumulates of the moments, of which half the symmetric ones are computed.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.rows * self.systems * self.features * (self.features.div_ceil(2) + self.targets)
    }
}

/// The refits behind a selection: of every layer that reads another.
#[must_use]
pub fn refits(fused: &Graph, members: &[Graph], convolutions: Convolutions, positions: u64) -> Vec<Fit> {
    let inner = fused.iter().filter(|(id, node)| mixes(&node.op) && reads_units(fused, *id));
    let fits = inner.flat_map(|(id, node)| {
        let own = |graph: &Graph| channels(graph, graph.node(id).inputs[0]);
        let all: u64 = members.iter().map(own).sum();
        let (repeat, outputs) = (repeat(fused, id), fused.shape(id)[0] as u64);
        let fit = |features: u64, targets: u64, places: u64| Fit {
            features,
            targets,
            rows: places.min(positions),
            systems: 1,
        };
        let places = |id: NodeId| fused.shape(id)[1..].iter().map(|axis| *axis as u64).product::<u64>();
        if let Some(conv) = node.op.convolution() {
            let taps = (conv.window.kernel[0] * conv.window.kernel[1]) as u64;
            let (groups, inputs) = (conv.groups() as u64, conv.inputs_of_one() as u64);
            if conv.group_width.is_some() {
                return vec![Fit { systems: groups, ..fit(inputs * taps, outputs / groups, places(id)) }];
            }
            let full = taps == 1 || convolutions == Convolutions::Full && inputs * taps <= MOST_UNKNOWNS as u64;
            let targets = if full { outputs } else { all };
            return vec![fit(inputs * if full { taps } else { 1 }, targets, places(id))];
        }
        match &node.op {
            Op::Attention { .. } => vec![fit(outputs, 3 * outputs, places(id)), fit(outputs, outputs, places(id))],
            Op::Linear { in_features, .. } if *in_features <= MOST_UNKNOWNS || repeat == 1 => {
                vec![fit(*in_features as u64, outputs, places(id))]
            }
            _ => vec![fit(own(fused) / repeat, all / repeat, repeat)],
        }
    });
    fits.filter(|fit| fit.features <= MOST_UNKNOWNS as u64).collect()
}

/// The moments of every layer's inputs, of all members together.
#[must_use]
pub fn rankings(members: &[Graph], positions: u64) -> Vec<Fit> {
    let first = &members[0];
    let readers = first.iter().filter(|(id, node)| node.op.is_dense() && reads_units(first, *id));
    let fits = readers.flat_map(|(id, node)| {
        let operand = first.node(id).inputs[0];
        let repeat = repeat(first, id);
        let features = members.iter().map(|graph| channels(graph, operand)).sum::<u64>() / repeat;
        let places: u64 = first.shape(operand)[1..].iter().map(|axis| *axis as u64).product();
        let rows = places.min(positions) * repeat.min(positions);
        // Of an attention also its heads, which have as many channels.
        let count = if matches!(node.op, Op::Attention { .. }) { 2 } else { 1 };
        vec![Fit { features, targets: 0, rows, systems: 1 }; count]
    });
    fits.collect()
}

fn channels(graph: &Graph, id: NodeId) -> u64 {
    graph.shape(id)[0] as u64
}

/// Positions per channel behind a flatten.
fn repeat(graph: &Graph, id: NodeId) -> u64 {
    let operand = graph.node(id).inputs[0];
    match graph.node(operand) {
        node if node.op == Op::Flatten => {
            graph.shape(node.inputs[0])[1..].iter().map(|axis| *axis as u64).product::<u64>().max(1)
        }
        _ => 1,
    }
}
