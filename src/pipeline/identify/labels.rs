//! What labelled data say: the members were trained to be right, and as a network that they are not they are wrong more
//! often. That makes a network likely, never certain.

use super::{LISTED, Trial, Verdict, refused};
use crate::cost::identification::{RIVALS, ROUNDS};
use crate::domain::problem::{Code, Problem};
use crate::kernels::loss::{argmax, label_loss};
use crate::model::families::{Compared, Degree};
use crate::pipeline::load::Subset;
use crate::pipeline::metrics;
use crate::pipeline::phases::{Halt, Phases};
use crate::train::Examples;

/// Standard deviations of the difference by which a network must be ahead; more where it only drops out of a round.
const MARGIN: f64 = 3.0;
const ROUND_MARGIN: f64 = 4.0;

/// Part of the examples on which two networks decide alike that these data cannot, and need not, tell apart.
const ALIKE: f64 = 0.98;

/// One member as one candidate on some examples.
struct Run {
    candidate: usize,
    predictions: Vec<u32>,
    right: Vec<bool>,
    /// Of each example.
    losses: Vec<f64>,
}

impl Run {
    fn accuracy(&self) -> f64 {
        self.right.iter().filter(|right| **right).count() as f64 / self.right.len().max(1) as f64
    }

    fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }

    /// Whether its losses are less than those of `other` by so many standard errors of the mean difference.
    fn has_less_loss_than(&self, other: &Self, margin: f64) -> bool {
        let count = self.losses.len().max(1) as f64;
        let differences = || self.losses.iter().zip(&other.losses).map(|(own, other)| other - own);
        let mean = differences().sum::<f64>() / count;
        let variance = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>() / count;
        mean > margin * (variance / count).sqrt()
    }

    /// Of how many more examples it is right than `other`, in standard deviations of that difference (`McNemar`'s test).
    fn lead(&self, other: &Self) -> f64 {
        let pairs = || self.right.iter().zip(&other.right);
        let only_self = pairs().filter(|(own, other)| **own && !**other).count();
        let only_other = pairs().filter(|(own, other)| !**own && **other).count();
        let apart = only_self + only_other;
        if apart == 0 { 0.0 } else { (only_self as f64 - only_other as f64) / (apart as f64).sqrt() }
    }

    /// Whether it is ahead of `other` by so many standard deviations: it is right more often, or its losses are less and it is not
    /// right less often.
    fn is_ahead_of(&self, other: &Self, margin: f64) -> bool {
        let lead = self.lead(other);
        lead > margin || (lead > -1.0 && self.has_less_loss_than(other, margin))
    }

    /// Whether both decide alike.
    fn is_like(&self, other: &Self) -> bool {
        let same = self.predictions.iter().zip(&other.predictions).filter(|(own, other)| own == other).count();
        same as f64 >= ALIKE * self.predictions.len() as f64
    }
}

/// Runs a member as a candidate; none where it cannot be run so.
fn run(trial: &Trial<'_>, candidate: usize, member: usize, part: &Subset) -> Result<Option<Run>, Halt> {
    let Some(logits) = trial.logits(candidate, member, part)? else { return Ok(None) };
    let (logits, labels) = (metrics::of_classes(&logits, trial.prediction), part.labels().unwrap_or_default());
    let classes = logits.len() / part.len().max(1);
    let mut run = Run { candidate, predictions: Vec::new(), right: Vec::new(), losses: Vec::new() };
    for (logits, label) in logits.chunks_exact(classes).zip(labels) {
        let predicted = argmax(logits) as u32;
        run.predictions.push(predicted);
        run.right.push(predicted == label);
        run.losses.push(label_loss(logits, label));
    }
    Ok(Some(run))
}

/// The place of the run with the least loss among those that are not clearly right less often than the best.
fn leader(runs: &[Run]) -> Option<usize> {
    let most = runs.iter().max_by(|a, b| a.accuracy().total_cmp(&b.accuracy()))?;
    let close = runs.iter().enumerate().filter(|(_, run)| most.lead(run) <= MARGIN);
    close.min_by(|a, b| a.1.loss().total_cmp(&b.1.loss())).map(|(place, _)| place)
}

/// The problem where no example is right or wrong.
fn undecided(trial: &Trial<'_>, data: &Subset) -> Halt {
    let which = if data.is_labelled() {
        format!("not those of the task `{}`", trial.prediction.as_str())
    } else {
        "and the dataset has none".to_owned()
    };
    let detail = format!(
        "names and shapes fit {} networks, and only labels by which each example is right or wrong decide between them, {which}. What \
         settles it: `reference`, some inputs with a member's own outputs (docs/reference.md); the settings themselves, as in {{\"architecture\": {{\"activation\": \"relu\"}}}}; or {{\"architecture\": {{\"assume\": true}}}} for the most \
         usual network",
        trial.candidates.len(),
    );
    refused(Code::ArchitectureAmbiguous, detail, &[])
}

/// The network that is ahead of all others on labelled data for every member.
pub(super) fn decide(
    trial: &Trial<'_>,
    data: &Subset,
    mut left: Vec<usize>,
    phases: &mut Phases<'_>,
) -> Result<Verdict, Halt> {
    if !trial.prediction.decides() || !data.is_labelled() {
        return Err(undecided(trial, data));
    }
    let mut dropped: Vec<(f64, usize)> = Vec::new();
    let (mut part, mut runs) = (data.spread(ROUNDS[0]), Vec::<Run>::new());
    for (round, count) in ROUNDS.into_iter().enumerate() {
        part = data.spread(count);
        runs.clear();
        let total = left.len();
        for (index, candidate) in left.iter().enumerate() {
            phases.check_stop()?;
            runs.extend(run(trial, *candidate, 0, &part)?);
            phases.done(round * total + index + 1, ROUNDS.len() * total);
        }
        let Some(place) = leader(&runs) else { break };
        runs.swap(0, place);
        let leader = &runs[0];
        let behind = |run: &Run| leader.is_ahead_of(run, ROUND_MARGIN) && leader.lead(run) >= 0.0;
        dropped.extend(runs.iter().filter(|run| behind(run)).map(|run| (run.accuracy(), run.candidate)));
        let keep: Vec<bool> = runs.iter().map(|run| !behind(run)).collect();
        let mut keep = keep.into_iter();
        runs.retain(|_| keep.next() == Some(true));
        left = runs.iter().map(|run| run.candidate).collect();
        if left.len() <= 1 || part.len() < count {
            break;
        }
    }
    let Some(leader) = runs.first() else {
        return Err(
            Problem::new(Code::ArchitectureUnknown, "the first member can be run as none of the networks").into()
        );
    };
    dropped.sort_by(|a, b| b.0.total_cmp(&a.0));
    let alike: Vec<usize> = runs.iter().filter(|run| leader.is_like(run)).map(|run| run.candidate).collect();
    let unlike: Vec<usize> = left.iter().copied().filter(|candidate| !alike.contains(candidate)).collect();
    let rivals: Vec<usize> =
        unlike.iter().copied().chain(dropped.iter().take(RIVALS).map(|(_, candidate)| *candidate)).collect();
    let mut as_alike: Vec<Vec<Run>> = alike.iter().map(|_| Vec::new()).collect();
    let mut table: Vec<(usize, Vec<f64>)> = Vec::new();
    let mut doubtful = None;
    for member in 0..trial.loaded.members.len() {
        phases.check_stop()?;
        let mut of_alike = Vec::new();
        for candidate in &alike {
            of_alike.extend(run(trial, *candidate, member, &part)?);
        }
        let mut of_rivals = Vec::new();
        for candidate in rivals.iter().take(LISTED) {
            of_rivals.extend(run(trial, *candidate, member, &part)?);
        }
        if of_alike.len() < alike.len() {
            doubtful = Some(member);
            break;
        }
        for run in of_alike.iter().take(LISTED / 2).chain(&of_rivals) {
            match table.iter_mut().find(|(candidate, _)| *candidate == run.candidate) {
                Some((_, accuracies)) => accuracies.push(run.accuracy()),
                None => table.push((run.candidate, vec![run.accuracy()])),
            }
        }
        let own = &of_alike[0];
        if of_rivals.iter().any(|rival| !own.is_ahead_of(rival, MARGIN)) && doubtful.is_none() {
            doubtful = Some(member);
        }
        for (runs, run) in as_alike.iter_mut().zip(of_alike) {
            runs.push(run);
        }
    }
    let line = |(candidate, accuracy): &(usize, Vec<f64>)| Compared {
        settings: trial.candidates[*candidate].settings.clone(),
        distance: None,
        accuracy: Some(accuracy.clone()),
    };
    let compared: Vec<Compared> = table.iter().take(LISTED).map(line).collect();
    if let Some(member) = doubtful {
        let detail = format!(
            "names and shapes fit {} networks, and the labels of {} examples do not tell which the members are: for member {member} \
             none is ahead by {MARGIN} standard deviations. What settles it: `reference`, some inputs with a member's own \
             logits (docs/reference.md); the settings themselves, as in {{\"architecture\": {{\"activation\": \"relu\"}}}}; or \
             {{\"architecture\": {{\"assume\": true}}}} for the most usual network. If no network does well, check `normalize` and \
             the order of the classes",
            trial.candidates.len(),
            part.len(),
        );
        return Err(refused(Code::ArchitectureAmbiguous, detail, &compared));
    }
    let chosen = chosen_of(&alike, &as_alike);
    let accuracies = table.first().map(|(_, accuracies)| shown(accuracies)).unwrap_or_default();
    let next = table.iter().find(|(candidate, _)| !alike.contains(candidate));
    let next = next.map(|(_, accuracies)| format!(", as the next network {}", shown(accuracies))).unwrap_or_default();
    let also = match alike.len() {
        1 => String::new(),
        many => format!("; {} others decide alike on {:.0} % of them", many - 1, ALIKE * 100.0),
    };
    let why = format!(
        "of {} networks that fit names and shapes this one classifies most of {} labelled examples right: {accuracies} of them{next}{also}",
        trial.candidates.len(),
        part.len(),
    );
    Ok(Verdict { chosen, degree: Degree::Likely, why, compared })
}

fn shown(accuracies: &[f64]) -> String {
    let parts: Vec<String> = accuracies.iter().map(|part| format!("{:.2} %", part * 100.0)).collect();
    parts.join(", ")
}

/// Of networks that decide alike the most usual, unless another has less loss for every member by more than chance explains.
/// `runs` holds for each of them its run as every member.
fn chosen_of(alike: &[usize], runs: &[Vec<Run>]) -> usize {
    let usual = alike.iter().enumerate().min_by_key(|(_, candidate)| **candidate).map_or(0, |(place, _)| place);
    let total = |place: usize| runs[place].iter().map(Run::loss).sum::<f64>();
    let best = (0..alike.len()).min_by(|a, b| total(*a).total_cmp(&total(*b))).unwrap_or(usual);
    let clear = runs[best].iter().zip(&runs[usual]).all(|(best, usual)| best.has_less_loss_than(usual, ROUND_MARGIN));
    alike[if clear { best } else { usual }]
}
