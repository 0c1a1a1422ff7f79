//! Proof by a reference: inputs, and what one member makes of them in the client's own code.

mod file;

use file::{OutputScale, ReferenceData, fault, read, scale_of, scaled};

use super::{LISTED, Trial, Verdict, labels, refused};
use crate::cost::identification::SCREENED_INPUTS;
use crate::domain::problem::{Code, Problem};
use crate::exec::Inputs;
use crate::model::families::{Compared, Degree};
use crate::model::header::{CheckpointHeader, Dtype};
use crate::pipeline::load;
use crate::pipeline::phases::{Halt, Phases};
use crate::tensors::Checkpoint;
use crate::train::TrainError;

/// Largest distance at which a network does what the reference says.
const TOLERANCE: f64 = 1e-3;
/// The same for members of 16-bit floats, which their own code may have run in that precision.
const HALF_TOLERANCE: f64 = 2e-2;

/// How much nearer the nearest must be than others within the tolerance, unless all agree on the job's data.
const NEARER: f64 = 10.0;

/// Distance that rounding explains: networks this near compute the same as far as the reference reaches.
const ROUNDING: f64 = 1e-5;

/// Standard errors by which a reference must be nearer to one network than to another that it refutes.
const MARGIN: f64 = 5.0;

/// Examples of the job's data on which networks within the tolerance must agree.
const AGREE_ON: usize = 256;

/// One member that is run on the inputs of a reference.
struct Comparison<'a> {
    trial: &'a Trial<'a>,
    member: usize,
    reference: &'a ReferenceData,
    scale: OutputScale,
}

impl Comparison<'_> {
    /// What the member gives as a candidate for the first `count` inputs; none where it cannot be run so.
    fn outputs(&self, candidate: usize, count: usize) -> Result<Option<Vec<f32>>, Halt> {
        let Some(mut network) = self.trial.network(candidate, self.member, count)? else { return Ok(None) };
        let classes = network.classes();
        let inputs = &self.reference.inputs[..self.reference.inputs.len() / self.reference.count * count];
        let logits = network.forward(Inputs::Images(inputs)).map_err(TrainError::from)?;
        Ok(Some(scaled(logits, classes, self.scale)))
    }

    /// How far the member is from the reference as each of some candidates, on the first `count` inputs.
    fn distances(
        &self,
        candidates: Vec<usize>,
        count: usize,
        phases: &mut Phases<'_>,
    ) -> Result<Vec<(f64, usize)>, Halt> {
        let all = &self.reference.outputs;
        let largest = all.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
        let total = candidates.len();
        let mut distances = Vec::with_capacity(total);
        for (index, candidate) in candidates.into_iter().enumerate() {
            phases.check_stop()?;
            if let Some(got) = self.outputs(candidate, count)? {
                distances
                    .push((difference(&got, &all[..all.len() / self.reference.count * count]) / largest, candidate));
            }
            phases.done(index + 1, total);
        }
        Ok(distances)
    }

    /// How some candidates that are about as near as `nearest` compare with it.
    fn rivals(&self, nearest: usize, others: impl Iterator<Item = usize>) -> Result<Vec<Rival>, Halt> {
        let count = self.reference.count;
        let Some(own) = self.outputs(nearest, count)? else { return Ok(Vec::new()) };
        let mut rivals = Vec::new();
        for candidate in others {
            if let Some(other) = self.outputs(candidate, count)? {
                let same = distance(&other, &own) <= ROUNDING;
                if same || !refutes(&self.reference.outputs, &own, &other) {
                    rivals.push(Rival { candidate, same });
                }
            }
        }
        Ok(rivals)
    }
}

/// A network that the reference does not tell from the nearest one.
struct Rival {
    candidate: usize,
    /// Whether it computes the same for all inputs of the reference, but for rounding.
    same: bool,
}

/// Runs one member as each candidate, and takes the one that gives the reference's logits.
pub(super) fn decide(trial: &Trial<'_>, phases: &mut Phases<'_>) -> Result<Verdict, Halt> {
    let request = trial.task.job.reference.as_ref();
    let (Some(request), Some(file)) = (request, trial.task.reference.as_ref()) else {
        return Err(Problem::new(Code::Internal, "a reference without its file").into());
    };
    let checkpoint = Checkpoint::open(&file.path).map_err(|error| load::named(file, error))?;
    let reference = read(&checkpoint, &trial.input, &file.name)?;
    let half = is_half(trial.loaded.members[request.member].header());
    let tolerance = if half { HALF_TOLERANCE } else { TOLERANCE };
    let classes = trial.candidates[0].graph.classes();
    if reference.outputs.len() != reference.count * classes {
        let got = reference.outputs.len() / reference.count;
        return Err(fault(format!("`logits` of `{}`: expected {classes} for each input, got {got}", file.name)));
    }
    let scale = scale_of(&reference.outputs, classes);
    let comparison = Comparison { trial, member: request.member, reference: &reference, scale };
    let all = (0..trial.candidates.len()).collect();
    // What is too far away on the first inputs is so on all: most networks are run on these alone.
    let first = comparison.distances(all, SCREENED_INPUTS, phases)?;
    let (close, far): (Vec<_>, Vec<_>) = first.into_iter().partition(|(distance, _)| *distance <= tolerance);
    let close = close.into_iter().map(|(_, candidate)| candidate).collect();
    let mut distances = comparison.distances(close, reference.count, phases)?;
    distances.extend(far);
    distances.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = |&(distance, candidate): &(f64, usize)| Compared {
        settings: trial.candidates[candidate].settings.clone(),
        distance: Some(distance),
        accuracy: None,
    };
    let compared: Vec<Compared> = distances.iter().take(LISTED).map(line).collect();
    let name = format!("`{}`", file.name);
    let within: Vec<(f64, usize)> = distances.iter().copied().filter(|(distance, _)| *distance <= tolerance).collect();
    let Some(&(best, nearest)) = within.first() else {
        let nearest = distances.first().map_or("none could be run".to_owned(), |(distance, _)| {
            format!("the nearest is {distance:.2e} of the largest logit away, {tolerance:.0e} is allowed")
        });
        let detail = format!(
            "none of the {} networks that fit names and shapes gives the logits of {name} for member {}: {nearest}. Were inputs \
             normalised as the member needs them, and was it in evaluation mode? Else spell the network out as \
             {{\"architecture\": {{\"graph\": …}}}}",
            trial.candidates.len(),
            request.member,
        );
        return Err(refused(Code::ArchitectureUnknown, detail, &compared));
    };
    let near = |most: f64| within.iter().filter(move |(distance, _)| *distance <= most).map(|(_, near)| *near);
    let others = near((best * NEARER).max(ROUNDING)).filter(|other| *other != nearest);
    let rivals = comparison.rivals(nearest, others)?;
    // Of those that rounding alone tells apart the most usual.
    let usual = |other: &usize| rivals.iter().any(|rival| rival.same && rival.candidate == *other);
    let chosen =
        near((best * 3.0).max(ROUNDING / 20.0)).filter(usual).min().map_or(nearest, |other| other.min(nearest));
    let same = rivals.iter().all(|rival| rival.same);
    let left: Vec<usize> = [nearest].into_iter().chain(rivals.iter().map(|rival| rival.candidate)).collect();
    if !agree(trial, request.member, chosen, &left, tolerance)?.unwrap_or(same) {
        if let Some(data) = &trial.loaded.data {
            return labels::decide(trial, &data.train, left, phases);
        }
        let detail = format!(
            "{} networks are about as near to the logits of {name}: give more varied inputs{}, or settings that decide",
            left.len(),
            if half { ", and their logits in single precision (`model.float()`)" } else { "" },
        );
        return Err(refused(Code::ArchitectureAmbiguous, detail, &compared));
    }
    let others = distances
        .iter()
        .find(|(_, other)| !left.contains(other))
        .map_or(String::new(), |(next, _)| format!(", the next network {next:.2e}"));
    let ends = match scale {
        OutputScale::Logits => "",
        OutputScale::LogSoftmax => " (its outputs are logarithms of probabilities; the fused network gives logits)",
        OutputScale::Softmax => " (its outputs are probabilities; the fused network gives logits)",
    };
    let why = format!(
        "its logits differ from those of {name} for member {} by {best:.2e} of the largest{others}{ends}",
        request.member
    );
    Ok(Verdict { chosen, degree: Degree::Proven, why, compared })
}

/// Whether the networks that are near agree with the chosen one on the job's data; none where there are no data.
fn agree(
    trial: &Trial<'_>,
    member: usize,
    chosen: usize,
    rivals: &[usize],
    tolerance: f64,
) -> Result<Option<bool>, Halt> {
    let Some(data) = trial.loaded.data.as_ref().filter(|_| rivals.len() > 1) else {
        return Ok((rivals.len() < 2).then_some(true));
    };
    let part = data.train.spread(AGREE_ON);
    let Some(expected) = trial.logits(chosen, member, &part)? else { return Ok(Some(false)) };
    for rival in rivals.iter().filter(|rival| **rival != chosen) {
        match trial.logits(*rival, member, &part)? {
            Some(logits) if distance(&logits, &expected) <= tolerance => {}
            _ => return Ok(Some(false)),
        }
    }
    Ok(Some(true))
}

/// Whether all weights are of 16 bits.
fn is_half(header: &CheckpointHeader) -> bool {
    let mut floats = header.tensors.iter().filter(|info| info.dtype.is_float());
    floats.all(|info| matches!(info.dtype, Dtype::F16 | Dtype::Bf16))
}

/// Largest difference, as a part of the largest expected value; infinite where there is one that is no number.
fn distance(got: &[f32], expected: &[f32]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
    if largest > 0.0 { difference(got, expected) / largest } else { f64::INFINITY }
}

/// Largest difference; infinite where there is one that is no number.
fn difference(got: &[f32], expected: &[f32]) -> f64 {
    let differences = got.iter().zip(expected).map(|(got, expected)| f64::from((got - expected).abs()));
    differences.fold(0.0_f64, |most, one| if one.is_nan() { f64::INFINITY } else { most.max(one) })
}

/// Whether `reference` is on the side of the outputs `own` and not of `other`: its place on the straight way from the one (0) to the
/// other (1), by least squares, is below the middle by [`MARGIN`] standard errors. What rounding adds points anywhere.
fn refutes(reference: &[f32], own: &[f32], other: &[f32]) -> bool {
    let (mut along, mut way, mut rest) = (0.0, 0.0, 0.0);
    for ((reference, own), other) in reference.iter().zip(own).zip(other) {
        let [step, residual] = [other, reference].map(|value| f64::from(*value) - f64::from(*own));
        along += step * residual;
        way += step * step;
        rest += residual * residual;
    }
    let error = (rest / reference.len() as f64 / way).sqrt();
    along / way + MARGIN * error < 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_refutes_what_is_farther_than_its_own_rounding() {
        let own: Vec<f32> = (0..320).map(|index| (index as f32 * 0.7).sin()).collect();
        let moved = |by: f32, period: f32| -> Vec<f32> {
            own.iter().enumerate().map(|(index, value)| value + by * (index as f32 * period).cos()).collect()
        };
        let reference = moved(0.003, 2.9);
        assert!(refutes(&reference, &own, &moved(0.01, 1.3)), "three times as far");
        assert!(!refutes(&reference, &own, &moved(0.0005, 1.3)), "nearer than what rounding adds");
        assert!(!refutes(&moved(0.003, 1.3), &own, &moved(0.005, 1.3)), "on the way there");
        assert!(!refutes(&reference, &own, &own), "the same");
    }
}
