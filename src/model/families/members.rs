//! The first member's network, fitted to each member's widths; every mismatch of every member at once.

use std::collections::BTreeSet;

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::groups::{Couplings, Owner};
use crate::model::header::CheckpointHeader;
use crate::model::parameters;

/// Most faults that are listed for one member.
const MAX_FAULTS: usize = 100;

/// One network per member.
pub(super) fn graphs(first: &Graph, headers: &[&CheckpointHeader]) -> Result<Vec<Graph>, Problem> {
    let fixed = Fixed::of(first);
    let mut graphs = Vec::with_capacity(headers.len());
    let mut faults = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let pointer = format!("/members/{index}");
        match fit(first, &fixed, header, &pointer) {
            Ok(graph) => graphs.push(graph),
            Err(_) if let Some(detail) = prefixed(headers[0], header) => {
                faults.push(Fault::new(pointer, FaultCode::ShapeMismatch, detail));
            }
            Err(of_member) => faults.extend(of_member.into_iter().take(MAX_FAULTS)),
        }
    }
    if faults.is_empty() {
        Ok(graphs)
    } else {
        Err(Problem { code: Code::MembersIncompatible, ..Problem::faults(faults) })
    }
}

/// What to do where only a prefix before all names parts a member from the first one; none where more does.
fn prefixed(first: &CheckpointHeader, member: &CheckpointHeader) -> Option<String> {
    let prefix = |longer: &CheckpointHeader, shorter: &CheckpointHeader| {
        let name = &shorter.tensors.first()?.name;
        let mut names = longer.tensors.iter();
        let prefix = names.find_map(|info| info.name.strip_suffix(name.as_str()))?.to_owned();
        let known: BTreeSet<&str> = shorter.tensors.iter().map(|info| info.name.as_str()).collect();
        let all =
            longer.tensors.iter().all(|info| info.name.strip_prefix(&*prefix).is_some_and(|name| known.contains(name)));
        (all && prefix.ends_with('.') && longer.tensors.len() == shorter.tensors.len()).then_some(prefix)
    };
    let (whose, prefix) = match (prefix(member, first), prefix(first, member)) {
        (Some(prefix), _) => ("this member's names begin with", prefix),
        (None, Some(prefix)) => ("the first member's names begin with", prefix),
        (None, None) => return None,
    };
    Some(format!(
        "{whose} `{prefix}`, the other's do not: save all alike, as with \
         `{{name.removeprefix(\"{prefix}\"): tensor for name, tensor in model.state_dict().items()}}`"
    ))
}

/// Nodes whose widths the task fixes: those that read the input and those that write the outputs.
struct Fixed {
    readers: BTreeSet<NodeId>,
    writers: BTreeSet<NodeId>,
}

impl Fixed {
    fn of(graph: &Graph) -> Self {
        let couplings = Couplings::of(graph).ok();
        let columns = couplings.iter().flat_map(|couplings| &couplings.columns);
        Self {
            readers: columns.filter(|(_, axis)| axis.holds(Owner::Input)).map(|(id, _)| *id).collect(),
            writers: couplings.iter().flat_map(|couplings| couplings.output_layers.iter().copied()).collect(),
        }
    }
}

/// Groups of a GroupNorm must be as wide in all members: a tensor does not tell how many there are.
fn norm_faults(first: &Graph, member: &Graph, pointer: &str) -> Vec<Fault> {
    let pairs = first.nodes().iter().zip(member.nodes());
    let differs = pairs.filter(|(first, member)| {
        matches!(first.op, Op::GroupNorm { group_width: Some(_), .. }) && first.op != member.op
    });
    let fault = |(first, member): (&Node, &Node)| {
        let widths = [first, member].map(|node| parameters::widths(&node.op).map_or(0, |widths| widths.1));
        let detail = format!(
            "node `{}`: members need a GroupNorm of one width to be fused; expected {} channels, got {}",
            first.name, widths[0], widths[1]
        );
        Fault::new(pointer, FaultCode::ShapeMismatch, detail)
    };
    differs.map(fault).collect()
}

/// The network with one member's widths, compared with all of that member's tensors.
fn fit(first: &Graph, fixed: &Fixed, header: &CheckpointHeader, pointer: &str) -> Result<Graph, Vec<Fault>> {
    let graph = parameters::with_widths(first, |id, node| {
        let (input, output) = parameters::widths(&node.op).unwrap_or_default();
        let (own_input, own_output) = parameters::widths_in(header, node).unwrap_or((input, output));
        let keep = |keep: bool, own: usize, first: usize| if keep { first } else { own };
        (keep(fixed.readers.contains(&id), own_input, input), keep(fixed.writers.contains(&id), own_output, output))
    });
    let norms: Vec<Fault> = graph.iter().flat_map(|graph| norm_faults(first, graph, pointer)).collect();
    if !norms.is_empty() {
        return Err(norms);
    }
    let faults = match &graph {
        Ok(graph) => parameters::compare(graph, header, pointer),
        Err(_) => parameters::compare(first, header, pointer),
    };
    match graph {
        Ok(graph) if faults.is_empty() => Ok(graph),
        Err(error) if faults.is_empty() => Err(vec![Fault::new(pointer, FaultCode::ShapeMismatch, error.to_string())]),
        _ => Err(faults),
    }
}
