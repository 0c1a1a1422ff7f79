//! What one checkpoint is, without further knowledge: the answer of `GET /v1/checkpoints/{id}` and of `engraft inspect`.

use crate::model::costs::Costs;
use crate::model::families::{
    Candidate, Evidence, Given, Open, Outline, ShapeOrigin, Source, Unfit, catalogue, detect, open, pickled, remedied,
};
use crate::model::graph::{Graph, Shape};
use crate::model::groups::{Couplings, Group, GroupId};
use crate::model::header::CheckpointHeader;
use crate::model::precision::Precision;
use crate::settings::{Architecture, Settings};

/// A network that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Name of the family.
    pub family: String,
    /// Shape of one input example.
    pub input_shape: Shape,
    /// What names and shapes do not tell.
    pub assumptions: Vec<String>,
    /// What it costs for an example of that shape.
    pub costs: Costs,
    /// Units that are kept or dropped together, in pruning order.
    pub groups: Vec<GroupSummary>,
    /// Why there are no groups, and so no fusion by pruning.
    pub no_groups: Option<String>,
    /// The network itself.
    pub graph: Graph,
}

/// A coupling group in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// Name of the first layer that makes its units and no others.
    pub name: String,
    /// Number of units.
    pub width: usize,
    /// The layers whose outputs they are.
    pub layers: Vec<String>,
}

/// What one checkpoint is.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The most usual network that fits.
    pub network: Option<Reading>,
    /// How sure it is; none where no network fits.
    pub evidence: Option<Evidence>,
    /// What is open, where several networks fit.
    pub open: Vec<Open>,
    /// All networks that fit, where there are several, the most usual first.
    pub candidates: Vec<Outline>,
    /// Why no network fits.
    pub unrecognised: Option<String>,
}

/// Looks at one checkpoint without further knowledge.
#[must_use]
pub fn inspect(header: &CheckpointHeader) -> Inspection {
    let mut inspection =
        Inspection { network: None, evidence: None, open: Vec::new(), candidates: Vec::new(), unrecognised: None };
    match found(header) {
        Ok((found, _)) if found.is_empty() => {
            inspection.unrecognised = Some("no input of a usual size fits the layers".to_owned());
        }
        Ok((mut found, source)) => {
            inspection.evidence = Some(Evidence::of(&found, source));
            if found.len() > 1 {
                inspection.open = open(&found);
                inspection.candidates = found.iter().map(Outline::from).collect();
            }
            let mut network = Reading::new(found.swap_remove(0), &Precision::shared(&[header]));
            network.assumptions.extend(header.notes.iter().cloned());
            inspection.network = Some(network);
        }
        Err(reason) => inspection.unrecognised = Some(reason),
    }
    inspection
}

/// The network that the file states, or all that fit names and shapes; else the reason, in words.
fn found(header: &CheckpointHeader) -> Result<(Vec<Candidate>, Source), String> {
    if let Some(pickled) = pickled::candidate(header, None).filter(|_| header.stated.is_none()) {
        return Ok((vec![pickled], Source::Pickled));
    }
    if header.stated.is_some() {
        let detected = detect(&[header], &Architecture::default(), None).map_err(|problem| {
            let details: Vec<&str> = problem.errors.iter().map(|fault| fault.detail.as_str()).collect();
            if details.is_empty() { problem.detail } else { details.join("; ") }
        })?;
        return Ok((detected.candidates, detected.source));
    }
    let given = Given { input: None, origin: ShapeOrigin::InputShape, settings: &Settings::default() };
    let found = catalogue::candidates(header, given).map_err(|reason| {
        let (Unfit::Unknown(detail) | Unfit::Input(detail) | Unfit::Setting(_, detail)) = remedied(reason, header);
        detail
    })?;
    Ok((found, Source::Recognised))
}

impl Reading {
    /// A network with its costs in the checkpoint's element types.
    fn new(candidate: Candidate, precision: &Precision) -> Self {
        let assumptions = candidate.assumed();
        let Candidate { family, graph, .. } = candidate;
        let (groups, no_groups) = match Couplings::of(&graph) {
            Ok(couplings) => {
                let groups = (0..couplings.groups.len()).map(GroupId);
                (groups.map(|id| summary(&graph, &couplings, id)).collect(), None)
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            family: family.to_owned(),
            input_shape: graph.input_shape().clone(),
            assumptions,
            costs: Costs::of(&graph, precision),
            groups,
            no_groups,
            graph,
        }
    }
}

fn summary(graph: &Graph, couplings: &Couplings, id: GroupId) -> GroupSummary {
    let Group { width, producers, .. } = couplings.group(id);
    // Heads are made by their attention.
    let attention = couplings.attention_of(id);
    let layers = producers.iter().chain(&attention).map(|id| graph.node(*id).name.clone()).collect();
    GroupSummary { name: couplings.name(graph, id), width: *width, layers }
}
