//! How far an evaluation has come, by what it has computed: a control's training counts for more than the measure of a network.

use std::ops::Range;

use crate::cost::STEP;
use crate::fusion::Ensemble;
use crate::pipeline::context::Context;
use crate::pipeline::measure::Bench;
use crate::pipeline::splits::Splits;
use crate::settings::ReportCandidate;
use crate::train::Examples;

/// What the evaluation computes, in ways forward.
pub(super) struct EvaluationWork {
    done: f64,
    all: f64,
    /// Of a network that is measured.
    network: f64,
    /// Of a control's training.
    training: f64,
}

impl EvaluationWork {
    /// Of the job's whole evaluation.
    pub(super) fn of(context: &Context<'_>, bench: Bench<'_>, ensemble: &Ensemble<'_>) -> Self {
        let Splits { validation, test } = bench.splits();
        let [validation, test] = [validation, test].map(|split| split.map_or(0, Examples::len) as f64);
        let evaluate = &context.task.job.evaluate;
        let epochs = context.finetune().map_or(0, |finetune| finetune.epochs) as f64;
        let train = Examples::len(&bench.data().train) as f64;
        let is_trained =
            |candidate: &&ReportCandidate| matches!(candidate, ReportCandidate::TrainedOn | ReportCandidate::Distilled);
        let (network, training) = (validation + test, epochs * (STEP * train + validation));
        let networks = (ensemble.members().len() + evaluate.len() + 2) as f64;
        let all = networks * network + evaluate.iter().filter(is_trained).count() as f64 * training;
        Self { done: 0.0, all: all.max(1.0), network, training }
    }

    /// The part of the whole that is done with another network measured.
    pub(super) fn measure(&mut self) -> f64 {
        self.take(self.network).end
    }

    /// The part of the whole that the next training is.
    pub(super) fn train(&mut self) -> Range<f64> {
        self.take(self.training)
    }

    fn take(&mut self, work: f64) -> Range<f64> {
        let begin = self.done;
        self.done += work;
        (begin / self.all).min(1.0)..(self.done / self.all).min(1.0)
    }
}
