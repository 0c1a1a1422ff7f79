//! Which networks can be fitted level after level, as neuron interpolation does, and how large its systems are.

use std::borrow::Borrow;

use crate::cost::calibration::MOST_UNKNOWNS;
use crate::cost::systems::Fit;
use crate::model::graph::{Graph, Node, NodeId, Op};

/// Examples that levels are fitted on by default, as in the paper.
pub const SAMPLES: usize = 400;

/// Most units of all members together in one hidden level: grouping takes memory with their square.
pub const MOST_GROUPED: usize = 8192;

/// A layer with weights, and the BatchNorm behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitLevel {
    /// A linear layer or a convolution.
    pub layer: NodeId,
    /// The BatchNorm behind it.
    pub norm: Option<LevelNorm>,
}

/// A BatchNorm that alone reads a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelNorm {
    /// Its node.
    pub id: NodeId,
    /// What it adds to the variance.
    pub eps: f64,
}

impl FitLevel {
    /// The node whose outputs are the level's.
    #[must_use]
    pub fn output(&self) -> NodeId {
        self.norm.map_or(self.layer, |norm| norm.id)
    }
}

/// Why a network cannot be fitted level after level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}`: {detail}")]
pub struct LevelError {
    /// The node at fault.
    pub node: String,
    /// What is wrong.
    pub detail: String,
}

/// The levels of a network, from the input to the output.
///
/// # Errors
/// Names the first node that no level can hold: only a chain of linear layers and ungrouped convolutions, each perhaps with a
/// BatchNorm behind it, has weights that a least-squares fit gives.
pub fn levels(graph: &Graph) -> Result<Vec<FitLevel>, LevelError> {
    let refused = |node: &Node, why: &str| {
        let detail = format!(
            "`neuron_interpolation` fits a chain of linear layers and convolutions, each perhaps with a BatchNorm behind it; {why}"
        );
        LevelError { node: node.name.clone(), detail }
    };
    let mut levels: Vec<FitLevel> = Vec::new();
    for (id, node) in graph.iter() {
        if node.inputs.len() > 1 {
            return Err(refused(node, "this node joins several operands"));
        }
        match (levels.last_mut(), &node.op) {
            (Some(level), Op::BatchNorm { affine: true, eps, .. }) if node.inputs == [level.layer] => {
                level.norm = Some(LevelNorm { id, eps: *eps });
            }
            _ if is_fitted(&node.op) => {
                let unknowns = unknowns(graph, id);
                if unknowns > MOST_UNKNOWNS {
                    let why = format!("this layer has {unknowns} unknowns for each unit, more than {MOST_UNKNOWNS}");
                    return Err(refused(node, &why));
                }
                levels.push(FitLevel { layer: id, norm: None });
            }
            _ if node.op.has_parameters() => return Err(refused(node, "this node has weights of another kind")),
            _ => {}
        }
    }
    Ok(levels)
}

/// The levels of a fused network of these members, as [`levels`].
///
/// # Errors
/// As [`levels`], and where a hidden level of all members together has too many units to be grouped.
pub fn levels_of(fused: &Graph, members: &[impl Borrow<Graph>]) -> Result<Vec<FitLevel>, LevelError> {
    let levels = levels(fused)?;
    let hidden = &levels[..levels.len().saturating_sub(1)];
    let units = |level: &FitLevel| members.iter().map(|member| member.borrow().shape(level.layer)[0]).sum::<usize>();
    match hidden.iter().find(|level| units(level) > MOST_GROUPED) {
        Some(level) => {
            let detail = format!(
                "`neuron_interpolation` groups at most {MOST_GROUPED} units of all members, here are {}",
                units(level)
            );
            Err(LevelError { node: fused.node(level.layer).name.clone(), detail })
        }
        None => Ok(levels),
    }
}

/// The least-squares systems of the levels of a network that [`levels_of`] allows; those of others are none. Rows are
/// counted for one example.
#[must_use]
pub fn fits(fused: &Graph, members: &[impl Borrow<Graph>], positions: u64) -> Vec<Fit> {
    let levels = levels_of(fused, members).unwrap_or_default();
    let fit = |(index, level): (usize, &FitLevel)| {
        let width = |graph: &Graph| graph.shape(level.layer)[0] as u64;
        let places: u64 = fused.shape(level.layer)[1..].iter().map(|axis| *axis as u64).product();
        let is_last = index + 1 == levels.len();
        Fit {
            features: unknowns(fused, level.layer) as u64,
            targets: if is_last { width(fused) } else { members.iter().map(|member| width(member.borrow())).sum() },
            rows: places.min(positions),
            systems: 1,
        }
    };
    levels.iter().enumerate().map(fit).collect()
}

/// What one unit of a layer reads at one position.
#[must_use]
pub fn unknowns(graph: &Graph, layer: NodeId) -> usize {
    let node = graph.node(layer);
    node.inputs.iter().map(|input| graph.shape(*input)[0]).sum::<usize>() * node.op.taps()
}

fn is_fitted(op: &Op) -> bool {
    matches!(op, Op::Linear { .. }) || op.convolution().is_some_and(|conv| conv.group_width.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::Window;

    fn graph(ops: Vec<(Op, Vec<usize>)>) -> Graph {
        let node = |(index, (op, inputs)): (usize, (Op, Vec<usize>))| Node {
            name: format!("n{index}"),
            op,
            inputs: inputs.into_iter().map(NodeId).collect(),
        };
        Graph::new(ops.into_iter().enumerate().map(node).collect()).expect("a network")
    }

    fn convnet(width: usize) -> Graph {
        graph(vec![
            (Op::Input { shape: vec![2, 6, 6] }, vec![]),
            (Op::conv2d(2, width, Window::square(3, 1, 1), false), vec![0]),
            (Op::BatchNorm { affine: true, features: width, eps: 1e-5 }, vec![1]),
            (Op::Relu, vec![2]),
            (Op::Flatten, vec![3]),
            (Op::Linear { in_features: 36 * width, out_features: 3, bias: true }, vec![4]),
        ])
    }

    #[test]
    fn a_batch_norm_belongs_to_the_level_before_it() {
        let (fused, members) = (convnet(4), [convnet(4), convnet(5)]);
        let found = levels_of(&fused, &members).expect("a chain");
        let expected = [
            FitLevel { layer: NodeId(1), norm: Some(LevelNorm { id: NodeId(2), eps: 1e-5 }) },
            FitLevel { layer: NodeId(5), norm: None },
        ];
        assert_eq!(found, expected);
        let sizes: Vec<_> =
            fits(&fused, &members, 16).iter().map(|fit| (fit.features, fit.targets, fit.rows)).collect();
        assert_eq!(sizes, [(18, 9, 16), (144, 3, 1)]);
    }

    #[test]
    fn what_no_level_holds_is_named() {
        let input = || (Op::Input { shape: vec![4, 6, 6] }, vec![]);
        let conv = |group_width| Op::Conv2d {
            in_channels: 4,
            out_channels: 4,
            group_width,
            window: Window::square(3, 1, 1),
            bias: false,
        };
        let sum = graph(vec![input(), (conv(None), vec![0]), (Op::Add, vec![0, 1])]);
        let grouped = graph(vec![input(), (conv(Some(1)), vec![0])]);
        let normalised =
            graph(vec![input(), (conv(None), vec![0]), (Op::LayerNorm { features: 4, eps: 1e-5 }, vec![1])]);
        let early = graph(vec![
            input(),
            (Op::BatchNorm { affine: true, features: 4, eps: 1e-5 }, vec![0]),
            (conv(None), vec![1]),
        ]);
        let pieces = [(&sum, "n2", "joins"), (&grouped, "n1", "another kind"), (&normalised, "n2", "another kind")];
        for (graph, node, why) in pieces.into_iter().chain([(&early, "n1", "another kind")]) {
            let refused = levels(graph).expect_err("no chain of levels");
            assert!(refused.node == node && refused.detail.contains(why), "{refused}");
        }
        let wide = levels(&convnet(120)).expect_err("4,320 unknowns");
        assert!(wide.detail.contains("4320"), "{wide}");
        let (fused, members) = (convnet(4), [convnet(64), convnet(MOST_GROUPED - 63)]);
        let many = levels_of(&fused, &members).expect_err("too many units");
        assert!(many.node == "n1" && many.detail.contains("8193"), "{many}");
    }
}
