//! Which of the networks that fit the members are: those that do what the client knows they do (a reference, accuracies), or
//! that do clearly best on labelled data. Nothing is fused on a guess.

mod accuracy;
mod labels;
mod reference;

use std::sync::atomic::AtomicBool;

use super::load::{Loaded, Subset};
use super::measure::BATCH;
use super::phases::{Halt, Phases};
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::exec::{self, Engine};
use crate::model::depth;
use crate::model::families::{self, Candidate, Compared, Degree, Evidence, Source};
use crate::model::graph::{Graph, Shape};
use crate::plan::resolve::Planned;
use crate::process::protocol::Task;
use crate::settings::{Architecture, ComputeOptions, NetworkChoice, Precision, PredictionTask};
use crate::tensors::Weights;
use crate::train::{self, TrainError};

/// Most networks that a table of a comparison lists.
const LISTED: usize = 10;

/// A job with the network that its members are.
pub(super) struct Identified {
    pub(super) task: Task,
    pub(super) planned: Planned,
}

/// Decides between the networks that fit, where the job has something that decides, and checks what was given against it.
/// None where nothing is to decide.
pub(super) fn identify(
    task: &Task,
    loaded: &Loaded,
    planned: &Planned,
    phases: &mut Phases<'_>,
) -> Result<Option<Identified>, Halt> {
    let network = &planned.network;
    let open = network.evidence.degree == Degree::Ambiguous;
    let trial = Trial {
        task,
        loaded,
        candidates: &network.detected.candidates,
        source: network.detected.source,
        prediction: network.task,
        input: network.detected.graphs[0].input_shape().clone(),
        stop: phases.stop_flag(),
    };
    let verdict = if task.job.reference.is_some() {
        reference::decide(&trial, phases)?
    } else if let Some(known) = task.job.accuracy.as_ref().filter(|_| !task.job.architecture.assume || !open) {
        accuracy::decide(&trial, known, phases)?
    } else if let Some(data) = loaded.data.as_ref().filter(|_| open) {
        let all = (0..trial.candidates.len()).collect();
        labels::decide(&trial, &data.train, all, phases)?
    } else {
        return Ok(None);
    };
    let chosen = &trial.candidates[verdict.chosen];
    phases.info(format!("the network is {} ({}): {}", verdict.degree.name(), chosen.settings, verdict.why));
    let mut task = task.clone();
    if open {
        task.job.architecture = trial.pinned(chosen);
    }
    let mut planned = loaded.planned(&task)?;
    planned.network.evidence = Evidence {
        degree: verdict.degree,
        why: verdict.why,
        candidates: trial.candidates.len(),
        settings: chosen.settings.clone(),
        open: families::open(trial.candidates),
        compared: verdict.compared,
    };
    planned.warn_of_evidence();
    phases.planned(&planned.plan);
    Ok(Some(Identified { task, planned }))
}

/// What a comparison has decided.
struct Verdict {
    /// Position of the network among the candidates.
    chosen: usize,
    degree: Degree,
    why: String,
    /// The best of what was compared, the best first.
    compared: Vec<Compared>,
}

/// The candidates, and the members that run as them.
struct Trial<'a> {
    task: &'a Task,
    loaded: &'a Loaded,
    candidates: &'a [Candidate],
    source: Source,
    /// What the networks predict.
    prediction: PredictionTask,
    input: Shape,
    stop: &'a AtomicBool,
}

impl Trial<'_> {
    /// The architecture that says all that tells `candidate` from the others.
    fn pinned(&self, candidate: &Candidate) -> Architecture {
        let given = &self.task.job.architecture;
        if self.source != Source::Recognised {
            return given.clone();
        }
        Architecture {
            network: NetworkChoice::Family(candidate.family.to_owned()),
            settings: candidate.settings.clone(),
            assume: false,
            ignore: given.ignore.clone(),
        }
    }

    /// The network of a candidate with a member's own widths and depth; none where the member cannot be that network.
    fn graph(&self, candidate: usize, member: usize) -> Option<Graph> {
        let header = self.loaded.members[member].header();
        let pinned = self.pinned(&self.candidates[candidate]);
        let detected = depth::alone(header, &pinned, Some(&self.input)).ok()?;
        detected.graphs.into_iter().next()
    }

    /// A member ready to run as a candidate, with batches of up to `batch` examples.
    fn network(&self, candidate: usize, member: usize, batch: usize) -> Result<Option<Box<dyn Engine>>, Halt> {
        let Some(graph) = self.graph(candidate, member).filter(Graph::is_classifier) else { return Ok(None) };
        // Candidates may differ by little, so their outputs have to be exact.
        let options = ComputeOptions { precision: Precision::F32, ..self.task.compute_options() };
        let mut network = exec::compile(&options, &graph, batch)?;
        let weights: &dyn Weights = &self.loaded.members[member];
        network.load(weights).map_err(TrainError::from)?;
        Ok(Some(network))
    }

    /// The logits of a member as a candidate on some examples.
    fn logits(&self, candidate: usize, member: usize, part: &Subset) -> Result<Option<Vec<f32>>, Halt> {
        match self.network(candidate, member, BATCH)? {
            Some(mut network) => Ok(Some(train::logits(&mut *network, part, self.stop)?)),
            None => Ok(None),
        }
    }
}

/// The problem of a job whose members cannot be identified, with the candidates that came closest.
fn refused(code: Code, detail: String, compared: &[Compared]) -> Halt {
    let line = |compared: &Compared| {
        let distance = compared.distance.map(|distance| format!("distance {distance:.2e}"));
        let accuracy = compared.accuracy.as_ref().map(|parts| {
            let parts: Vec<String> = parts.iter().map(|part| format!("{:.2} %", part * 100.0)).collect();
            format!("accuracy {}", parts.join(", "))
        });
        let figures: Vec<String> = distance.into_iter().chain(accuracy).collect();
        Fault::new("/architecture", FaultCode::Candidate, format!("{}: {}", figures.join(", "), compared.settings))
    };
    let errors = compared.iter().take(LISTED).map(line).collect();
    Halt::Failed(Problem { code, detail, errors })
}
