//! The report of a job: every candidate side by side, and what a reader should know about the figures.

mod table;

pub(crate) use table::scaled;

use serde::{Deserialize, Serialize};

use crate::job::compensation::Compensation;
use crate::job::protocol::{EpochMetrics, Phase, Score};
use crate::job::request::Method;
use crate::model::plan::LayerPlan;

/// What a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One of the networks that came in.
    Member,
    /// The mean of the members' logits: n networks at once.
    Ensemble,
    /// The mean of the members' weights.
    Average,
    /// After selection alone: the paper's method before recovery. Shown where there was a compensation.
    FusedUncompensated,
    /// After selection and compensation, before any training.
    FusedZeroShot,
    /// The model that is published.
    Fused,
}

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The member's file name, or the kind in words.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// On the validation split, where there is one.
    pub validation: Option<Score>,
    /// On the test split, where there is one.
    pub test: Option<Score>,
    /// Learned numbers (BatchNorm statistics are not counted).
    pub parameters: u64,
    /// Multiply-accumulate operations for one example.
    pub macs: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Median time for one example (batch 1), in milliseconds.
    pub latency_ms: Option<f64>,
}

/// Everything a reader needs to judge a fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of engraft that computed this.
    pub engraft_version: String,
    /// The architecture that was recognised.
    pub architecture: String,
    /// What was taken from convention, since neither names nor shapes tell.
    pub assumptions: Vec<String>,
    /// The comparison.
    pub candidates: Vec<CandidateReport>,
    /// What compensation did; none without one.
    pub compensation: Option<Compensation>,
    /// See [`gain_kept`].
    pub ensemble_gain_kept: Option<f64>,
    /// The epoch whose weights are published; 0 is before training, none without training.
    pub best_epoch: Option<usize>,
    /// Training, epoch by epoch.
    pub epochs: Vec<EpochMetrics>,
    /// Width of each layer before and after, and which member its units came from.
    pub layers: Vec<LayerReport>,
    /// How the members became one network.
    pub method: Method,
    /// Largest difference between the concatenation's and the ensemble's logits, and what was allowed.
    pub verification: Verification,
    /// What a user should look at.
    pub warnings: Vec<String>,
    /// Number of examples of each split that was used.
    pub examples: Examples,
    /// Seed of every random choice.
    pub seed: u64,
    /// Seconds per phase.
    pub seconds: Vec<(Phase, f64)>,
}

/// A layer's widths and the origin of what was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Name, group and widths.
    #[serde(flatten)]
    pub plan: LayerPlan,
    /// How many of the kept units came from each member; empty where the members' units were averaged.
    pub kept_per_member: Vec<usize>,
}

/// How far the concatenated network was from the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Examples that were compared.
    pub examples: usize,
    /// Largest absolute difference of a logit.
    pub max_difference: f64,
    /// What rounding explains.
    pub tolerance: f64,
}

/// Sizes of the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Examples {
    /// Trained on.
    pub train: usize,
    /// Chosen by.
    pub validation: usize,
    /// Only reported.
    pub test: usize,
}

/// Share of the ensemble's gain that the fused network keeps on the test split:
/// (fused - mean member) / (ensemble - mean member). None where a candidate is missing or where the ensemble's gain is
/// within one standard error of its accuracy, so that the ratio would be noise.
#[must_use]
pub fn gain_kept(candidates: &[CandidateReport], test_examples: usize) -> Option<f64> {
    let accuracies = |kind: Kind| -> Vec<f64> {
        let of_kind = candidates.iter().filter(|candidate| candidate.kind == kind);
        of_kind.filter_map(|candidate| Some(candidate.test?.accuracy)).collect()
    };
    let members = accuracies(Kind::Member);
    let (ensemble, fused) = (*accuracies(Kind::Ensemble).first()?, *accuracies(Kind::Fused).first()?);
    if members.is_empty() || test_examples == 0 {
        return None;
    }
    let member = members.iter().sum::<f64>() / members.len() as f64;
    let standard_error = (ensemble * (1.0 - ensemble) / test_examples as f64).sqrt();
    let gain = ensemble - member;
    (gain > standard_error).then(|| (fused - member) / gain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: Kind, accuracy: f64) -> CandidateReport {
        let test = Some(Score { accuracy, loss: 1.0 });
        CandidateReport {
            name: "x".into(),
            kind,
            validation: None,
            test,
            parameters: 1,
            macs: 1,
            bytes: 4,
            latency_ms: None,
        }
    }

    #[test]
    fn the_share_of_the_gain_is_told_only_where_it_means_something() {
        let row = |ensemble| {
            [
                candidate(Kind::Member, 0.80),
                candidate(Kind::Member, 0.82),
                candidate(Kind::Ensemble, ensemble),
                candidate(Kind::Fused, 0.84),
            ]
        };
        let kept = gain_kept(&row(0.85), 10_000).expect("a clear gain");
        assert!((kept - 0.75).abs() < 1e-9, "{kept}");
        assert_eq!(gain_kept(&row(0.812), 10_000), None, "a gain of 0.2 points is within one standard error of 0.4");
        assert_eq!(gain_kept(&row(0.85), 0), None);
        assert_eq!(gain_kept(&row(0.85)[2..], 10_000), None, "no members");
    }
}
