//! How the members become one network, as a client requests it: the `method` part of a job.

use serde::{Deserialize, Serialize};

use crate::settings::{Calibration, Compensate, EnsembleRule, Importance};

/// How the members become one network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Method {
    /// The method.
    pub name: MethodName,
    /// How the members' outputs become the ensemble's.
    #[serde(default)]
    pub ensemble: EnsembleRule,
    /// Which members are joined when.
    pub order: Order,
    /// How units are ranked.
    pub importance: Importance,
    /// Whether consumers are refitted after selection.
    pub compensate: Compensate,
    /// How calibration data is drawn and used, by compensation, by rankings that need activations, and by
    /// [`MethodName::NeuronInterpolation`].
    pub calibration: Calibration,
    /// How units of different members become groups, by [`MethodName::NeuronInterpolation`].
    #[serde(default)]
    pub matching: Grouping,
    /// How units of different members are matched, by methods that average.
    pub alignment: AlignmentOptions,
    /// What becomes of the statistics of BatchNorm.
    pub batch_norm: BatchNorm,
    /// How much each member counts in the outputs.
    pub member_weights: MemberWeights,
    /// Each member's part of the kept units, for [`Order::PruneThenMerge`]; equal parts by default.
    pub rates: Option<Vec<f64>>,
    /// Epochs that the concatenated network is trained for on the labels, by [`Order::MergeFinetunePrune`]; as many as afterwards by
    /// default.
    pub merge_epochs: Option<usize>,
    /// Where [`MethodName::DistillOnly`] starts.
    pub start: Start,
}

/// The method's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Concatenate, prune, recover.
    #[default]
    NeuronTransplantation,
    /// The plain mean of the members' weights, tensor by tensor.
    Average,
    /// The mean after every member was carried over to the first (Singh & Jaggi, NeurIPS 2020).
    OptimalTransport,
    /// The mean after the members' units were put in the orders in which they agree most (Git Re-Basin, ICLR 2023).
    PermutationAlignment,
    /// Level after level, units that each compute the mean of a group of the members' units, by least squares (Luenam et al. 2025).
    NeuronInterpolation,
    /// No fusion: one network of the first member's form learns from the ensemble.
    DistillOnly,
}

impl MethodName {
    /// Whether units are chosen from all members.
    #[must_use]
    pub fn selects(self) -> bool {
        matches!(self, Self::NeuronTransplantation)
    }

    /// Whether units of different members are matched.
    #[must_use]
    pub fn aligns(self) -> bool {
        matches!(self, Self::OptimalTransport | Self::PermutationAlignment)
    }

    /// The name in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeuronTransplantation => "neuron_transplantation",
            Self::Average => "average",
            Self::OptimalTransport => "optimal_transport",
            Self::PermutationAlignment => "permutation_alignment",
            Self::NeuronInterpolation => "neuron_interpolation",
            Self::DistillOnly => "distill_only",
        }
    }
}

/// How units of different members become groups, as many as the fused network has units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// By K-means: groups of any sizes, members of any widths.
    #[default]
    KMeans,
    /// By linear assignment, member after member to the mean of those before: one unit of each member, whose shape is one.
    Hungarian,
}

/// How units of different members are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlignmentOptions {
    /// By what the similarity of two units is measured.
    pub cost: GroundCost,
    /// What becomes of the outputs.
    pub outputs: OutputAlignment,
}

/// By what the similarity of two units is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroundCost {
    /// Their weights.
    #[default]
    Weights,
    /// Their activations on calibration data.
    Activations,
}

/// What becomes of the outputs when units are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputAlignment {
    /// They are the classes: each stays what it is.
    #[default]
    Fixed,
    /// They are carried over like hidden units, as the published code of optimal-transport fusion does.
    Transported,
}

/// What becomes of the statistics of BatchNorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// Measured anew after units were matched and averaged, where there is a dataset; else kept.
    #[default]
    Auto,
    /// As the members' statistics give them.
    Keep,
    /// Forgotten and measured anew on the train split (REPAIR; Jordan et al., ICLR 2023).
    Reset,
}

/// Which members are joined when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// All at once.
    #[default]
    Joint,
    /// The first two, the result with the third, and so on.
    Iterative,
    /// As a merge sort: two or three at once, then pairs of results.
    Hierarchical,
    /// Each member is pruned by itself to its part of the target, then all are put side by side.
    PruneThenMerge,
    /// All side by side are trained, then pruned, then trained again.
    MergeFinetunePrune,
}

/// How much each member counts in the outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum MemberWeights {
    /// By a rule.
    Rule(WeightRule),
    /// These, divided by their sum.
    Given(Vec<f64>),
}

impl Default for MemberWeights {
    fn default() -> Self {
        Self::Rule(WeightRule::Width)
    }
}

/// A rule for the members' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// By the width of what the output layer reads, as the concatenation of the paper does.
    Width,
    /// All alike.
    Uniform,
    /// Those by which the weighted mean of the logits has the least cross-entropy on the validation split.
    Fitted,
}

/// Where a network that only learns from the ensemble starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the first member's weights.
    #[default]
    Member,
    /// With fresh weights.
    Scratch,
}
