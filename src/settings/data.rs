//! Data to train and to measure with.

use serde::{Deserialize, Serialize};

/// Data to train and to measure with.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetRequest {
    /// Name or id of the dataset; its train split is used.
    pub name: String,
    /// Applied to every input, after the division by 255 of integer pixels.
    pub normalize: Normalization,
    /// Part of the train split that is held out when `validation` is not given; in [0, 1).
    pub validation_fraction: f64,
    /// Another dataset to validate on.
    pub validation: Option<String>,
    /// Another dataset to test on; else the dataset's own test split.
    pub test: Option<String>,
}

/// Inputs of a network and what one member makes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Name or id of a safetensors file with the tensors `inputs` and `logits`.
    pub name: String,
    /// Position of the member whose logits they are.
    pub member: usize,
}

/// Where the normalisation of inputs comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Normalization {
    /// There is none.
    #[default]
    None,
    /// The client gives it.
    Given(Normalize),
    /// It is measured on what is trained on: the train split without the examples that are held out of it.
    Train,
}

impl Normalization {
    /// What the client gives.
    #[must_use]
    pub fn given(&self) -> Option<&Normalize> {
        match self {
            Self::Given(normalize) => Some(normalize),
            Self::None | Self::Train => None,
        }
    }
}

/// `(x - mean) / std`, one value per channel or one for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// Subtracted.
    pub mean: Vec<f32>,
    /// Divided by; never 0.
    pub std: Vec<f32>,
}
