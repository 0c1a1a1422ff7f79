//! Units on the channel axes of a network, handed through its operations.

use std::rc::Rc;

use crate::model::graph::{Graph, NodeId, Op};

/// The units on every node's channel axis, with a union-find over them.
pub(super) struct Units {
    parent: Vec<usize>,
    axes: Vec<Rc<[usize]>>,
}

impl Units {
    /// Hands units through the graph.
    pub(super) fn trace(graph: &Graph) -> Self {
        let mut units = Self { parent: Vec::new(), axes: Vec::with_capacity(graph.nodes().len()) };
        for (id, node) in graph.iter() {
            let operand = |index: usize| node.inputs[index].0;
            let axis = match node.op {
                Op::Input { .. } => units.fresh(graph.shape(id)[0]),
                _ if node.op.is_dense() => units.fresh(graph.shape(id)[0]),
                Op::Flatten => {
                    let positions: usize = graph.shape(node.inputs[0])[1..].iter().product();
                    let channels = units.axes[operand(0)].iter();
                    channels.flat_map(|&unit| std::iter::repeat_n(unit, positions)).collect()
                }
                Op::Add => {
                    let (left, right) = (Rc::clone(&units.axes[operand(0)]), Rc::clone(&units.axes[operand(1)]));
                    left.iter().zip(&*right).for_each(|(&a, &b)| units.unite(a, b));
                    left
                }
                _ => Rc::clone(&units.axes[operand(0)]),
            };
            units.axes.push(axis);
        }
        units
    }

    fn fresh(&mut self, count: usize) -> Rc<[usize]> {
        let first = self.parent.len();
        self.parent.extend(first..first + count);
        (first..first + count).collect()
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

    /// Representatives of the units on a node's axis.
    pub(super) fn roots(&mut self, node: NodeId) -> Vec<usize> {
        let axis = Rc::clone(&self.axes[node.0]);
        axis.iter().map(|&unit| self.find(unit)).collect()
    }
}
