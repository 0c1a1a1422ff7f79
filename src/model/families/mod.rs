//! From checkpoints to networks: what names and shapes tell, completed by the conventions of known families.

mod builder;
mod catalogue;
mod chain;
mod convnet;
mod convnext;
mod densenet;
mod efficientnet;
mod elsewhere;
mod evidence;
mod example;
pub mod fresh;
mod images;
mod inspection;
mod inverted;
mod members;
mod mlp;
mod mobilenet_v2;
mod mobilenet_v3;
mod modular;
mod modules;
mod named;
mod pickled;
mod published;
mod residual;
mod resnet;
mod stated;
mod variants;
mod vit;
mod wide_resnet;
mod wrapped;

pub use catalogue::{FAMILIES, Family};
pub use evidence::{Compared, Degree, Evidence, Outline};
pub use example::{ExampleShape, ShapeOrigin};
pub use inspection::{GroupSummary, Inspection, Reading, inspect};
pub use published::published;
pub use stated::metadata;

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::graph::json as graph_json;
use crate::model::graph::{Graph, MAX_ELEMENTS, Shape};
use crate::model::header::CheckpointHeader;
use crate::settings::{Architecture, NetworkChoice, Settings, shown};
use serde::{Deserialize, Serialize};

/// What is known of a network besides its checkpoint.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    /// Shape of one input example.
    input: Option<&'a Shape>,
    /// What decides that shape.
    origin: ShapeOrigin,
    /// Settings that the client gives.
    settings: &'a Settings,
}

/// The family's name of a network that is not recognised but spelled out.
const UNNAMED: &str = "graph";

/// A network that fits a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Name of the family; `graph` for one that was spelled out.
    pub family: &'static str,
    /// The network.
    pub graph: Graph,
    /// The values of its open settings, which tell it from the other candidates.
    pub settings: Settings,
    /// What the family takes for granted beyond them.
    pub assumptions: Vec<String>,
}

impl Candidate {
    /// Everything that names and shapes do not say, in words.
    #[must_use]
    pub fn assumed(&self) -> Vec<String> {
        let settings = self.settings.entries();
        let settings = settings.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
        settings.chain(self.assumptions.iter().cloned()).collect()
    }
}

/// Why no network fits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unfit {
    /// Names and shapes of no known family.
    Unknown(String),
    /// A known family, but not for this input.
    Input(String),
    /// A known family, but not with this value of the setting.
    Setting(&'static str, String),
}

/// What the members of an ensemble are.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Name of the family; `graph` for one that was spelled out.
    pub family: String,
    /// One network per member: the same topology, each with its own widths. They are the first of the candidates.
    pub graphs: Vec<Graph>,
    /// What names and shapes do not tell.
    pub assumptions: Vec<String>,
    /// Every network that fits the first member, the most usual first.
    pub candidates: Vec<Candidate>,
    /// How they were found.
    pub source: Source,
}

/// How networks that fit were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client has spelled it out.
    Given,
    /// The checkpoint's metadata state it.
    Stated,
    /// The checkpoint is a pickled `Sequential`.
    Pickled,
    /// By names, shapes and settings.
    Recognised,
}

/// Recognises the members of an ensemble as the most usual network that fits.
///
/// # Errors
/// [`Code::ArchitectureUnknown`] for the first member, and [`Code::ArchitectureAmbiguous`] where it fits inputs of several
/// shapes; [`Code::InvalidRequest`] for a wrong graph, setting or input shape, [`Code::MembersIncompatible`] with every
/// mismatch of every other member.
pub fn detect<'a>(
    headers: &[&CheckpointHeader],
    architecture: &Architecture,
    example: impl Into<ExampleShape<'a>>,
) -> Result<Detected, Problem> {
    let ExampleShape { shape: input_shape, origin } = example.into();
    if let Some(shape) = input_shape {
        check_input(shape, origin)?;
    }
    let headers: Vec<Cow<'_, CheckpointHeader>> = headers.iter().map(|header| kept(header, architecture)).collect();
    if headers.is_empty() {
        return Err(Problem::faults(vec![Fault::new("/members", FaultCode::TooFew, "expected at least one member")]));
    }
    let given = Given { input: input_shape, origin, settings: &architecture.settings };
    let refs: Vec<&CheckpointHeader> = headers.iter().map(AsRef::as_ref).collect();
    // What the client says itself comes before what files say.
    let says_nothing = architecture.network == NetworkChoice::Auto && architecture.settings == Settings::default();
    let stated = if says_nothing { stated::candidate(&refs, input_shape)? } else { None };
    let source = match (&architecture.network, &stated) {
        (NetworkChoice::Graph(_), _) => Source::Given,
        (_, Some((_, source))) => *source,
        _ => Source::Recognised,
    };
    let candidates = match (&architecture.network, stated) {
        (_, Some((stated, _))) => vec![stated],
        (NetworkChoice::Auto, None) => recognise(most_telling(&refs), None, given)?,
        (NetworkChoice::Family(name), None) => recognise(most_telling(&refs), Some(name), given)?,
        (NetworkChoice::Graph(value), None) => {
            let graph = spelled_out(value, input_shape, "/architecture/graph")?;
            vec![Candidate { family: UNNAMED, graph, settings: Settings::default(), assumptions: Vec::new() }]
        }
    };
    let graphs = members::graphs(&candidates[0].graph, &refs)?;
    if matches!(source, Source::Stated | Source::Pickled) {
        stated::check(&refs, &graphs)?;
    }
    if source != Source::Given {
        pickled_check(&refs, &graphs)?;
    }
    let family = candidates[0].family.to_owned();
    let assumptions = candidates[0].assumed().into_iter().chain(noted(&refs)).collect();
    Ok(Detected { family, graphs, assumptions, candidates, source })
}

/// The first member, or one with the same tensors that a pickled model says more of.
fn most_telling<'a>(headers: &[&'a CheckpointHeader]) -> &'a CheckpointHeader {
    let first = headers[0];
    let alike = |header: &&&CheckpointHeader| !header.modules.is_empty() && header.tensors == first.tensors;
    headers.iter().find(alike).copied().unwrap_or(first)
}

/// What the readers of the members' files chose or left out, in words.
fn noted(headers: &[&CheckpointHeader]) -> Vec<String> {
    let notes =
        headers.iter().enumerate().flat_map(|(index, header)| header.notes.iter().map(move |note| (index, note)));
    notes.map(|(index, note)| format!("member {index}: {note}")).collect()
}

/// Checks that no member's modules contradict the network that it is taken for.
fn pickled_check(headers: &[&CheckpointHeader], graphs: &[Graph]) -> Result<(), Problem> {
    let contradictions = headers.iter().zip(graphs).enumerate().filter_map(|(index, (header, graph))| {
        let what = pickled::contradiction(header, graph)?;
        let detail = format!("{what} contradict the network that the members are taken for");
        Some(Fault::new(format!("/members/{index}"), FaultCode::ShapeMismatch, detail))
    });
    let faults: Vec<Fault> = contradictions.collect();
    if faults.is_empty() { Ok(()) } else { Err(Problem { code: Code::MembersIncompatible, ..Problem::faults(faults) }) }
}

/// The header without the tensors that belong to no network.
fn kept<'a>(header: &'a CheckpointHeader, architecture: &Architecture) -> Cow<'a, CheckpointHeader> {
    if !header.tensors.iter().any(|info| architecture.ignores(&info.name)) {
        return Cow::Borrowed(header);
    }
    let tensors = header.tensors.iter().filter(|info| !architecture.ignores(&info.name));
    Cow::Owned(CheckpointHeader { tensors: tensors.cloned().collect(), ..header.clone() })
}

/// Checks that an example of this shape could exist.
fn check_input(shape: &Shape, origin: ShapeOrigin) -> Result<(), Problem> {
    let elements = shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    if matches!((shape.len(), elements), (1..=3, Some(1..=MAX_ELEMENTS))) {
        return Ok(());
    }
    let detail = format!("expected [D], [C, L] or [C, H, W] with positive sizes, got {shape:?}");
    Err(Problem::faults(vec![Fault::new(origin.pointer(), FaultCode::InvalidShape, detail)]))
}

/// The networks that fit a checkpoint, at least one, all for inputs of one shape.
fn recognise(header: &CheckpointHeader, family: Option<&str>, given: Given<'_>) -> Result<Vec<Candidate>, Problem> {
    if let Some(name) = family {
        check_family(name)?;
    }
    let mut found =
        catalogue::candidates(header, given).map_err(|reason| unfit(remedied(reason, header), given.origin))?;
    found.retain(|candidate| family.is_none_or(|name| candidate.family == name));
    let Some(first) = found.first() else {
        let detail = match family {
            Some(name) => format!("the first member's tensors are not those of the family `{name}`"),
            None => "no input of a usual size fits the layers; give `input_shape`".to_owned(),
        };
        return Err(unfit(Unfit::Unknown(detail), given.origin));
    };
    check_settings(&found, given.settings)?;
    if found.iter().any(|candidate| candidate.graph.input_shape() != first.graph.input_shape()) {
        return Err(ambiguity(&found, given.origin));
    }
    Ok(found)
}

/// What to do about a network that is not recognised.
pub const ADVICE: &str = "give it as ONNX, which says what it computes (`torch.onnx.export`, see docs/pytorch.md), or spell it out in the job as \
                          {\"architecture\": {\"graph\": …}}";

/// The reason, with what the network is, where its names say that, and with what to do about tensors that belong to no network.
fn remedied(reason: Unfit, header: &CheckpointHeader) -> Unfit {
    let reason = match (reason, elsewhere::name(header)) {
        (Unfit::Unknown(detail), Some(name)) => {
            Unfit::Unknown(format!("it has the names of {name}, which is not spelled out here ({detail})"))
        }
        (reason, _) => reason,
    };
    match (reason, wrapped::remedy(header.tensors.iter().map(|info| info.name.as_str()))) {
        (Unfit::Unknown(detail), Some(remedy)) => Unfit::Unknown(format!("{remedy} ({detail})")),
        (reason, _) => reason,
    }
}

/// Checks that there is a family `name`.
fn check_family(name: &str) -> Result<(), Problem> {
    if FAMILIES.iter().any(|known| known.name == name) {
        return Ok(());
    }
    let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let detail = format!("expected one of {}, got `{name}`", known.join(", "));
    Err(Problem::faults(vec![Fault::new("/architecture/family", FaultCode::UnknownFamily, detail)]))
}

/// Checks that the network has every setting that is given.
fn check_settings(found: &[Candidate], given: &Settings) -> Result<(), Problem> {
    let known: Vec<_> = found.iter().map(|candidate| candidate.settings.entries()).collect();
    let absent = given.entries().into_iter().filter(|(name, _)| !known.iter().any(|known| known.contains_key(name)));
    let faults: Vec<Fault> = absent
        .map(|(name, _)| {
            let all: BTreeSet<&String> = known.iter().flat_map(serde_json::Map::keys).collect();
            let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
            let known = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            let detail = format!("this network (`{}`) has no such setting; open are: {known}", found[0].family);
            Fault::new(format!("/architecture/{name}"), FaultCode::NotApplicable, detail)
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Problem::faults(faults)) }
}

fn unfit(reason: Unfit, origin: ShapeOrigin) -> Problem {
    match reason {
        Unfit::Unknown(detail) => Problem::new(Code::ArchitectureUnknown, format!("{detail}; {ADVICE}")),
        Unfit::Input(detail) => Problem::faults(vec![Fault::new(origin.pointer(), FaultCode::ShapeMismatch, detail)]),
        Unfit::Setting(name, detail) => {
            Problem::faults(vec![Fault::new(format!("/architecture/{name}"), FaultCode::InvalidValue, detail)])
        }
    }
}

/// Several networks fit, all for inputs of one shape: what is open, and what decides.
#[must_use]
pub fn ambiguous(found: &[Candidate]) -> Problem {
    ambiguity(found, ShapeOrigin::InputShape)
}

/// Several networks fit: what is open, and what decides. `origin` would decide the shape of the input.
fn ambiguity(found: &[Candidate], origin: ShapeOrigin) -> Problem {
    let open = open(found);
    let mut errors: Vec<Fault> = open
        .iter()
        .map(|Open { name, values }| {
            let pointer = match name.as_str() {
                "input_shape" => origin.pointer().to_owned(),
                name => format!("/architecture/{name}"),
            };
            Fault::new(pointer, FaultCode::Candidate, format!("may be {}", values.join(" or ")))
        })
        .collect();
    errors.truncate(MOST_FAULTS);
    let names: Vec<&str> = open.iter().map(|open| open.name.as_str()).collect();
    let shape = if names.contains(&"input_shape") {
        "first the shape of an input, by a dataset or by `input_shape`, without which no network can be run; then "
    } else {
        ""
    };
    let detail = format!(
        "{} networks fit the first member, and names and shapes do not tell which it is: open are {}. What settles it: \
         {shape}`reference`, some inputs with a member's own logits (docs/reference.md); a labelled dataset; the accuracies that you \
         know (`accuracy`); the settings themselves, as in {{\"architecture\": {{\"{}\": …}}}}; or \
         {{\"architecture\": {{\"assume\": true}}}} for the most usual one",
        found.len(),
        names.join(", "),
        names.iter().find(|name| **name != "input_shape").unwrap_or(&"graph"),
    );
    Problem { code: Code::ArchitectureAmbiguous, detail, errors }
}

/// Most open settings that are listed.
const MOST_FAULTS: usize = 32;

/// Something in which candidates differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Open {
    /// Name of the setting; `family` and `input_shape` for these.
    #[serde(rename = "setting")]
    pub name: String,
    /// Its values, the most usual first.
    pub values: Vec<String>,
}

/// Everything in which candidates differ.
#[must_use]
pub fn open(found: &[Candidate]) -> Vec<Open> {
    let entries: Vec<_> = found.iter().map(|candidate| candidate.settings.entries()).collect();
    let mut open = vec![
        Open { name: "family".to_owned(), values: distinct(found.iter().map(|candidate| candidate.family.to_owned())) },
        Open {
            name: "input_shape".to_owned(),
            values: distinct(found.iter().map(|candidate| format!("{:?}", candidate.graph.input_shape()))),
        },
    ];
    for name in Settings::NAMES {
        let name_of = name.to_owned();
        open.push(Open {
            name: name_of,
            values: distinct(entries.iter().filter_map(|entries| entries.get(name).map(shown))),
        });
    }
    open.retain(|open| open.values.len() > 1);
    open
}

/// Each value once, in the order in which they first come.
fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for value in values {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    list
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
        // A dataset of N x C x L has examples of one channel, unless the graph reads sequences.
        Some(shape) if shape.first() == Some(&1) && shape[1..] == graph.input_shape()[..] => Ok(graph),
        Some(shape) if shape != graph.input_shape() => {
            let detail = format!("the graph reads examples of shape {:?}, the data has {shape:?}", graph.input_shape());
            Err(Problem::faults(vec![Fault::new(pointer, FaultCode::ShapeMismatch, detail)]))
        }
        _ => Ok(graph),
    }
}

#[cfg(test)]
mod tests;
