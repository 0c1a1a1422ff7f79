//! Which networks can be compensated, and what compensation did: part of report and provenance.

use serde::{Deserialize, Serialize};

use crate::domain::problem::Fault;
use crate::job::request::{Compensate, Method};
use crate::model::graph::{Graph, Node, NodeId, Op, Window};

/// Most units of all members in one layer up to which `auto` compensates without data: it takes memory with their square.
const MOST_UNITS: usize = 4096;

/// What `wanted` comes to for these networks of one topology: never [`Compensate::Auto`].
///
/// # Errors
/// A fault at `/method/compensate` or `/method/importance` for what the network or a missing dataset rules out.
pub fn resolve(wanted: &Method, graphs: &[Graph], has_dataset: bool) -> Result<Compensate, Vec<Fault>> {
    if !wanted.name.selects() {
        return Ok(Compensate::None);
    }
    let graph = &graphs[0];
    let mut faults = Vec::new();
    let running = graph.iter().find(|(id, _)| !runs_in_calibration(graph, *id)).map(|(_, node)| node);
    let no_chain = graph.nodes().iter().find(|node| !is_chain_link(node)).or(running);
    let mut refuse = |field: &str, needs: &str, node: Option<&Node>| {
        if let Some(node) = node {
            let detail = format!("{needs}; node `{}` of this network is not supported yet", node.name);
            faults.push(Fault::new(format!("/method/{field}"), "not_supported_yet", detail));
        }
    };
    if wanted.importance.needs_activations() {
        refuse("importance", "this ranking looks at activations", running);
    }
    let resolved = match (wanted.compensate, has_dataset) {
        (Compensate::Auto, true) if running.is_none() => Compensate::Calibration,
        (Compensate::Auto, false) if no_chain.is_none() && widest(graphs) <= MOST_UNITS => Compensate::DataFree,
        (Compensate::Calibration, _) => {
            refuse("compensate", "calibration runs the network node by node", running);
            Compensate::Calibration
        }
        (Compensate::DataFree, _) => {
            let needs = "compensation without data needs a chain of Linear, BatchNorm and ReLU on vectors";
            refuse("compensate", needs, no_chain);
            Compensate::DataFree
        }
        (Compensate::None | Compensate::Auto, _) => Compensate::None,
    };
    if !has_dataset {
        let missing = [
            ("importance", wanted.importance.needs_data()),
            ("compensate", wanted.compensate == Compensate::Calibration),
        ];
        for (field, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            let detail = "needs a dataset: its train split is the calibration data";
            faults.push(Fault::new(format!("/method/{field}"), "missing_field", detail));
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

/// Units of all members together in the widest layer.
fn widest(graphs: &[Graph]) -> usize {
    let units = |id: NodeId| graphs.iter().map(|graph| graph.shape(id)[0]).sum();
    let dense = graphs[0].iter().filter(|(_, node)| matches!(node.op, Op::Linear { .. }));
    dense.map(|(id, _)| units(id)).max().unwrap_or(0)
}

/// Whether calibration can run the node.
#[must_use]
pub fn runs_in_calibration(graph: &Graph, id: NodeId) -> bool {
    let plain = |window: &Window| window.dilation == [1, 1];
    let runs = match &graph.node(id).op {
        Op::Input { .. }
        | Op::Linear { .. }
        | Op::BatchNorm { .. }
        | Op::Relu
        | Op::GlobalAvgPool2d
        | Op::Flatten
        | Op::Add => true,
        Op::Conv2d { group_width: None, window, .. }
        | Op::MaxPool2d { window, ceil_mode: false }
        | Op::AvgPool2d { window, ceil_mode: false, count_include_pad: true } => plain(window),
        _ => false,
    };
    runs && matches!(graph.shape(id).len(), 1 | 3)
}

/// Whether the node may be part of a chain whose second moments are known without data. (No node of a chain has two
/// operands; that nobody reads a node twice follows, since every node is read.)
fn is_chain_link(node: &Node) -> bool {
    matches!(node.op, Op::Input { .. } | Op::Flatten | Op::Linear { .. } | Op::BatchNorm { .. } | Op::Relu)
}

/// How the layers behind a selection were refitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compensation {
    /// Where the moments come from.
    pub source: Source,
    /// Calibration examples; 0 without data.
    pub samples: usize,
    /// Every layer that was refitted, in order of computation.
    pub layers: Vec<RefittedLayer>,
    /// Whether the refitted network is the fused one: `auto` keeps the better of both on the validation split.
    pub kept: bool,
}

/// Where moments come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Activations on inputs of the train split; labels are not read.
    Calibration,
    /// Inputs are taken for Gaussian noise.
    DataFree,
}

/// One refitted layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefittedLayer {
    /// Name of its module.
    pub layer: String,
    /// What the unknowns are.
    pub system: System,
    /// Unknowns per row.
    pub unknowns: usize,
    /// Rows of features that the fit saw: examples times positions; 0 without data.
    pub rows: usize,
    /// The ridge, relative to the mean of the diagonal.
    pub ridge: f64,
    /// Share of the targets' variance (second moment, in layers without a bias) that the fit misses, on held-out examples
    /// where there were enough to hold some out. Targets are the layer's outputs; for shared systems the channels that it reads.
    pub relative_residual: f64,
}

/// What the unknowns of a layer's fit are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// Every weight of a row by itself.
    Full,
    /// One matrix from kept to all channels, for all positions of the kernel.
    ChannelShared,
}
