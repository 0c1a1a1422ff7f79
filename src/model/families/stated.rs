//! Networks that checkpoints state themselves: the metadata of files that engraft wrote hold the graph, and a pickled
//! `Sequential` is one.

use std::collections::BTreeMap;

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::families::{Candidate, Source, UNNAMED, pickled, spelled_out};
use crate::model::graph::json as graph_json;
use crate::model::graph::{Graph, Node, Shape};
use crate::model::header::{CheckpointHeader, STATED_KEY};
use crate::model::parameters;
use crate::settings::Settings;

/// The metadata of a file that holds the weights of `graph`.
#[must_use]
pub fn metadata(graph: &Graph) -> BTreeMap<String, String> {
    BTreeMap::from([(STATED_KEY.to_owned(), serde_json::json!(graph).to_string())])
}

/// The network that the first member states of those that state one, and how; none where no member does.
///
/// # Errors
/// [`Code::InvalidRequest`] where it cannot be read, or not with examples of the shape `input`.
pub(super) fn candidate(
    headers: &[&CheckpointHeader],
    input: Option<&Shape>,
) -> Result<Option<(Candidate, Source)>, Problem> {
    let mut members = headers.iter().enumerate();
    let Some((index, stated)) = members.find_map(|(index, header)| Some((index, header.stated.as_ref()?))) else {
        let pickled = headers.iter().find_map(|header| pickled::candidate(header, input));
        return Ok(pickled.map(|candidate| (candidate, Source::Pickled)));
    };
    let graph = spelled_out(stated, input, &format!("/members/{index}")).map_err(|mut problem| {
        for fault in &mut problem.errors {
            fault.detail = format!(
                "the network in the file's metadata (`{STATED_KEY}`): {}. Give `architecture` if it is not the network of these weights",
                fault.detail
            );
        }
        problem
    })?;
    let candidate = Candidate { family: UNNAMED, graph, settings: Settings::default(), assumptions: Vec::new() };
    Ok(Some((candidate, Source::Stated)))
}

/// Checks that every member that states a network states the one that it is taken for.
///
/// # Errors
/// [`Code::MembersIncompatible`] with every member that states another one.
pub(super) fn check(headers: &[&CheckpointHeader], graphs: &[Graph]) -> Result<(), Problem> {
    let mut faults = Vec::new();
    for (index, (header, graph)) in headers.iter().zip(graphs).enumerate() {
        let (own, where_stated) = match &header.stated {
            Some(own) => (graph_json::parse(own).ok(), format!("in the file's metadata (`{STATED_KEY}`)")),
            None => match pickled::graph(header, graph.input_shape()) {
                None => continue,
                own => (own, "of the pickled model".to_owned()),
            },
        };
        if own.is_some_and(|own| same_but_widths(&own, graph)) {
            continue;
        }
        let detail = format!(
            "the network {where_stated} is another than that of the other members: give `architecture` if all are one"
        );
        faults.push(Fault::new(format!("/members/{index}"), FaultCode::ShapeMismatch, detail));
    }
    if faults.is_empty() { Ok(()) } else { Err(Problem { code: Code::MembersIncompatible, ..Problem::faults(faults) }) }
}

/// Whether both compute the same, but for their widths. Formats call what has no tensors by names of their own.
fn same_but_widths(a: &Graph, b: &Graph) -> bool {
    let same = |(a, b): (&Node, &Node)| {
        (a.name == b.name || parameters::of_node(a).is_empty())
            && a.inputs == b.inputs
            && parameters::same_but_widths(&a.op, &b.op)
    };
    a.input_shape() == b.input_shape()
        && a.nodes().len() == b.nodes().len()
        && a.nodes().iter().zip(b.nodes()).all(same)
}
