//! How calibration data is drawn and used.

use serde::{Deserialize, Serialize};

/// How calibration data is drawn and used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Calibration {
    /// Examples of the train split; by default 80 for each unknown of the widest layer (rankings: 10 for each unit of the
    /// widest group), from 1,000 to 32,768, as far as cost and memory allow; 400 for neuron interpolation.
    pub samples: Option<usize>,
    /// Positions of each image that a convolution's fit reads.
    pub positions: usize,
    /// What the unknowns of a convolution's fit are.
    pub convolutions: Convolutions,
    /// The ridge of the fits, relative to the mean of the diagonal; by default the best on held-out examples, and 1e-4 for
    /// neuron interpolation.
    pub ridge: Option<f64>,
    /// What the output layer is refitted to.
    #[serde(default)]
    pub output_layer: OutputTargets,
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            samples: None,
            positions: 16,
            convolutions: Convolutions::default(),
            ridge: None,
            output_layer: OutputTargets::default(),
        }
    }
}

/// What the unknowns of a convolution's fit are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Convolutions {
    /// One matrix between channels, for all positions of the kernel.
    #[default]
    Shared,
    /// Every weight by itself, where a row has at most 4,096.
    Full,
}

/// What the output layer is refitted to, where it is one linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputTargets {
    /// The ensemble's probabilities, by cross-entropy.
    #[default]
    Probabilities,
    /// The concatenated network's logits, by least squares, as every other layer.
    Logits,
}
