//! Proof by the accuracies that the client knows the members to have on the test split.

use super::{LISTED, Trial, Verdict, labels, refused};
use crate::cost::identification::FIRST_LOOK;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::kernels::loss::argmax;
use crate::model::families::{Compared, Degree};
use crate::pipeline::load::Subset;
use crate::pipeline::metrics;
use crate::pipeline::phases::{Halt, Phases};
use crate::train::Examples;

/// Standard deviations by which a measured accuracy may differ from the known one; more in the first look.
const MARGIN: f64 = 3.0;
const FIRST_MARGIN: f64 = 5.0;

/// What a known accuracy may be rounded by.
const ROUNDING: f64 = 5e-4;

/// Part of the examples on which several networks with these accuracies must decide alike.
const ALIKE: f64 = 0.99;

/// Predictions of one member, and how many are right.
struct Run {
    predictions: Vec<usize>,
    accuracy: f64,
}

fn run(trial: &Trial<'_>, candidate: usize, member: usize, part: &Subset) -> Result<Option<Run>, Halt> {
    let Some(logits) = trial.logits(candidate, member, part)? else { return Ok(None) };
    let logits = metrics::of_classes(&logits, trial.prediction);
    let classes = logits.len() / part.len().max(1);
    let predictions: Vec<usize> = logits.chunks_exact(classes).map(argmax).collect();
    let labels = part.labels().unwrap_or_default();
    let right = predictions.iter().zip(labels).filter(|(predicted, label)| **predicted == *label as usize);
    let accuracy = right.count() as f64 / part.len().max(1) as f64;
    Ok(Some(Run { predictions, accuracy }))
}

/// Whether `measured` on `count` examples may be the accuracy `known`.
fn fits(measured: f64, known: f64, count: usize, margin: f64) -> bool {
    let deviation = (known * (1.0 - known) / count.max(1) as f64).sqrt();
    (measured - known).abs() <= margin * deviation + ROUNDING
}

/// The network as which every member has its known accuracy.
pub(super) fn decide(trial: &Trial<'_>, known: &[f64], phases: &mut Phases<'_>) -> Result<Verdict, Halt> {
    let data = trial.loaded.data.as_ref();
    let Some((data, test)) = data.and_then(|data| Some((data, data.test.as_ref()?))) else {
        let detail = "needs a test split: `accuracy` is that of the members on it";
        return Err(Problem::faults(vec![Fault::new("/accuracy", FaultCode::MissingField, detail)]).into());
    };
    let mut left: Vec<usize> = (0..trial.candidates.len()).collect();
    let mut table: Vec<(f64, Compared)> = Vec::new();
    let mut accepted: Vec<(usize, Vec<Run>)> = Vec::new();
    for (part, margin) in [(test.spread(FIRST_LOOK), FIRST_MARGIN), (test.clone(), MARGIN)] {
        accepted.clear();
        table.clear();
        let total = left.len();
        for (place, candidate) in left.iter().enumerate() {
            let mut runs = Vec::new();
            let mut all = true;
            for (member, known) in known.iter().enumerate() {
                phases.check_stop()?;
                let Some(run) = run(trial, *candidate, member, &part)? else {
                    all = false;
                    break;
                };
                all &= fits(run.accuracy, *known, part.len(), margin);
                runs.push(run);
                if !all {
                    break;
                }
            }
            phases.done(place + 1, total);
            let off = runs.iter().zip(known).map(|(run, known)| (run.accuracy - known).abs()).fold(0.0, f64::max);
            let accuracy = Some(runs.iter().map(|run| run.accuracy).collect());
            let settings = trial.candidates[*candidate].settings.clone();
            table.push((off, Compared { settings, distance: None, accuracy }));
            if all {
                accepted.push((*candidate, runs));
            }
        }
        if accepted.is_empty() {
            break;
        }
        left = accepted.iter().map(|(candidate, _)| *candidate).collect();
    }
    table.sort_by(|a, b| a.0.total_cmp(&b.0));
    let compared: Vec<Compared> = table.into_iter().take(LISTED).map(|(_, compared)| compared).collect();
    let Some((chosen, runs)) = accepted.first() else {
        let detail = format!(
            "as none of the {} networks that fit names and shapes do the members have the known accuracies on the {} examples of \
             the test split: check `normalize` and the order of the classes, or spell the network out as \
             {{\"architecture\": {{\"graph\": …}}}}",
            trial.candidates.len(),
            test.len(),
        );
        return Err(refused(Code::ArchitectureUnknown, detail, &compared));
    };
    let alike = |other: &[Run]| runs.iter().zip(other).all(|(own, other)| is_like(own, other));
    if !accepted.iter().all(|(_, other)| alike(other)) {
        let accepted = accepted.iter().map(|(candidate, _)| *candidate).collect();
        return labels::decide(trial, &data.train, accepted, phases);
    }
    let why = format!(
        "of {} networks that fit names and shapes {} have the known accuracies on the {} examples of the test split",
        trial.candidates.len(),
        accepted.len(),
        test.len(),
    );
    Ok(Verdict { chosen: *chosen, degree: Degree::Proven, why, compared })
}

fn is_like(own: &Run, other: &Run) -> bool {
    let same = own.predictions.iter().zip(&other.predictions).filter(|(own, other)| own == other).count();
    same as f64 >= ALIKE * own.predictions.len() as f64
}
