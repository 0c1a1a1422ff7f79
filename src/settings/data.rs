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
    /// Seed of the draw of that part.
    pub split_seed: u64,
    /// Another dataset to validate on.
    pub validation: Option<String>,
    /// Another dataset to test on; else the dataset's own test split.
    pub test: Option<String>,
}

/// The part of a train split that was held out of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// SHA-256 of the dataset's file, in hexadecimal.
    pub dataset: String,
    /// Part of the train split, in (0, 1).
    pub fraction: f64,
    /// Seed of the draw.
    pub split_seed: u64,
}

// Fractions come from JSON, which has no other numbers than finite ones.
impl Eq for HeldOut {}

impl HeldOut {
    /// What a training on the file of this digest holds out; none where that is nothing, or where another dataset validates.
    #[must_use]
    pub fn of(request: &DatasetRequest, dataset: &str) -> Option<Self> {
        let DatasetRequest { validation_fraction: fraction, split_seed, .. } = *request;
        let draws = request.validation.is_none() && fraction > 0.0;
        draws.then(|| Self { dataset: dataset.to_owned(), fraction, split_seed })
    }

    /// Whether the same examples of a file are drawn, whatever the file.
    #[must_use]
    pub fn is_drawn_alike(&self, other: &Self) -> bool {
        (self.fraction, self.split_seed) == (other.fraction, other.split_seed)
    }
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
