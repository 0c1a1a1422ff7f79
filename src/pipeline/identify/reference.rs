//! Proof by a reference: inputs, and what one member makes of them in the client's own code.

use super::{LISTED, Trial, Verdict, labels, refused};
use crate::cost::identification::{FEWEST_INPUTS, SCREENED_INPUTS};
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::families::{Compared, Degree};
use crate::model::header::{CheckpointHeader, Dtype};
use crate::pipeline::load;
use crate::pipeline::phases::{Halt, Phases};
use crate::tensors::{Checkpoint, Weights};
use crate::train::TrainError;

/// Largest distance at which a network does what the reference says.
const TOLERANCE: f64 = 1e-3;
/// The same for members of 16-bit floats, which their own code may have run in that precision.
const HALF_TOLERANCE: f64 = 2e-2;

/// How much nearer the nearest must be than others within the tolerance, unless all agree on the job's data.
const NEARER: f64 = 10.0;

/// Distance that rounding explains: networks this near compute the same as far as the reference reaches.
const ROUNDING: f64 = 1e-5;

/// Examples of the job's data on which networks within the tolerance must agree.
const AGREE_ON: usize = 256;

/// What a member's last layer gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Logits,
    /// Their logarithms of probabilities.
    LogSoftmax,
    Softmax,
}

/// The file of a reference.
struct Reference {
    inputs: Vec<f32>,
    outputs: Vec<f32>,
    count: usize,
}

impl Reference {
    /// How far a member is from the reference as each of some candidates, on the first `count` inputs.
    fn distances(
        &self,
        trial: &Trial<'_>,
        member: usize,
        candidates: Vec<usize>,
        count: usize,
        scale: Scale,
        phases: &mut Phases<'_>,
    ) -> Result<Vec<(f64, usize)>, Halt> {
        let largest = self.outputs.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
        let [inputs, outputs] = [&self.inputs, &self.outputs].map(|all| &all[..all.len() / self.count * count]);
        let total = candidates.len();
        let mut distances = Vec::with_capacity(total);
        for (index, candidate) in candidates.into_iter().enumerate() {
            phases.check_stop()?;
            if let Some(mut network) = trial.network(candidate, member, count)? {
                let classes = network.classes();
                let got = network.forward(inputs).map_err(TrainError::from)?;
                distances.push((difference(&scaled(got, classes, scale), outputs) / largest, candidate));
            }
            phases.done(index + 1, total);
        }
        Ok(distances)
    }
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
    let all = (0..trial.candidates.len()).collect();
    // What is too far away on the first inputs is so on all: most networks are run on these alone.
    let first = reference.distances(trial, request.member, all, SCREENED_INPUTS, scale, phases)?;
    let (close, far): (Vec<_>, Vec<_>) = first.into_iter().partition(|(distance, _)| *distance <= tolerance);
    let close = close.into_iter().map(|(_, candidate)| candidate).collect();
    let mut distances = reference.distances(trial, request.member, close, reference.count, scale, phases)?;
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
    let rivals: Vec<usize> = near((best * NEARER).max(ROUNDING)).collect();
    // Of those that rounding alone tells apart the most usual.
    let chosen = near((best * 3.0).max(ROUNDING / 20.0)).min().unwrap_or(nearest);
    let same = rivals.iter().all(|rival| near(ROUNDING).any(|near| near == *rival));
    if !agree(trial, request.member, chosen, &rivals, tolerance)?.unwrap_or(same) {
        if let Some(data) = &trial.loaded.data {
            return labels::decide(trial, &data.train, rivals, phases);
        }
        let detail = format!(
            "{} networks are about as near to the logits of {name}: give more varied inputs, or settings that decide",
            rivals.len()
        );
        return Err(refused(Code::ArchitectureAmbiguous, detail, &compared));
    }
    let others =
        distances.get(rivals.len()).map_or(String::new(), |(next, _)| format!(", the next network {next:.2e}"));
    let ends = match scale {
        Scale::Logits => "",
        Scale::LogSoftmax => " (its outputs are logarithms of probabilities; the fused network gives logits)",
        Scale::Softmax => " (its outputs are probabilities; the fused network gives logits)",
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

fn fault(detail: String) -> Halt {
    Halt::Failed(Problem::faults(vec![Fault::new("/reference", FaultCode::ShapeMismatch, detail)]))
}

/// Reads the tensors `inputs` and `logits`, for inputs of the shape `input`.
fn read(checkpoint: &Checkpoint, input: &[usize], name: &str) -> Result<Reference, Halt> {
    let shape = |tensor: &str| {
        let info = checkpoint.header().tensors.iter().find(|info| info.name == tensor);
        info.map(|info| info.shape.clone()).ok_or_else(|| {
            fault(format!("`{name}` has no tensor `{tensor}`: expected `inputs` and `logits`, see docs/reference.md"))
        })
    };
    let (inputs, logits) = (shape("inputs")?, shape("logits")?);
    let count = inputs.first().copied().unwrap_or(0);
    let elements: usize = input.iter().product();
    if inputs.iter().skip(1).product::<usize>() != elements || inputs.len() < 2 {
        return Err(fault(format!("`inputs` of `{name}`: expected shape [N, …{input:?}], got {inputs:?}")));
    }
    if count < FEWEST_INPUTS || logits.first() != Some(&count) {
        let detail = format!(
            "`{name}`: expected at least {FEWEST_INPUTS} inputs and as many logits, got {count} and {}",
            logits.first().copied().unwrap_or(0)
        );
        return Err(fault(detail));
    }
    let values =
        |tensor: &str| checkpoint.f32(tensor).map_err(|error| fault(format!("`{tensor}` of `{name}`: {error}")));
    let (inputs, outputs) = (values("inputs")?, values("logits")?);
    let width = outputs.len() / count;
    let varied = outputs.chunks_exact(width.max(1)).skip(1).any(|row| row != &outputs[..width]);
    if !varied {
        return Err(fault(format!("`{name}`: all inputs give the same logits; expected varied inputs")));
    }
    if inputs.iter().chain(outputs.iter()).any(|value| !value.is_finite()) {
        return Err(fault(format!("`{name}` holds values that are not finite")));
    }
    Ok(Reference { inputs: inputs.into_owned(), outputs: outputs.into_owned(), count })
}

/// What kind of outputs these are.
fn scale_of(outputs: &[f32], classes: usize) -> Scale {
    if classes < 2 {
        return Scale::Logits;
    }
    let near_one = |sum: f64| (sum - 1.0).abs() < 1e-3;
    let rows = || outputs.chunks_exact(classes);
    if rows().all(|row| row.iter().all(|value| *value >= 0.0) && near_one(row.iter().map(|v| f64::from(*v)).sum())) {
        Scale::Softmax
    } else if rows().all(|row| near_one(row.iter().map(|value| f64::from(*value).exp()).sum())) {
        Scale::LogSoftmax
    } else {
        Scale::Logits
    }
}

/// Logits as outputs of that kind.
fn scaled(logits: &[f32], classes: usize, scale: Scale) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let largest = row.iter().fold(f64::NEG_INFINITY, |largest, value| largest.max(f64::from(*value)));
        let sum = row.iter().map(|value| (f64::from(*value) - largest).exp()).sum::<f64>().ln() + largest;
        let log = row.iter().map(|value| f64::from(*value) - sum);
        match scale {
            Scale::Logits => row.to_vec(),
            Scale::LogSoftmax => log.map(|value| value as f32).collect(),
            Scale::Softmax => log.map(|value| value.exp() as f32).collect(),
        }
    };
    logits.chunks_exact(classes.max(1)).flat_map(row).collect()
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
