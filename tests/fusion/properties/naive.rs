//! What fusion computes, the naive way: in a concatenated network that is built.

use std::collections::{BTreeMap, BTreeSet};

use engraft::fusion::Fused;
use engraft::model::graph::{Graph, Node, NodeId, Op};
use engraft::model::parameters;
use engraft::tensors::{StateDict, Weights};

/// The concatenated network as a user would have it, and its coupling groups by brute force: two positions of two axes
/// belong together if the values that pass there must be kept or dropped together.
pub(crate) struct Naive {
    graph: Graph,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// For every node, the unit that stands at each channel (and whether it may be pruned).
    pub(crate) units: Vec<Vec<usize>>,
}

impl Naive {
    pub(crate) fn new(concatenated: &Fused) -> Self {
        let graph = concatenated.graph.clone();
        let read = |p: parameters::Parameter| {
            let values = concatenated.weights.f32(&p.name).unwrap().into_owned();
            (p.name, (p.shape, values))
        };
        let tensors = parameters::of_graph(&graph).into_iter().map(read).collect();
        let units = trace(&graph);
        Self { graph, tensors, units }
    }

    /// The units that come out of these dense operations and channels of zeros, and of no others.
    pub(crate) fn made_by(&self, producers: &[NodeId]) -> BTreeSet<usize> {
        let makes = |node: &Node| node.op.is_dense() || matches!(node.op, Op::Zeros { .. });
        let dense = self.graph.iter().filter(|(_, node)| makes(node)).map(|(id, _)| id);
        let dense: Vec<NodeId> = dense.collect();
        let alike = |unit: &&usize| dense.iter().all(|id| self.units[id.0].contains(unit) == producers.contains(id));
        self.units[producers[0].0].iter().filter(alike).copied().collect()
    }

    /// Sum of squares, over what is left, of every tensor slice that belongs to `unit`, as an average over the tensors of
    /// its `group`.
    pub(crate) fn score(&self, unit: usize, group: &BTreeSet<usize>, dropped: &BTreeSet<usize>) -> f64 {
        let mut sum = 0.0;
        let mut counted = BTreeSet::new();
        for (id, node) in self.graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            let (shape, values) = &self.tensors[&parameters::of_node(node)[0].name];
            let rows = &self.units[id.0];
            if !node.op.is_dense() {
                for (row, values) in values.chunks(values.len() / rows.len()).enumerate() {
                    if group.contains(&rows[row]) {
                        counted.insert((id, 0));
                    }
                    if rows[row] == unit {
                        sum += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
                    }
                }
                continue;
            }
            let columns = &self.units[node.inputs[0].0];
            let inner: usize = shape[2..].iter().product();
            for (row, row_unit) in rows.iter().enumerate() {
                for (column, column_unit) in columns.iter().enumerate() {
                    counted.extend(group.contains(row_unit).then_some((id, 0)));
                    counted.extend(group.contains(column_unit).then_some((id, 1)));
                    if dropped.contains(row_unit) || dropped.contains(column_unit) {
                        continue;
                    }
                    let at = (row * columns.len() + column) * inner;
                    let squares: f64 = values[at..at + inner].iter().map(|value| f64::from(*value).powi(2)).sum();
                    sum += squares * f64::from(u8::from(*row_unit == unit) + u8::from(*column_unit == unit));
                }
            }
        }
        sum / counted.len() as f64
    }

    /// What is left of a tensor when the dropped units' rows and columns are cut out.
    pub(crate) fn cut(&self, name: &str, dropped: &BTreeSet<usize>) -> Vec<f32> {
        let (_, values) = &self.tensors[name];
        let owns = |node: &Node| parameters::of_node(node).iter().position(|tensor| tensor.name == name);
        let mut nodes = self.graph.iter();
        let (id, node, tensor) = nodes.find_map(|(id, node)| Some((id, node, owns(node)?))).unwrap();
        let rows = &self.units[id.0];
        let all = [usize::MAX];
        let matrix = tensor == 0 && node.op.is_dense();
        let columns = if matrix { &self.units[node.inputs[0].0][..] } else { &all };
        let inner = values.len() / rows.len() / columns.len();
        let mut left = Vec::new();
        for (row, _) in rows.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
            for (column, _) in columns.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
                let at = (row * columns.len() + column) * inner;
                left.extend_from_slice(&values[at..at + inner]);
            }
        }
        left
    }

    /// The weights with every dropped unit masked where dense layers read it: behind its last operation by channel.
    pub(crate) fn masked(&self, dropped: &BTreeSet<usize>) -> StateDict {
        let mut weights = StateDict::default();
        for (id, node) in self.graph.iter() {
            for (index, tensor) in parameters::of_node(node).into_iter().enumerate() {
                let (shape, mut values) = self.tensors[&tensor.name].clone();
                if index == 0 && node.op.is_dense() {
                    let columns = &self.units[node.inputs[0].0];
                    let inner = values.len() / self.units[id.0].len() / columns.len();
                    for (at, values) in values.chunks_exact_mut(inner).enumerate() {
                        if dropped.contains(&columns[at % columns.len()]) {
                            values.fill(0.0);
                        }
                    }
                }
                weights.insert_f32(&tensor.name, &shape, values).unwrap();
            }
        }
        weights
    }
}

/// Units by relaxation: every channel starts as its own unit, and equal ones are renamed until nothing changes.
fn trace(graph: &Graph) -> Vec<Vec<usize>> {
    let mut next = 0;
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (id, node) in graph.iter() {
        let channels = graph.shape(id)[0];
        let inherited = |input: usize| units[node.inputs[input].0].clone();
        let mut same: Vec<(usize, usize)> = Vec::new();
        let own = match node.op {
            Op::Flatten => {
                let from = inherited(0);
                (0..channels).map(|at| from[at * from.len() / channels]).collect()
            }
            Op::Add | Op::Multiply => {
                same = inherited(0).into_iter().zip(inherited(1)).collect();
                inherited(0)
            }
            Op::Concat => (0..node.inputs.len()).flat_map(inherited).collect(),
            Op::Conv2d { in_channels, out_channels, group_width: Some(width), .. } => {
                let from = inherited(0);
                same = (0..in_channels).map(|at| (from[at], from[at / width * width])).collect();
                let outputs = out_channels * width / in_channels;
                (0..out_channels).map(|at| from[at / outputs * width]).collect()
            }
            Op::Input { .. } | Op::Linear { .. } | Op::Conv2d { .. } | Op::Zeros { .. } => {
                next += channels;
                (next - channels..next).collect()
            }
            _ => inherited(0),
        };
        units.push(own);
        for at in 0..same.len() {
            let (a, b) = same[at];
            let (to, from) = (a.min(b), a.max(b));
            let renamed = units.iter_mut().flatten().chain(same.iter_mut().flat_map(|(a, b)| [a, b]));
            renamed.filter(|unit| **unit == from).for_each(|unit| *unit = to);
        }
    }
    units
}
