//! Whether it is known what network the members are, or whether it has to be.

use crate::cost::identification::Decider;
use crate::domain::problem::Problem;
use crate::model::families::{self, Candidate, Degree, Detected, Evidence};
use crate::model::graph::{Graph, Node, NodeId};
use crate::model::groups::Couplings;
use crate::model::plan::FusionPlan;
use crate::model::precision::Precision;
use crate::plan::request::JobRequest;
use crate::settings::{Compensate, PredictionTask, Settings, Size};

/// What a reader should know who relies on this network.
pub(super) fn warning(evidence: &Evidence) -> String {
    format!("the network is {}, not certain: {}", evidence.degree.name(), evidence.why)
}

/// What decides between the networks that fit, once the job runs; `has_labels` says whether the dataset, if there is one, has some.
fn decides(job: &JobRequest, has_labels: bool) -> Option<Decider> {
    if job.reference.is_some() {
        Some(Decider::Reference)
    } else if job.architecture.assume {
        None
    } else if job.accuracy.is_some() {
        Some(Decider::Accuracies)
    } else {
        // Where nothing is right or wrong, labels decide nothing.
        let decide = job.dataset.as_ref().filter(|_| has_labels);
        let decide = decide.is_some_and(|dataset| dataset.task.is_none_or(PredictionTask::decides));
        decide.then_some(Decider::Labels)
    }
}

/// What decides between the networks, where several fit.
pub(super) fn decider(job: &JobRequest, detected: &Detected, has_labels: bool) -> Option<Decider> {
    if detected.candidates.len() > 1 { decides(job, has_labels) } else { None }
}

/// Whether the network is known, or will be before it is used.
pub(super) fn is_known(job: &JobRequest, detected: &Detected, has_labels: bool) -> bool {
    detected.candidates.len() == 1 || job.architecture.assume || decides(job, has_labels).is_some()
}

/// How sure it is what network the members are, before the job runs; `padded` says whether some are padded to the depth of
/// others, which depends on what they compute.
///
/// # Errors
/// `architecture_ambiguous` where several networks fit, they would be fused into different ones, and nothing decides.
pub(super) fn evidence(
    job: &JobRequest,
    detected: &Detected,
    padded: bool,
    has_labels: bool,
    precision: &Precision,
) -> Result<Evidence, Problem> {
    let evidence = Evidence::of(&detected.candidates, detected.source);
    if evidence.degree != Degree::Ambiguous {
        return Ok(evidence);
    }
    let count = detected.candidates.len();
    if let Some(decider) = decides(job, has_labels) {
        let what = match decider {
            Decider::Reference => "the reference",
            Decider::Accuracies => "the known accuracies and the labels of the dataset",
            Decider::Labels => "the labels of the dataset",
        };
        let why = format!("{count} networks fit names and shapes; {what} will decide when the job runs");
        return Ok(Evidence { why, ..evidence });
    }
    if job.architecture.assume {
        return Ok(assumed(job, &detected.candidates, evidence));
    }
    let runs = job.dataset.is_some() || job.method.compensate != Compensate::None;
    if !runs && !padded && alike(job, &detected.candidates, precision) {
        let why = format!(
            "{count} networks fit names and shapes; the fused weights are the same whichever it is, since nothing is measured, \
             trained or compensated"
        );
        return Ok(Evidence { why, ..evidence });
    }
    Err(families::ambiguous(&detected.candidates))
}

/// The most usual network, taken for granted because the client says so.
fn assumed(job: &JobRequest, candidates: &[Candidate], evidence: Evidence) -> Evidence {
    let count = candidates.len();
    let usual = candidates.first().filter(|_| job.architecture.settings == Settings::default());
    if let Some(name) = usual.and_then(families::published) {
        let why = format!("assumed to be {name}, as published, of {count} networks that fit names and shapes");
        return Evidence { degree: Degree::Conventional, why, ..evidence };
    }
    let why = format!("assumed to be the most usual of {count} networks that fit names and shapes");
    Evidence { degree: Degree::Assumed, why, ..evidence }
}

/// Whether all candidates are fused into the same weights where nothing runs them: they have the same layers in the same
/// order, the same units are coupled, and a target gives them the same widths.
fn alike(job: &JobRequest, candidates: &[Candidate], precision: &Precision) -> bool {
    let Some(first) = candidates.first() else { return false };
    let widths = |graph: &Graph| match job.target.size {
        Size::Budget(_) => {
            let plan = FusionPlan::new(&vec![graph.clone(); job.members.len()], &job.target, precision, None);
            plan.ok().map(|plan| plan.targets)
        }
        _ => None,
    };
    let (couplings, targets) = (coupled(&first.graph), widths(&first.graph));
    couplings.is_some()
        && candidates[1..].iter().all(|other| coupled(&other.graph) == couplings && widths(&other.graph) == targets)
}

/// For each node with weights its name and what it reads and makes; none where a network has no groups of units.
fn coupled(graph: &Graph) -> Option<Vec<(String, String)>> {
    let couplings = Couplings::of(graph).ok()?;
    let place = |(id, node): (NodeId, &Node)| {
        let groups = couplings.groups_of(id);
        let axes = (couplings.rows.get(&id), couplings.columns.get(&id));
        node.op.has_parameters().then(|| (node.name.clone(), format!("{axes:?} {groups:?}")))
    };
    let nodes = graph.iter().filter_map(place).collect();
    Some(nodes)
}
