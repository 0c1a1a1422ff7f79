//! How far a job has come as a whole, by what its plan expects of each phase.

use std::collections::BTreeMap;

use crate::domain::progress::Phase;
use crate::plan::resolve::Planned;

/// Seconds that must have been expected of what has ended before its true pace says anything.
const TELLING: f64 = 1.0;

/// A job's phases: what is expected of them, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Course {
    expected: BTreeMap<Phase, Expected>,
    /// Expected and true seconds of the visits that have ended.
    ended: Vec<(Phase, f64, f64)>,
    furthest: f64,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whole {
    /// The share that is done.
    pub(super) fraction: f64,
    /// Seconds to the end.
    pub(super) left: f64,
}

/// What is expected of a phase.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// Of a visit.
    seconds: f64,
    /// How often the job is in it: networks may be joined two by two.
    visits: usize,
}

impl Course {
    /// Takes what a plan expects, in the place of what was known before.
    pub(super) fn expect(&mut self, planned: &Planned) {
        let joins = planned.counts.joins.max(1);
        self.set(&planned.plan.seconds_by_phase, joins);
    }

    fn set(&mut self, seconds: &BTreeMap<Phase, f64>, joins: usize) {
        let of = |(phase, seconds): (&Phase, &f64)| {
            let visits = if matches!(phase, Phase::Prune | Phase::Compensate) { joins } else { 1 };
            (*phase, Expected { seconds: seconds / visits as f64, visits })
        };
        self.expected = seconds.iter().map(of).collect();
    }

    /// A phase has ended after `seconds`.
    pub(super) fn end(&mut self, phase: Phase, seconds: f64) {
        let expected = self.expected.get(&phase).map_or(0.0, |expected| expected.seconds);
        self.ended.push((phase, expected, seconds));
    }

    /// Where the job stands once `fraction` of a phase is done, which itself has `left` seconds to go, if that is known. None before there is
    /// a plan.
    pub(super) fn at(&mut self, phase: Phase, fraction: f64, left: Option<f64>) -> Option<Whole> {
        let all: f64 = self.expected.values().map(|expected| expected.seconds * expected.visits as f64).sum();
        if all <= 0.0 {
            return None;
        }
        let mut behind = 0.0;
        let mut ahead = 0.0;
        for (&other, expected) in &self.expected {
            let ended = self.ended.iter().filter(|(ended, ..)| *ended == other).count().min(expected.visits);
            let running = other == phase && ended < expected.visits;
            // What lies before and has not been visited as often as expected may still come, or never will: only more visits may.
            let open = if other >= phase || expected.visits > 1 { expected.visits - ended } else { 0 };
            let of_this = if running { fraction.clamp(0.0, 1.0) } else { 0.0 };
            behind += expected.seconds * (expected.visits - open) as f64 + expected.seconds * of_this;
            ahead += expected.seconds * (open as f64 - f64::from(u8::from(running)));
            ahead += if running && left.is_none() { expected.seconds * (1.0 - of_this) } else { 0.0 };
        }
        self.furthest = self.furthest.max((behind / all).min(1.0));
        Some(Whole { fraction: self.furthest, left: ahead * self.pace() + left.unwrap_or(0.0) })
    }

    /// How many times longer than expected what has ended took.
    fn pace(&self) -> f64 {
        let (expected, taken) = self
            .ended
            .iter()
            .fold((0.0, 0.0), |(expected, taken), (_, one, seconds)| (expected + one, taken + seconds));
        if expected < TELLING { 1.0 } else { taken / expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(joins: usize) -> Course {
        let mut course = Course::default();
        let seconds = [(Phase::Score, 2.0), (Phase::Prune, 1.0), (Phase::Compensate, 3.0), (Phase::Finetune, 4.0)];
        course.set(&BTreeMap::from(seconds), joins);
        course
    }

    #[track_caller]
    fn stands(course: &mut Course, phase: Phase, fraction: f64, left: Option<f64>, expected: [f64; 2]) {
        let whole = course.at(phase, fraction, left).expect("there is a plan");
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(whole.fraction, expected[0]) && close(whole.left, expected[1]), "{whole:?}");
    }

    #[test]
    fn nothing_is_known_before_there_is_a_plan() {
        assert_eq!(Course::default().at(Phase::Load, 0.5, Some(1.0)), None);
    }

    #[test]
    fn what_is_done_and_what_is_left_make_the_whole() {
        let mut course = course(1);
        stands(&mut course, Phase::Score, 0.5, None, [0.1, 9.0]);
        // It takes twice as long as was expected.
        course.end(Phase::Score, 4.0);
        stands(&mut course, Phase::Prune, 0.0, None, [0.2, 16.0]);
        course.end(Phase::Prune, 2.0);
        stands(&mut course, Phase::Compensate, 0.0, None, [0.3, 14.0]);
        // What the phase itself has measured counts more.
        stands(&mut course, Phase::Compensate, 0.5, Some(1.0), [0.45, 9.0]);
        course.end(Phase::Compensate, 6.0);
        stands(&mut course, Phase::Publish, 0.0, None, [1.0, 0.0]);
    }

    #[test]
    fn joining_two_by_two_goes_through_phases_again() {
        let mut course = course(2);
        let visits = [
            (Phase::Score, 0.0, 10.0),
            (Phase::Prune, 0.2, 8.0),
            (Phase::Compensate, 0.25, 7.5),
            (Phase::Prune, 0.4, 6.0),
            (Phase::Compensate, 0.45, 5.5),
        ];
        for (phase, fraction, left) in visits {
            stands(&mut course, phase, 0.0, None, [fraction, left]);
            let expected = course.expected[&phase].seconds;
            course.end(phase, expected);
        }
        stands(&mut course, Phase::Finetune, 0.0, Some(5.0), [0.6, 5.0]);
    }

    #[test]
    fn a_job_never_goes_back() {
        let mut course = course(1);
        stands(&mut course, Phase::Finetune, 0.5, None, [0.8, 2.0]);
        course.set(&BTreeMap::from([(Phase::Finetune, 1.0), (Phase::Evaluate, 9.0)]), 1);
        stands(&mut course, Phase::Finetune, 0.5, None, [0.8, 9.5]);
    }
}
