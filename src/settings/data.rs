//! Data to train and to measure with.

use serde::{Deserialize, Serialize};

use crate::settings::PredictionTask;

/// Part of the train split that is held out where nothing else is said.
const DRAWN: f64 = 0.1;

/// Data to train and to measure with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatasetRequest {
    /// Name or id of the dataset; its train split is used.
    pub name: String,
    /// Applied to every input, after the division by 255 of integer pixels.
    pub normalize: Normalization,
    /// Part of the train split that is held out; in [0, 1). Where it is not given, nothing is if there is another split to validate
    /// on, and a tenth else.
    pub validation_fraction: Option<f64>,
    /// Seed of the draw of that part.
    pub split_seed: u64,
    /// Another dataset to validate on.
    pub validation: Option<String>,
    /// Another dataset to test on; else the dataset's own test split.
    pub test: Option<String>,
    /// Names of the classes in the order of the network's outputs, where labels are names; else the order of the alphabet.
    pub classes: Option<Vec<String>>,
    /// What the labels are to be learned as; none where they and the network's outputs say it.
    pub task: Option<PredictionTask>,
}

/// What networks are chosen by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValidationSource {
    /// Nothing.
    None,
    /// The dataset that the request names.
    Named,
    /// The dataset's own validation split.
    Own,
    /// A part of the train split, in (0, 1).
    Drawn(f64),
}

/// What a dataset itself brings to choose networks by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnValidation {
    /// Nothing but a train split, of which a part can be drawn.
    #[default]
    None,
    /// A validation split.
    Split,
    /// Nothing at all: it has no labels.
    Unlabelled,
}

impl DatasetRequest {
    /// What networks are chosen by, given what the dataset brings for that.
    #[must_use]
    pub fn validates_on(&self, own: OwnValidation) -> ValidationSource {
        match (&self.validation, self.validation_fraction) {
            (Some(_), _) => ValidationSource::Named,
            (None, _) if own == OwnValidation::Unlabelled => ValidationSource::None,
            (None, None) if own == OwnValidation::Split => ValidationSource::Own,
            (None, fraction) => match fraction.unwrap_or(DRAWN) {
                fraction if fraction > 0.0 => ValidationSource::Drawn(fraction),
                _ => ValidationSource::None,
            },
        }
    }
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
    /// What a training on the file of this digest, which brings `own`, holds out of the train split; none where that is nothing.
    #[must_use]
    pub fn of(request: &DatasetRequest, dataset: &str, own: OwnValidation) -> Option<Self> {
        let ValidationSource::Drawn(fraction) = request.validates_on(own) else { return None };
        Some(Self { dataset: dataset.to_owned(), fraction, split_seed: request.split_seed })
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Normalize {
    /// Subtracted.
    pub mean: Vec<f32>,
    /// Divided by; never 0.
    pub std: Vec<f32>,
}
