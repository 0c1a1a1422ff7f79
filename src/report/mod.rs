//! The report of a job: every candidate side by side, and what a reader should know about the figures.

mod card;
mod checks;
mod choice;
mod comparison;
mod computation;
mod ensemble;
mod figure;
mod gain;
mod html;
mod identity;
mod paired;
mod published;
mod table;
mod usage;

pub use card::card;
pub use checks::{CheckCode, CheckFinding, CheckedMember, CheckedSplit, MemberChecks};
pub use choice::{Choice, MemberBase, Tried, Yardstick};
pub use comparison::{Comparison, Run};
pub use computation::Computation;
pub use ensemble::{EnsembleChoice, RuleDecider, TriedRule};
pub use gain::{Gain, gain_kept};
pub use html::page;
#[cfg(test)]
pub(crate) use html::tests::report as sample;
pub use identity::{ReportFile, ReportIdentity};
pub use paired::{Outcomes, PairedOutcome, PairedTest, discordant};
pub use published::PublishedControl;
pub(crate) use table::scaled;

use serde::{Deserialize, Serialize};
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, OneOf, Type};

use crate::domain::epoch_choice::EpochChoice;
use crate::domain::progress::{EpochMetrics, Phase};
use crate::domain::score::{OutputScore, Score};
use crate::model::families::Evidence;
use crate::model::plan::LayerPlan;
use crate::model::refit::Compensation;
use crate::settings::{Method, Normalize, PredictionTask, RecoveryRule};

/// What a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// One of the networks that came in.
    Member,
    /// The one of them that does best on the validation split.
    BestMember,
    /// The mean of the members' logits: n networks at once.
    Ensemble,
    /// The class that most members name: n networks at once.
    Vote,
    /// The mean of the members' weights.
    Average,
    /// The mean after each member was carried over to the first.
    OptimalTransport,
    /// The mean after the members' units were matched.
    PermutationAlignment,
    /// Units that each compute the mean of a group of the members' units.
    NeuronInterpolation,
    /// The best member, trained on for as long on the labels.
    TrainedOn,
    /// The best member, trained for as long towards the ensemble's outputs.
    Distilled,
    /// After selection alone: the paper's method before recovery. Shown where there was a compensation.
    FusedUncompensated,
    /// Before any training.
    FusedZeroShot,
    /// The network of all members' units after training, where another one is published.
    Transplanted,
    /// The model that is published.
    Fused,
}

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CandidateReport {
    /// The member's file name, or the kind in words.
    pub name: String,
    /// What it is.
    pub kind: CandidateKind,
    /// On the validation split, where there is one.
    pub validation: Option<Score>,
    /// On the test split, where there is one.
    pub test: Option<Score>,
    /// 95 % interval, on the test split, else on the validation split, of the share of right labels, or of the RMSE (squared errors are
    /// taken as normal); none where each example is right or wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Standard error of the mean loss on the same examples; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_standard_error: Option<f64>,
    /// How well each label or number is predicted on the same examples; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_output: Option<Vec<OutputScore>>,
    /// Expected calibration error over 15 bins of confidence, in [0, 1]; on the test split, else on the validation split.
    pub calibration_error: Option<f64>,
    /// Share of the same examples whose label is among the five highest logits; none of five classes or fewer.
    pub top5_accuracy: Option<f64>,
    /// Accuracy on the same examples, class by class; none for a class without examples.
    pub per_class_accuracy: Option<Vec<Option<f64>>>,
    /// Share of the same examples on which the candidate names the ensemble's class, or share of all their labels that it sets as the
    /// ensemble does; none of numbers.
    pub agreement: Option<f64>,
    /// Learned numbers (BatchNorm statistics are not counted).
    pub parameters: u64,
    /// Multiply-accumulate operations for one example.
    pub macs: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Median time for one example (batch 1), in milliseconds.
    pub latency_ms: Option<f64>,
    /// The same in more detail.
    pub latency: Option<Latency>,
}

/// Time that a network takes for one example, alone and among others; of several networks one after another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Latency {
    /// One example at a time.
    pub batch_1: Timing,
    /// 64 examples at a time.
    pub batch_64: Timing,
}

/// Times for one example, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// Half of all runs took no longer.
    pub median_ms: f64,
    /// 95 of 100 runs took no longer; of several networks the sum, which is an upper bound.
    pub p95_ms: f64,
}

impl std::iter::Sum for Latency {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let add = |a: Timing, b: Timing| Timing { median_ms: a.median_ms + b.median_ms, p95_ms: a.p95_ms + b.p95_ms };
        let none = Self { batch_1: Timing::default(), batch_64: Timing::default() };
        all.fold(none, |sum, one| Self {
            batch_1: add(sum.batch_1, one.batch_1),
            batch_64: add(sum.batch_64, one.batch_64),
        })
    }
}

/// Everything a reader needs to judge a fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Report {
    /// Which job it is of, and of which files.
    #[serde(default)]
    pub identity: ReportIdentity,
    /// Version of engraft that computed this.
    pub engraft_version: String,
    /// The architecture that was recognised.
    pub architecture: String,
    /// What the networks predict; not said of classes.
    #[serde(default, skip_serializing_if = "PredictionTask::is_classification")]
    pub task: PredictionTask,
    /// How sure it is that the members are that network, and why; none in reports of versions that did not say.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// What names and shapes do not say and was assumed.
    pub assumptions: Vec<String>,
    /// What the first look at the members has shown; none without data, and in reports of versions that did not look.
    #[serde(default)]
    pub checks: Option<MemberChecks>,
    /// The comparison.
    pub candidates: Vec<CandidateReport>,
    /// What compensation did; none without one.
    pub compensation: Option<Compensation>,
    /// What the ranking `auto` tried; none where another was requested, or where it had nothing to judge by.
    #[serde(default)]
    pub choice: Option<Choice>,
    /// By which rule the members' outputs became the ensemble's; none without data.
    #[serde(default)]
    pub ensemble: Option<EnsembleChoice>,
    /// The published network beside the best member and the controls, example by example.
    #[serde(default)]
    pub paired: Vec<PairedTest>,
    /// See [`gain_kept`].
    pub ensemble_gain_kept: Option<f64>,
    /// Names of the members.
    pub members: Vec<String>,
    /// Each member's weight in the mean of the outputs.
    pub member_weights: Vec<f32>,
    /// How the fused network was trained; none without training.
    #[serde(default)]
    pub recovery: Option<RecoveryRule>,
    /// What is published in the place of the transplanted network; none where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedControl>,
    /// The epoch of the fused network's training whose weights are published; 0 is before training, none without training.
    pub best_epoch: Option<usize>,
    /// What that epoch was chosen by; none without training.
    #[serde(default)]
    pub epoch_choice: Option<EpochChoice>,
    /// Training, epoch by epoch.
    pub epochs: Vec<EpochMetrics>,
    /// Width of each layer before and after, and which member its units came from.
    pub layers: Vec<LayerReport>,
    /// How the members became one network.
    pub method: Method,
    /// Largest difference between the concatenation's and the ensemble's logits, and what was allowed.
    pub verification: Verification,
    /// Shape of one input without its batch axis; none in reports of versions that did not say.
    #[serde(default)]
    #[schema(example = json!([3, 32, 32]))]
    pub input_shape: Option<Vec<usize>>,
    /// What a user should look at.
    pub warnings: Vec<String>,
    /// Number of examples of each split that was used.
    pub examples: SplitSizes,
    /// What every input was normalised with, given or measured.
    #[serde(default)]
    pub normalize: Option<Normalize>,
    /// What it was computed with; none in reports of versions that did not say.
    #[serde(default)]
    pub computation: Option<Computation>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Seconds per phase.
    #[schema(schema_with = by_phase)]
    pub seconds: Vec<(Phase, f64)>,
    /// Most bytes that were allocated at once in each phase, mapped files not among them.
    #[serde(default)]
    #[schema(schema_with = by_phase)]
    pub memory_peak_bytes: Vec<(Phase, u64)>,
}

/// A list of `[phase, figure]`. A tuple's own schema forbids further items by a word that generators of clients do not know.
fn by_phase() -> Array {
    let pair = OneOf::builder().item(Ref::from_schema_name("Phase")).item(Object::with_type(Type::Number));
    let pair = ArrayBuilder::new().items(pair).min_items(Some(2)).max_items(Some(2));
    ArrayBuilder::new().items(pair).build()
}

/// A layer's widths and the origin of what was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LayerReport {
    /// Name, group and widths.
    #[serde(flatten)]
    pub plan: LayerPlan,
    /// How many of the kept units came from each member; empty where the members' units were averaged.
    pub kept_per_member: Vec<usize>,
}

/// How far the concatenated network was from the ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verification {
    /// Examples that were compared.
    pub examples: usize,
    /// Largest absolute difference of a logit.
    pub max_difference: f64,
    /// What rounding explains.
    pub tolerance: f64,
    /// The node whose values were compared, where a function bends the outputs behind it; none where the logits were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<String>,
}

/// Sizes of the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SplitSizes {
    /// Trained on.
    pub train: usize,
    /// Chosen by.
    pub validation: usize,
    /// Only reported.
    pub test: usize,
}
