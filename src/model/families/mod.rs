//! From checkpoints to networks: what names and shapes tell, completed by the conventions of known families.

mod builder;
mod catalogue;
mod chain;
mod convnet;
mod convnext;
mod densenet;
mod efficientnet;
pub mod fresh;
mod inspection;
mod inverted;
mod members;
mod mlp;
mod mobilenet_v2;
mod mobilenet_v3;
mod modules;
mod named;
mod resnet;
mod vit;
mod wide_resnet;

pub use catalogue::{FAMILIES, Family};
pub use inspection::{GroupSummary, Inspection, Reading, inspect};

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::graph::json as graph_json;
use crate::model::graph::{Graph, MAX_ELEMENTS, Shape};
use crate::model::header::CheckpointHeader;
use crate::settings::Architecture;

/// What is known of a network besides its checkpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Given<'a> {
    /// Shape of one input example.
    input: Option<&'a Shape>,
    /// Number of heads.
    heads: Option<usize>,
}

/// A network that fits a checkpoint.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    family: &'static str,
    graph: Graph,
    assumptions: Vec<String>,
}

/// Why no network fits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unfit {
    /// Names and shapes of no known family.
    Unknown(String),
    /// A known family, but not for this input.
    Input(String),
    /// A known family, but not with this number of heads.
    Heads(String),
}

/// What the members of an ensemble are.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Name of the family; `graph` for one that was spelled out.
    pub family: String,
    /// One network per member: the same topology, each with its own widths.
    pub graphs: Vec<Graph>,
    /// What names and shapes do not tell.
    pub assumptions: Vec<String>,
}

/// Recognises the members of an ensemble. `input_shape` is the shape of one example, where it is known.
///
/// # Errors
/// [`Code::ArchitectureUnknown`] and [`Code::ArchitectureAmbiguous`] for the first member, [`Code::InvalidRequest`] for a
/// wrong graph or input shape, [`Code::MembersIncompatible`] with every mismatch of every other member.
pub fn detect(
    headers: &[&CheckpointHeader],
    architecture: &Architecture,
    input_shape: Option<&Shape>,
) -> Result<Detected, Problem> {
    let Some(first) = headers.first() else {
        return Err(Problem::faults(vec![Fault::new("/members", FaultCode::TooFew, "expected at least one member")]));
    };
    if let Some(shape) = input_shape {
        check_input(shape)?;
    }
    let found = match architecture {
        Architecture::Auto => recognise(first, None, Given { input: input_shape, heads: None })?,
        Architecture::Family { name, heads } => {
            recognise(first, Some(name), Given { input: input_shape, heads: *heads })?
        }
        Architecture::Graph(value) => {
            let graph = spelled_out(value, input_shape, "/architecture/graph")?;
            Candidate { family: "graph", graph, assumptions: Vec::new() }
        }
    };
    let graphs = members::graphs(&found.graph, headers)?;
    Ok(Detected { family: found.family.to_owned(), graphs, assumptions: found.assumptions })
}

/// Checks that an example of this shape could exist.
fn check_input(shape: &Shape) -> Result<(), Problem> {
    let elements = shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    if matches!((shape.len(), elements), (1..=3, Some(1..=MAX_ELEMENTS))) {
        return Ok(());
    }
    let detail = format!("expected [D], [C, L] or [C, H, W] with positive sizes, got {shape:?}");
    Err(Problem::faults(vec![Fault::new("/input_shape", FaultCode::InvalidShape, detail)]))
}

/// The one network that fits a checkpoint.
fn recognise(header: &CheckpointHeader, family: Option<&str>, given: Given<'_>) -> Result<Candidate, Problem> {
    if let Some(name) = family {
        check_family(name, given.heads)?;
    }
    let mut found = catalogue::candidates(header, given).map_err(unfit)?;
    found.retain(|candidate| family.is_none_or(|name| candidate.family == name));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(unfit(Unfit::Unknown(match family {
            Some(name) => format!("the first member's tensors are not those of the family `{name}`"),
            None => "no input of a usual size fits the layers; give `input_shape`".to_owned(),
        }))),
        _ => Err(ambiguous(found)),
    }
}

/// Checks that there is a family `name`, and that it has heads if a number of them is given.
fn check_family(name: &str, heads: Option<usize>) -> Result<(), Problem> {
    let fault =
        |pointer: &str, code: FaultCode, detail: String| Err(Problem::faults(vec![Fault::new(pointer, code, detail)]));
    if !FAMILIES.iter().any(|known| known.name == name) {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        let detail = format!("expected one of {}, got `{name}`", known.join(", "));
        return fault("/architecture/family", FaultCode::UnknownFamily, detail);
    }
    if heads.is_some() && name != vit::FAMILY {
        let detail = format!("only networks of the family `{}` have heads", vit::FAMILY);
        return fault("/architecture/heads", FaultCode::NotApplicable, detail);
    }
    Ok(())
}

fn unfit(reason: Unfit) -> Problem {
    match reason {
        Unfit::Unknown(detail) => {
            let advice = "spell the network out as `{\"architecture\": {\"graph\": …}}`";
            Problem::new(Code::ArchitectureUnknown, format!("{detail}; {advice}"))
        }
        Unfit::Input(detail) => Problem::faults(vec![Fault::new("/input_shape", FaultCode::ShapeMismatch, detail)]),
        Unfit::Heads(detail) => {
            Problem::faults(vec![Fault::new("/architecture/heads", FaultCode::InvalidValue, detail)])
        }
    }
}

/// Several networks fit: the candidates, and what decides between them.
fn ambiguous(found: Vec<Candidate>) -> Problem {
    let decide = decide(&found);
    let errors: Vec<Fault> = found
        .into_iter()
        .map(|Candidate { family, graph, assumptions }| {
            let detail = format!("{family} for inputs of shape {:?}: {}", graph.input_shape(), assumptions.join("; "));
            Fault::new("/architecture", FaultCode::Candidate, detail)
        })
        .collect();
    let detail = format!("{} networks fit the first member; {decide}", errors.len());
    Problem { code: Code::ArchitectureAmbiguous, detail, errors }
}

/// What the user can say to decide between networks.
fn decide(found: &[Candidate]) -> String {
    let same = |matches: fn(&Candidate, &Candidate) -> bool| found.windows(2).all(|pair| matches(&pair[0], &pair[1]));
    if found.iter().all(|candidate| candidate.family == vit::FAMILY) {
        return format!(
            "give the number of heads: `{{\"architecture\": {{\"family\": \"{}\", \"heads\": …}}}}`",
            vit::FAMILY
        );
    }
    let mut ways = Vec::new();
    if !same(|a, b| a.graph.input_shape() == b.graph.input_shape()) {
        ways.push("`input_shape` or a dataset");
    }
    if !same(|a, b| a.family == b.family) {
        ways.push("the family: `{\"architecture\": {\"family\": …}}`");
    }
    ways.push("the graph: `{\"architecture\": {\"graph\": …}}`");
    format!("give {}", ways.join(", or "))
}

/// The network that its JSON form `value` spells out, which reads examples of the shape `input` where that is known.
///
/// # Errors
/// [`Code::InvalidRequest`] with every fault, below `pointer`.
pub fn spelled_out(value: &serde_json::Value, input: Option<&Shape>, pointer: &str) -> Result<Graph, Problem> {
    let graph = graph_json::parse(value).map_err(|faults| {
        let below = |fault: Fault| Fault { pointer: format!("{pointer}{}", fault.pointer), ..fault };
        Problem::faults(faults.into_iter().map(below).collect())
    })?;
    match input {
        Some(shape) if shape != graph.input_shape() => {
            let detail = format!("the graph reads examples of shape {:?}, the data has {shape:?}", graph.input_shape());
            Err(Problem::faults(vec![Fault::new(pointer, FaultCode::ShapeMismatch, detail)]))
        }
        _ => Ok(graph),
    }
}

#[cfg(test)]
mod tests;
