//! Shows that the virtual concatenation computes the mean of the members: it is run, layer by layer, as it would stand in
//! memory, on inputs of the caller's choice.

use crate::fusion::reference;
use crate::fusion::{Consensus, Ensemble, FusionError, Member, Mixture};

/// Relative difference of logits that rounding explains.
pub const TOLERANCE: f32 = 1e-4;

/// How far two sets of logits lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Largest difference of two corresponding logits.
    pub max_difference: f32,
    /// Largest logit by amount, at least 1: the difference's measure.
    pub scale: f32,
}

impl Agreement {
    /// Compares two sets of logits of equal size.
    #[must_use]
    pub fn of(expected: &[f32], got: &[f32]) -> Self {
        let differences = expected
            .iter()
            .zip(got)
            .map(|(a, b)| if a.is_finite() && b.is_finite() { (a - b).abs() } else { f32::INFINITY });
        let missing = if expected.len() == got.len() { 0.0 } else { f32::INFINITY };
        Self {
            max_difference: differences.fold(missing, f32::max),
            scale: expected.iter().fold(1.0, |scale: f32, logit| scale.max(logit.abs())),
        }
    }

    /// Whether rounding explains the difference.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.max_difference <= TOLERANCE * self.scale
    }
}

/// Logits of the virtual concatenation for `batch` examples in `inputs` (N x C x H x W or N x D), without building it; up to the
/// [end of what is linear](crate::model::groups::Couplings::linear_end).
///
/// # Errors
/// When weights cannot be read or `inputs` has the wrong length.
pub fn concatenation(ensemble: &Ensemble<'_>, inputs: &[f32], batch: usize) -> Result<Vec<f32>, FusionError> {
    reference::concatenation(ensemble, inputs, batch, ensemble.linear_end())
}

/// Logits of one network, computed independently of the training engine, whatever its operations.
///
/// # Errors
/// See [`concatenation`].
pub fn reference(member: Member<'_>, inputs: &[f32], batch: usize) -> Result<Vec<f32>, FusionError> {
    reference::alone(member, inputs, batch, member.graph.output())
}

/// The members' logits, each computed by itself, added up by their shares, in each class by its own where classes have some; as far as
/// [`concatenation`] goes.
///
/// # Errors
/// See [`concatenation`].
pub fn mean_of_members(ensemble: &Ensemble<'_>, inputs: &[f32], batch: usize) -> Result<Vec<f32>, FusionError> {
    let linear = Consensus { mixture: Mixture::Logits, ..ensemble.consensus().clone() };
    let mut mean = Vec::new();
    for (index, member) in ensemble.members().iter().enumerate() {
        linear.add(&mut mean, index, &reference::alone(*member, inputs, batch, ensemble.linear_end())?, 1.0);
    }
    Ok(mean)
}
