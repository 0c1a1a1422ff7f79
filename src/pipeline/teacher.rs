//! The ensemble as a teacher: its logits on the train split, or on each batch where no image looks the same twice.

use std::sync::{Mutex, PoisonError};

use super::context::Context;
use super::measure::Bench;
use super::phases::Halt;
use crate::exec::{Engine, EngineError, Inputs};
use crate::fusion::{Consensus, Ensemble, Mixture};
use crate::settings::{Finetune, Objective, PredictionTask, Teacher};
use crate::train::{Examples, Teach, TeacherLogits};

/// What the teacher gives beside the labels.
#[derive(Debug)]
pub(super) enum TeacherOutputs {
    /// There is no teacher.
    None,
    /// Logits for each training example.
    Stored(Vec<f32>),
    /// The members themselves.
    Live(Members),
}

impl TeacherOutputs {
    /// As the objective wants them.
    pub(super) fn new(
        context: &mut Context<'_>,
        finetune: &Finetune,
        bench: Bench<'_>,
        ensemble: &Ensemble<'_>,
    ) -> Result<Self, Halt> {
        let Objective::Distill { temperature, teacher, .. } = finetune.objective else { return Ok(Self::None) };
        let consensus = ensemble.consensus().clone();
        let consensus = match teacher {
            Teacher::Ensemble => consensus,
            Teacher::MeanLogits => Consensus { mixture: Mixture::Logits, ..consensus },
            Teacher::MeanProbabilities => Consensus { mixture: probabilities(context.network().task), ..consensus },
        };
        let temperature = f64::from(temperature);
        let members = ensemble.members();
        let train = &bench.data().train;
        if finetune.augment.is_some() {
            let batch = finetune.batch_size.min(train.len());
            let networks = members.iter().map(|member| bench.compiled(member.graph, member.weights, batch));
            let networks = networks.collect::<Result<Vec<_>, Halt>>()?;
            return Ok(Self::Live(Members { networks: Mutex::new(networks), consensus, temperature }));
        }
        let mut logits = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let own = bench.logits_on(train, member.graph, member.weights)?;
            consensus.add(&mut logits, index, &own, temperature);
            context.phases.info(format!("computed the logits of member {} on the training split", index + 1));
        }
        consensus.finish(&mut logits, temperature);
        Ok(Self::Stored(logits))
    }

    /// The teacher in the form that the trainer takes.
    pub(super) fn logits(&self) -> Option<TeacherLogits<'_>> {
        match self {
            Self::None => None,
            Self::Stored(logits) => Some(TeacherLogits::Stored(logits)),
            Self::Live(members) => Some(TeacherLogits::PerBatch(members)),
        }
    }
}

/// What is added up for a mean of the members' probabilities.
pub(super) fn probabilities(task: PredictionTask) -> Mixture {
    if task.is_classification() { Mixture::Probabilities } else { Mixture::LabelProbabilities }
}

/// Members that look at every batch.
#[derive(Debug)]
pub(super) struct Members {
    networks: Mutex<Vec<Box<dyn Engine>>>,
    consensus: Consensus,
    temperature: f64,
}

impl Teach for Members {
    fn teach(&self, inputs: Inputs<'_>, logits: &mut [f32]) -> Result<(), EngineError> {
        // A network that panicked halfway computes the next batch from the start.
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        logits.fill(0.0);
        for (index, network) in networks.iter_mut().enumerate() {
            self.consensus.add_to(logits, index, network.forward(inputs)?, self.temperature);
        }
        self.consensus.finish(logits, self.temperature);
        Ok(())
    }
}
