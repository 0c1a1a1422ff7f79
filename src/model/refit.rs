//! Layers that were refitted behind a selection: part of report and provenance.

use serde::{Deserialize, Serialize};

/// How the layers behind a selection were refitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Compensation {
    /// Where the moments come from.
    pub source: MomentSource,
    /// Calibration examples; 0 without data.
    pub samples: usize,
    /// Every layer that was refitted, in order of computation.
    pub layers: Vec<RefittedLayer>,
    /// The output layer's refit to probabilities, behind that of its logits; none without one.
    #[serde(default)]
    pub output_layer: Option<OutputLayerFit>,
    /// Whether the refitted network is the fused one: `auto` keeps the better of both on the validation split.
    pub kept: bool,
}

/// How the output layer was refitted to the ensemble's probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputLayerFit {
    /// Examples that it saw.
    pub examples: usize,
    /// Steps of the minimisation.
    pub steps: usize,
    /// Mean cross-entropy with the ensemble's probabilities plus the ridge, in nats, of the least-squares solution.
    pub loss_before: f64,
    /// The same at the end.
    pub loss_after: f64,
}

/// Where moments come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MomentSource {
    /// Activations on inputs of the train split; labels are not read.
    Calibration,
    /// Inputs are taken for Gaussian noise.
    DataFree,
}

/// One refitted layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RefittedLayer {
    /// Name of its module.
    pub layer: String,
    /// Which weights share unknowns.
    pub system: FitForm,
    /// Unknowns per row.
    pub unknowns: usize,
    /// Rows of features that the fit saw: examples times positions; 0 without data.
    pub rows: usize,
    /// The ridge, relative to the mean of the diagonal.
    pub ridge: f64,
    /// Share of the targets' variance (second moment, in layers without a bias) that the fit misses, on held-out examples
    /// where there were enough to hold some out. Targets are the layer's outputs; for shared systems the channels that it reads.
    pub relative_residual: f64,
}

/// The form of a layer's fit: which of its weights are solved for one by one, and which share a solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FitForm {
    /// Every weight of a row by itself.
    Full,
    /// One matrix from kept to all channels, for all positions of the kernel.
    ChannelShared,
}
