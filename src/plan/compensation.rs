//! Which networks can be compensated.

use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::settings::{Compensate, Importance, Method};

/// Most units of all members in one layer up to which `auto` compensates without data: it takes memory with their square.
const MOST_UNITS: usize = 4096;

/// What `wanted` comes to for these networks of one topology: never [`Compensate::Auto`]. Without data, `auto` compensates
/// only what is `known` to be the members' network: the statistics of an activation that is guessed harm.
///
/// # Errors
/// A fault at `/method/compensate` or `/method/importance` for what the network or a missing dataset rules out.
pub fn resolve(wanted: &Method, graphs: &[Graph], has_dataset: bool, known: bool) -> Result<Compensate, Vec<Fault>> {
    if !wanted.name.selects() {
        return Ok(Compensate::None);
    }
    let mut faults = Vec::new();
    let resolved = match (wanted.compensate, has_dataset) {
        (Compensate::Auto | Compensate::Calibration, true) | (Compensate::Calibration, false) => {
            Compensate::Calibration
        }
        (Compensate::Auto, false) if known && without_data(graphs).is_ok() => Compensate::DataFree,
        (Compensate::DataFree, _) => {
            if let Some(node) = no_link(&graphs[0]) {
                let detail = format!("{CHAIN}; node `{}` of this network is not supported yet", node.name);
                faults.push(Fault::new("/method/compensate", FaultCode::NotSupportedYet, detail));
            }
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
            faults.push(Fault::new(format!("/method/{field}"), FaultCode::MissingField, detail));
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

/// The ranking that `method`, its compensation resolved, comes to: [`Importance::Auto`] tries several only where layers are
/// refitted on calibration data.
#[must_use]
pub fn importance(method: &Method) -> Importance {
    match method.importance {
        Importance::Auto if !method.name.selects() || method.compensate != Compensate::Calibration => {
            Importance::Magnitude
        }
        other => other,
    }
}

/// What compensation without data needs.
const CHAIN: &str =
    "compensation without data needs a chain of Linear, BatchNorm, ReLU, leaky ReLU and Dropout on vectors";

/// Whether `auto` compensates these networks where there is no data.
///
/// # Errors
/// Why it does not, in words.
pub fn without_data(graphs: &[Graph]) -> Result<(), String> {
    if let Some(node) = no_link(&graphs[0]) {
        return Err(format!("{CHAIN}, and `{}` is none of these", node.name));
    }
    let units = |id: NodeId| graphs.iter().map(|graph| graph.shape(id)[0]).sum();
    let dense = graphs[0].iter().filter(|(_, node)| matches!(node.op, Op::Linear { .. }));
    let widest: usize = dense.map(|(id, _)| units(id)).max().unwrap_or(0);
    if widest > MOST_UNITS {
        return Err(format!(
            "the members have layers of {widest} units together; without data it takes memory with their square"
        ));
    }
    Ok(())
}

/// The first node that is no part of a chain whose second moments are known without data. (No node of a chain has two
/// operands; that nobody reads a node twice follows, since every node is read.)
fn no_link(graph: &Graph) -> Option<&Node> {
    // Inputs are Gaussians as they come.
    let first = graph.nodes().iter().position(|node| matches!(node.op, Op::Linear { .. }));
    let is_link = |(id, node): &(NodeId, &Node)| match node.op {
        Op::Input { .. } | Op::Flatten | Op::Dropout { .. } => true,
        Op::Linear { .. } => graph.shape(*id).len() == 1,
        Op::BatchNorm { .. } | Op::Relu | Op::LeakyRelu { .. } => {
            graph.shape(*id).len() == 1 && first.is_some_and(|first| first < id.0)
        }
        _ => false,
    };
    graph.iter().find(|node| !is_link(node)).map(|(_, node)| node)
}
