//! How much a network's outputs change when one coupling group alone is pruned: what a budget is spent by.

use crate::fusion::{Ensemble, FusionError, Scores, Selection, magnitude};
use crate::model::allocate::Curve;
use crate::model::groups::GroupId;

/// Widths that a curve is measured at: one unit, and equal parts of all.
pub const POINTS: usize = 8;

/// One group pruned by itself.
#[derive(Debug)]
pub struct Probe {
    /// The group.
    pub group: GroupId,
    /// Its units by their importance, in the unpruned concatenation.
    pub scores: Scores,
    /// The widths to measure at, ascending, all below the full width.
    pub widths: Vec<usize>,
    /// The full width.
    pub total: usize,
}

impl Probe {
    /// Everything but the units that `group` loses when it is pruned to `width`.
    #[must_use]
    pub fn selection(&self, ensemble: &Ensemble<'_>, width: usize) -> Selection {
        Selection::only(ensemble, self.group, &self.scores, width)
    }

    /// The curve through the measured changes, in the order of `widths`.
    #[must_use]
    pub fn curve(&self, changes: impl IntoIterator<Item = f64>) -> Curve {
        let mut points: Vec<(usize, f64)> = self.widths.iter().copied().zip(changes).collect();
        points.push((self.total, 0.0));
        Curve { points }
    }

    /// The curve where there is nothing to measure with: the square root of the dropped share of the group's scores, which
    /// is the relative change of the group's weights in the Frobenius norm.
    #[must_use]
    pub fn from_scores(&self) -> Curve {
        let mut scores: Vec<f64> = self.scores.iter().flatten().copied().filter(|score| !score.is_nan()).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let all: f64 = scores.iter().sum();
        let change = |width: &usize| {
            let dropped: f64 = scores.iter().skip(*width).sum();
            if all > 0.0 { (dropped / all).sqrt() } else { 0.0 }
        };
        self.curve(self.widths.iter().map(change).collect::<Vec<_>>())
    }
}

/// What to measure of every group, in pruning order.
///
/// # Errors
/// When weights cannot be read.
pub fn probes(ensemble: &Ensemble<'_>) -> Result<Vec<Probe>, FusionError> {
    let everything = Selection::all(ensemble);
    let probe = |group: usize| {
        let group = GroupId(group);
        let scores = magnitude(ensemble, &everything, group)?;
        let total: usize = ensemble.widths(group).iter().sum();
        let mut widths: Vec<usize> = (1..POINTS).map(|part| total * part / POINTS).collect();
        widths.push(1);
        widths.retain(|width| (1..total).contains(width));
        // Heads follow from the channels: nothing is spent on them by themselves.
        if ensemble.couplings()[0].attention_of(group).is_some() {
            widths.clear();
        }
        widths.sort_unstable();
        widths.dedup();
        Ok(Probe { group, scores, widths, total })
    };
    (0..ensemble.groups()).map(probe).collect()
}
