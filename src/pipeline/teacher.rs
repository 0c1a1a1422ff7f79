//! The ensemble as a teacher: its logits on the train split, or on each batch where no image looks the same twice.

use std::sync::{Mutex, PoisonError};

use super::context::Context;
use super::measure::Bench;
use super::phases::Halt;
use crate::exec::{BatchError, Engine};
use crate::fusion::Ensemble;
use crate::kernels::loss;
use crate::settings::{Finetune, Objective, Teacher};
use crate::train::{self, Examples, Teach, TeacherLogits};

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
    /// As the objective wants them; the ensemble's mean is weighted by the members' shares.
    pub(super) fn new(
        context: &mut Context<'_>,
        finetune: &Finetune,
        bench: Bench<'_>,
        ensemble: &Ensemble<'_>,
    ) -> Result<Self, Halt> {
        let Objective::Distill { temperature, teacher, .. } = finetune.objective else { return Ok(Self::None) };
        let mixture = Mixture { teacher, temperature: f64::from(temperature) };
        let parts = || ensemble.members().iter().zip(ensemble.shares());
        let train = &bench.data().train;
        if finetune.augment.is_some() {
            let batch = finetune.batch_size.min(train.len());
            let networks =
                parts().map(|(member, share)| Ok((bench.compiled(member.graph, member.weights, batch)?, *share)));
            let networks = networks.collect::<Result<Vec<_>, Halt>>()?;
            return Ok(Self::Live(Members { networks: Mutex::new(networks), mixture }));
        }
        let mut mean = Vec::new();
        for (index, (member, share)) in parts().enumerate() {
            let mut network = bench.network(member.graph, member.weights)?;
            let logits = train::logits(&mut *network, train, context.phases.stop_flag())?;
            mean.resize(logits.len(), 0.0);
            mixture.add(&mut mean, &logits, network.classes(), *share);
            context.phases.info(format!("computed the logits of member {} on the training split", index + 1));
        }
        mixture.finish(&mut mean);
        Ok(Self::Stored(mean))
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

/// How the members become one teacher.
#[derive(Debug, Clone, Copy)]
struct Mixture {
    teacher: Teacher,
    temperature: f64,
}

impl Mixture {
    /// Adds what a member's logits (examples x classes) contribute.
    fn add(self, mean: &mut [f32], logits: &[f32], classes: usize, share: f32) {
        match self.teacher {
            Teacher::MeanLogits => mean.iter_mut().zip(logits).for_each(|(mean, logit)| *mean += share * logit),
            Teacher::MeanProbabilities => {
                loss::add_probabilities(mean, logits, classes, self.temperature, f64::from(share));
            }
        }
    }

    /// Makes logits of the sum.
    fn finish(self, mean: &mut [f32]) {
        if self.teacher == Teacher::MeanProbabilities {
            loss::logits_of(mean, self.temperature);
        }
    }
}

/// Members that look at every batch, each with its share.
#[derive(Debug)]
pub(super) struct Members {
    networks: Mutex<Vec<(Box<dyn Engine>, f32)>>,
    mixture: Mixture,
}

impl Teach for Members {
    fn teach(&self, images: &[f32], logits: &mut [f32]) -> Result<(), BatchError> {
        // A network that panicked halfway computes the next batch from the start.
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        logits.fill(0.0);
        for (network, share) in networks.iter_mut() {
            let classes = network.classes();
            self.mixture.add(logits, network.forward(images)?, classes, *share);
        }
        self.mixture.finish(logits);
        Ok(())
    }
}
