//! Rankings beside the paper's: which units of a coupling group stay.

use crate::fusion::select::{ActivationStatistics, Saliency, gradients, l1, magnitude, random};
use crate::fusion::{Ensemble, FusionError, Scores, Selection};
use crate::model::groups::GroupId;
use crate::settings::Importance;

/// A ranking with what it needs to know.
#[derive(Debug)]
pub struct Ranking<'a> {
    /// Which; [`Importance::Auto`] is for callers to try several, and ranks by magnitude here.
    pub importance: Importance,
    /// Seed of [`Importance::Random`].
    pub seed: u64,
    /// Second moments of the activations; rankings that need none ignore them.
    pub statistics: Option<&'a ActivationStatistics>,
    /// Statistics of each member's weights by their gradients; rankings that need none ignore them.
    pub saliencies: Option<&'a [Saliency]>,
    /// Units that each group keeps.
    pub targets: &'a [usize],
}

impl Ranking<'_> {
    /// Scores of one group's units: the highest stay.
    ///
    /// # Errors
    /// When weights cannot be read, or statistics are missing that the ranking needs.
    pub fn score(&self, ensemble: &Ensemble<'_>, selection: &Selection, group: GroupId) -> Result<Scores, FusionError> {
        match (self.importance, self.statistics) {
            (Importance::Magnitude | Importance::Auto, _) => magnitude(ensemble, selection, group),
            (Importance::L1, _) => l1(ensemble, selection, group),
            (Importance::Random, _) => Ok(random(ensemble, group, self.seed)),
            (Importance::Activation, Some(statistics)) => Ok(statistics.activation(ensemble, group)),
            (Importance::Css, Some(statistics)) => Ok(statistics.css(ensemble, group, self.targets[group.0])),
            (Importance::Activation | Importance::Css, None) => Err(FusionError::NoStatistics),
            (Importance::Taylor | Importance::Fisher, _) => {
                let saliencies = self.saliencies.ok_or(FusionError::NoStatistics)?;
                gradients::score(ensemble, group, saliencies, self.importance)
            }
        }
    }
}
