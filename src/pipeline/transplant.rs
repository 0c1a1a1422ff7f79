//! The fusion itself: verify the concatenation, rank the units, gather what is kept.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::load::{Data, Loaded};
use super::measure::Bench;
use super::phases::{Halt, Phases};
use super::publish;
use crate::domain::problem::{Code, Problem};
use crate::fusion::calibration::Sampling;
use crate::fusion::compensate::{self, Compensated, Options};
use crate::fusion::importance::{self, Ranking};
use crate::fusion::{self, Ensemble, Fused, Member, Padded, Recipe, Selection, verify};
use crate::job::compensation::Compensation;
use crate::job::protocol::{OutputFile, Phase, Task};
use crate::job::request::{Calibration, Compensate, MethodName};
use crate::job::resolve::Network;
use crate::model::costs::Costs;
use crate::model::precision::Precision;
use crate::report::Verification;
use crate::tensors::{Checkpoint, StateDict, Weights};

/// Examples that verification compares at most.
const EXAMPLES: usize = 32;

/// Multiply-accumulates that verification spends at most on each way of computing the logits.
const BUDGET: u64 = 2_000_000_000;

/// The members that are padded to the depth of the deepest one; none for the others.
pub(super) fn padded<'a>(loaded: &'a Loaded, network: &Network) -> Vec<Option<Padded<'a>>> {
    let members = loaded.members.iter().zip(&network.own).zip(&network.paddings);
    members
        .map(|((weights, own), padding)| padding.as_ref().map(|padding| Padded::new(weights, own, padding)))
        .collect()
}

/// The members of a job, side by side.
pub(super) fn ensemble<'a>(
    loaded: &'a Loaded,
    padded: &'a [Option<Padded<'a>>],
    network: &'a Network,
) -> Result<Ensemble<'a>, Halt> {
    let weights = loaded.members.iter().zip(padded).map(|(own, padded)| -> &dyn Weights {
        match padded {
            Some(padded) => padded,
            None => own,
        }
    });
    let pairs = network.detected.graphs.iter().zip(weights);
    Ok(Ensemble::new(pairs.map(|(graph, weights)| Member { graph, weights }).collect())?)
}

/// Shows on real inputs (noise without a dataset) that the concatenation computes what the members compute together.
pub(super) fn verify(
    ensemble: &Ensemble<'_>,
    data: Option<&Data>,
    seed: u64,
    phases: &mut Phases<'_>,
) -> Result<Verification, Halt> {
    phases.begin(Phase::Verify)?;
    let macs: u64 = ensemble.members().iter().map(|member| Costs::of(member.graph, &Precision::default()).macs).sum();
    let affordable = usize::try_from(BUDGET / macs.max(1)).unwrap_or(EXAMPLES).clamp(1, EXAMPLES);
    let elements: usize = ensemble.graph().input_shape().iter().product();
    let inputs = match data {
        Some(data) => data.train.first(affordable),
        None => noise(affordable * elements, seed),
    };
    let examples = inputs.len() / elements;
    let expected = verify::mean_of_members(ensemble, &inputs, examples)?;
    phases.done(1, 2);
    phases.go_on()?;
    let got = verify::concatenation(ensemble, &inputs, examples)?;
    let agreement = verify::Agreement::of(&expected, &got);
    let tolerance = f64::from(verify::TOLERANCE * agreement.scale);
    if !agreement.holds() {
        let detail = format!(
            "logits differ by up to {} where rounding explains {tolerance}; this is a fault of engraft, please report it",
            agreement.max_difference
        );
        return Err(Problem::new(Code::VerificationFailed, detail).into());
    }
    Ok(Verification { examples, max_difference: f64::from(agreement.max_difference), tolerance })
}

/// Uniform noise of unit variance.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| (rng.random::<f32>() - 0.5) * 12.0_f32.sqrt()).collect()
}

/// A fused network in a file, mapped.
#[derive(Debug)]
pub(super) struct FusedFile {
    pub(super) fused: Fused<Checkpoint>,
    /// The file as an artifact.
    pub(super) file: OutputFile,
    /// The network before compensation, if there was one.
    pub(super) uncompensated: Option<Checkpoint>,
    /// What compensation did to it.
    pub(super) compensation: Option<Compensation>,
}

/// Makes one network of the members, in a file below the scratch folder. The file of a network that will be trained,
/// compensated, or joined with others, is gone with its map.
pub(super) fn fuse(
    task: &Task,
    ensemble: &Ensemble<'_>,
    network: &Network,
    bench: Option<&Bench<'_>>,
    phases: &mut Phases<'_>,
) -> Result<FusedFile, Halt> {
    phases.begin(Phase::Score)?;
    let method = &task.job.method;
    if method.name == MethodName::Average {
        phases.begin(Phase::Prune)?;
        let making = Making { last: true, published: task.job.finetune.is_none() };
        let (fused, file) = making.write(task, network, fusion::average(ensemble)?, phases)?;
        return Ok(FusedFile { fused, file, uncompensated: None, compensation: None });
    }
    let joins = fusion::joins(method.order, ensemble.members().len());
    let mut joined = 0;
    let mut last = None;
    let fused = fusion::in_order(method.order, ensemble.members(), &network.fusion.targets, &mut |parts, targets| {
        let parts = Ensemble::new(parts.to_vec())?;
        let join = Join { task, network, bench, parts: &parts, targets, place: (joined, joins) };
        joined += 1;
        let FusedFile { fused, file, uncompensated, compensation } = join.make(phases)?;
        last = Some((file, uncompensated, compensation));
        Ok::<_, Halt>(fused)
    })?;
    let (file, uncompensated, compensation) = last.ok_or_else(|| Problem::new(Code::Internal, "nothing was fused"))?;
    Ok(FusedFile { fused, file, uncompensated, compensation })
}

/// How a network of kept rows is written.
#[derive(Debug, Clone, Copy)]
struct Making {
    /// Whether it is the network of all members, in the types that they have; others stay in f32.
    last: bool,
    /// Whether its file stays.
    published: bool,
}

impl Making {
    fn write(
        self,
        task: &Task,
        network: &Network,
        recipe: Recipe<'_>,
        phases: &mut Phases<'_>,
    ) -> Result<(Fused<Checkpoint>, OutputFile), Halt> {
        let path = task.scratch.join(if self.published { publish::MODEL } else { "intermediate.safetensors" });
        let precision = if self.last { &network.precision } else { &Precision::default() };
        let (fused, written) = recipe.write(&path, &publish::notes(), precision, |done, all| phases.done(done, all))?;
        if !self.published {
            std::fs::remove_file(&path).map_err(|error| publish::unwritten(&path, &error))?;
        }
        Ok((fused, publish::model_file(path, written)))
    }
}

/// One of the steps in which members become one network.
struct Join<'a> {
    task: &'a Task,
    network: &'a Network,
    bench: Option<&'a Bench<'a>>,
    parts: &'a Ensemble<'a>,
    targets: &'a [usize],
    /// Joins before this one, and all.
    place: (usize, usize),
}

impl Join<'_> {
    /// Keeps the best units of all parts, and refits the layers that read them.
    fn make(&self, phases: &mut Phases<'_>) -> Result<FusedFile, Halt> {
        let selection = self.select(phases)?;
        let (joined, joins) = self.place;
        let last = joined + 1 == joins;
        let publishes = last && self.task.job.finetune.is_none();
        if last {
            phases.begin(Phase::Prune)?;
        }
        let compensates = self.network.compensate != Compensate::None;
        let making = Making { last, published: publishes && !compensates };
        let recipe = fusion::gather(self.parts, &selection)?;
        let (plain, file) = making.write(self.task, self.network, recipe, phases)?;
        if !compensates {
            return Ok(FusedFile { fused: plain, file, uncompensated: None, compensation: None });
        }
        if last {
            phases.begin(Phase::Compensate)?;
        }
        let Compensated { mut weights, mut done, warnings } = self.compensate(&selection, &plain, phases)?;
        for warning in warnings {
            phases.warn(warning);
        }
        done.kept = self.is_better(&plain, &weights, phases)?;
        if !done.kept {
            weights = compensate::copy(&plain)?;
        }
        let (weights, file) = publish::model(self.task, &weights, &self.network.precision)?;
        if !publishes {
            std::fs::remove_file(&file.path).map_err(|error| publish::unwritten(&file.path, &error))?;
        }
        let fused = Fused { graph: plain.graph, weights, provenance: plain.provenance };
        let changed = !done.layers.is_empty();
        let uncompensated = changed.then_some(plain.weights);
        Ok(FusedFile { fused, file, uncompensated, compensation: changed.then_some(done) })
    }

    fn select(&self, phases: &mut Phases<'_>) -> Result<Selection, Halt> {
        let method = &self.task.job.method;
        let (joined, joins) = self.place;
        let statistics = match self.bench {
            Some(bench) if method.importance.needs_data() => {
                let monitor = &mut |done: f64| phases.goes_on((joined as f64 + done) / joins as f64);
                Some(importance::measure(self.parts, &bench.data().train, &self.sampling(), monitor)?)
            }
            _ => None,
        };
        let (importance, seed, targets) = (method.importance, self.task.job.seed, self.targets);
        let ranking = Ranking { importance, seed, statistics: statistics.as_ref(), targets };
        let score = |parts: &Ensemble<'_>, selection: &Selection, group| ranking.score(parts, selection, group);
        let selection = fusion::select(self.parts, targets, score, |groups, all| {
            phases.done(joined * all + groups, joins * all);
        })?;
        phases.go_on()?;
        Ok(selection)
    }

    /// Refits the layers behind the selection.
    fn compensate(
        &self,
        selection: &Selection,
        plain: &Fused<Checkpoint>,
        phases: &mut Phases<'_>,
    ) -> Result<Compensated, Halt> {
        let monitor = &mut |done| phases.goes_on(done);
        Ok(match self.bench {
            Some(bench) if self.network.compensate == Compensate::Calibration => {
                let Calibration { convolutions, ridge, .. } = self.task.job.method.calibration;
                let options = Options { sampling: self.sampling(), convolutions, ridge };
                compensate::calibrate(self.parts, selection, plain, &bench.data().train, &options, monitor)?
            }
            _ => compensate::data_free(self.parts, selection, plain, monitor)?,
        })
    }

    /// Whether the compensated network is at least as good as the plain one, as far as there is a validation split.
    fn is_better(
        &self,
        plain: &Fused<Checkpoint>,
        compensated: &StateDict,
        phases: &mut Phases<'_>,
    ) -> Result<bool, Halt> {
        let Some(bench) = self.bench else { return Ok(true) };
        let before = bench.validation_accuracy(&plain.graph, &plain.weights)?;
        let after = bench.validation_accuracy(&plain.graph, compensated)?;
        let (Some(before), Some(after)) = (before, after) else { return Ok(true) };
        if after < before {
            let (before, after) = (before * 100.0, after * 100.0);
            phases.warn(format!(
                "compensation lowered the validation accuracy from {before:.2} % to {after:.2} %: its result was dropped"
            ));
        }
        Ok(after >= before)
    }

    fn sampling(&self) -> Sampling {
        let Calibration { samples, positions, .. } = self.task.job.method.calibration;
        Sampling { samples, positions, seed: self.task.job.seed }
    }
}
