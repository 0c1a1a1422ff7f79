//! From checkpoints to networks: what names and shapes tell, completed by the conventions of known families.

mod builder;
mod chain;
mod convnet;
mod members;
mod mlp;
mod modules;
mod resnet;

use serde::Serialize;

use crate::domain::problem::{Code, Fault, Problem};
use crate::model::graph::json as graph_json;
use crate::model::graph::{Graph, MAX_ELEMENTS, Shape};
use crate::model::header::CheckpointHeader;
use crate::model::parameters;

/// Which network the members are.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Architecture {
    /// Recognised from names and shapes.
    #[default]
    Auto,
    /// One of `/v1/architectures`.
    Family(String),
    /// Spelled out, in the JSON form of [`crate::model::graph::Graph`].
    Graph(serde_json::Value),
}

/// A family of networks that checkpoints are recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Family {
    /// Its name in requests and answers.
    pub name: &'static str,
    /// How it is recognised, and what is assumed.
    pub description: &'static str,
}

/// Every family.
pub const FAMILIES: [Family; 5] = [
    Family { name: "mlp", description: "Matrices only, with ReLU between them; BatchNorm where there is one." },
    Family {
        name: "lenet",
        description: "Two 5x5 convolutions with ReLU and 2x2 maximum pooling, then three matrices.",
    },
    Family { name: "vgg", description: "Six or more 3x3 convolutions, with or without BatchNorm, then matrices." },
    Family {
        name: "resnet",
        description: "Residual networks of basic or bottleneck blocks, by their names (`layer1.0.conv1`, …): with a 3x3 stem \
                      as for CIFAR, or a 7x7 stem and a pool as for ImageNet.",
    },
    Family { name: "cnn", description: "Any other chain of convolutions, ReLU, pools and matrices." },
];

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

/// One of several networks that fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// Name of the family.
    pub family: String,
    /// Shape of one input example.
    pub input_shape: Shape,
    /// What names and shapes do not tell.
    pub assumptions: Vec<String>,
}

/// What one checkpoint is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Name of the family, where exactly one network fits.
    pub family: Option<String>,
    /// That network.
    pub graph: Option<Graph>,
    /// Number of trainable weights.
    pub parameters: usize,
    /// What names and shapes do not tell.
    pub assumptions: Vec<String>,
    /// All networks that fit, where there are several.
    pub candidates: Vec<Reading>,
    /// Why no network fits.
    pub unrecognised: Option<String>,
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
        return Err(Problem::faults(vec![Fault::new("/members", "too_few", "expected at least one member")]));
    };
    if let Some(shape) = input_shape {
        check_input(shape)?;
    }
    let found = match architecture {
        Architecture::Auto => recognise(first, None, input_shape)?,
        Architecture::Family(name) => recognise(first, Some(name), input_shape)?,
        Architecture::Graph(value) => spelled_out(value, input_shape)?,
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
    Err(Problem::faults(vec![Fault::new("/input_shape", "invalid_shape", detail)]))
}

/// Looks at one checkpoint without further knowledge.
#[must_use]
pub fn inspect(header: &CheckpointHeader) -> Inspection {
    let mut inspection = Inspection {
        family: None,
        graph: None,
        parameters: parameters::count(header),
        assumptions: Vec::new(),
        candidates: Vec::new(),
        unrecognised: None,
    };
    match candidates(header, None) {
        Ok(found) => enter(&mut inspection, found),
        Err(Unfit::Unknown(detail) | Unfit::Input(detail)) => inspection.unrecognised = Some(detail),
    }
    inspection
}

/// Enters the networks that fit: the only one, or all as candidates.
fn enter(inspection: &mut Inspection, mut found: Vec<Candidate>) {
    if found.len() > 1 {
        inspection.candidates = found.into_iter().map(reading).collect();
    } else if let Some(only) = found.pop() {
        inspection.family = Some(only.family.to_owned());
        inspection.graph = Some(only.graph);
        inspection.assumptions = only.assumptions;
    } else {
        inspection.unrecognised = Some("no input of a usual size fits the layers".to_owned());
    }
}

fn reading(candidate: Candidate) -> Reading {
    Reading {
        family: candidate.family.to_owned(),
        input_shape: candidate.graph.input_shape().clone(),
        assumptions: candidate.assumptions,
    }
}

/// All networks that fit a checkpoint.
fn candidates(header: &CheckpointHeader, input: Option<&Shape>) -> Result<Vec<Candidate>, Unfit> {
    let modules = modules::modules(header).map_err(|details| Unfit::Unknown(details.join("; ")))?;
    if mlp::applies(&modules) {
        mlp::candidates(&modules, input)
    } else if resnet::applies(&modules) {
        resnet::candidates(&modules, input)
    } else {
        convnet::candidates(&modules, input)
    }
}

/// The one network that fits a checkpoint.
fn recognise(header: &CheckpointHeader, family: Option<&str>, input: Option<&Shape>) -> Result<Candidate, Problem> {
    if let Some(name) = family
        && !FAMILIES.iter().any(|known| known.name == name)
    {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        let detail = format!("expected one of {}, got `{name}`", known.join(", "));
        return Err(Problem::faults(vec![Fault::new("/architecture/family", "unknown_family", detail)]));
    }
    let mut found = candidates(header, input).map_err(unfit)?;
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

fn unfit(reason: Unfit) -> Problem {
    match reason {
        Unfit::Unknown(detail) => {
            let advice = "spell the network out as `{\"architecture\": {\"graph\": …}}`";
            Problem::new(Code::ArchitectureUnknown, format!("{detail}; {advice}"))
        }
        Unfit::Input(detail) => Problem::faults(vec![Fault::new("/input_shape", "shape_mismatch", detail)]),
    }
}

/// Several networks fit: the candidates, and what tells them apart.
fn ambiguous(found: Vec<Candidate>) -> Problem {
    let readings = found.into_iter().map(reading).map(|reading| {
        let detail = format!(
            "{} for inputs of shape {:?}: {}",
            reading.family,
            reading.input_shape,
            reading.assumptions.join("; ")
        );
        Fault::new("/architecture", "candidate", detail)
    });
    let errors: Vec<Fault> = readings.collect();
    let detail = format!("{} networks fit the first member; give `input_shape`, a dataset, or the graph", errors.len());
    Problem { code: Code::ArchitectureAmbiguous, detail, errors }
}

/// A network from its JSON form.
fn spelled_out(value: &serde_json::Value, input: Option<&Shape>) -> Result<Candidate, Problem> {
    let graph = graph_json::parse(value).map_err(|faults| {
        let below = |fault: Fault| Fault { pointer: format!("/architecture/graph{}", fault.pointer), ..fault };
        Problem::faults(faults.into_iter().map(below).collect())
    })?;
    match input {
        Some(shape) if shape != graph.input_shape() => {
            let detail = format!("the graph reads examples of shape {:?}, the data has {shape:?}", graph.input_shape());
            Err(Problem::faults(vec![Fault::new("/architecture/graph", "shape_mismatch", detail)]))
        }
        _ => Ok(Candidate { family: "graph", graph, assumptions: Vec::new() }),
    }
}

#[cfg(test)]
mod tests;
