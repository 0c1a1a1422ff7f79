//! What a client asks for (`POST /v1/jobs`, `engraft fuse --job`), as types.
//!
//! [`JobRequest`] holds what the body said with the defaults that need no knowledge of the files filled in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::method::{
    Alignment, BatchNorm, Calibration, Compensate, Convolutions, GroundCost, Importance, MemberWeights, Method,
    MethodName, Order, Outputs, Start, WeightRule,
};
pub use crate::model::families::Architecture;
use crate::model::graph::Shape;
pub use crate::model::target::{Allocation, Budget, LayerSize, Resource, Size, Target};

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

/// Where the normalisation of inputs comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Normalization {
    /// There is none.
    #[default]
    None,
    /// The client tells it.
    Given(Normalize),
    /// It is measured on what is trained on: the train split without the examples that are held out of it.
    Train,
}

impl Normalization {
    /// What the client tells.
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

/// How the fused network is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Finetune {
    /// Passes over the train split; at least 1.
    pub epochs: usize,
    /// What is minimised.
    pub objective: Objective,
    /// Share of the labels' weight that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Epochs in which the learning rate rises from 0 to where the schedule begins; need not be whole.
    pub warmup_epochs: f32,
    /// Largest norm of the gradient of all weights together; a longer one is scaled down to it.
    pub clip_norm: Option<f32>,
    /// Epochs without a better one after which training ends.
    pub patience: Option<usize>,
    /// Examples per step; the last partial batch of an epoch is dropped.
    pub batch_size: usize,
    /// How images are varied from epoch to epoch; `None` for not at all.
    pub augment: Option<Augment>,
    /// Whether BatchNorm's running statistics of the best epoch are measured anew: the mean over whole batches of the train
    /// split as it is, without variation. An epoch 0 that nothing beat stays as it is.
    pub batch_norm_reestimate: bool,
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 10,
            objective: Objective::Distill { temperature: 2.0, soft_weight: 0.9, teacher: Teacher::MeanLogits },
            label_smoothing: 0.0,
            optimizer: Optimizer::default(),
            schedule: Schedule::Cosine,
            warmup_epochs: 0.0,
            clip_norm: None,
            patience: None,
            batch_size: 256,
            augment: None,
            batch_norm_reestimate: false,
        }
    }
}

/// Random variation of images: torchvision's `RandomCrop(size, padding)` and, behind it, `RandomHorizontalFlip()`, both on
/// the images as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augment {
    /// Black pixels on each side of an image, out of which a piece of its size is cut.
    pub crop_padding: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
}

impl Augment {
    /// Why examples of this shape cannot be varied.
    #[must_use]
    pub fn misfit(self, example_shape: &[usize]) -> Option<String> {
        let &[_, height, width] = example_shape else {
            return Some("the examples are vectors, expected images (N x H x W or N x C x H x W)".to_owned());
        };
        let padding = self.crop_padding;
        (padding >= height.min(width)).then(|| {
            format!("`crop_padding` is {padding}, expected less than the images' height and width, {height} x {width}")
        })
    }
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// `w T² CE(teacher at T, softmax(s/T)) + (1-w) CE(labels)`.
    Distill {
        /// T, above 0.
        temperature: f32,
        /// w, in [0, 1].
        soft_weight: f32,
        /// Whose probabilities the network learns.
        teacher: Teacher,
    },
    /// Cross-entropy with the labels.
    CrossEntropy,
}

/// How the members become one teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Teacher {
    /// `softmax(t/T)` of the mean t of the members' logits.
    #[default]
    MeanLogits,
    /// The mean of the members' `softmax(t/T)`.
    MeanProbabilities,
}

/// The optimizer with its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent, as in PyTorch.
    Sgd {
        /// Learning rate at the start of the schedule.
        lr: f32,
        /// Momentum, in [0, 1).
        momentum: f32,
        /// Nesterov's variant.
        nesterov: bool,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
        /// Whether the penalty is on biases and the factors of norms too.
        decay_norms_and_biases: bool,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), as in PyTorch.
    AdamW {
        /// Learning rate at the start of the schedule.
        lr: f32,
        /// Shares that the running means of gradients and of their squares keep, each in [0, 1).
        betas: [f32; 2],
        /// Added to the root of the mean square.
        eps: f32,
        /// Share of a weight that is taken off per step at learning rate 1.
        weight_decay: f32,
        /// Whether biases and the factors of norms decay too.
        decay_norms_and_biases: bool,
    },
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Sgd { lr: 0.01, momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_norms_and_biases: true }
    }
}

impl Optimizer {
    /// PyTorch's defaults of `AdamW`.
    pub const ADAMW: Self =
        Self::AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decay_norms_and_biases: true };
}

/// The learning rate over time, as a factor of `lr`, advanced every step.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// From 1 to 0 along half a cosine.
    Cosine,
    /// Always 1.
    Constant,
    /// From 1 to 0 in a straight line.
    Linear,
    /// Multiplied by `gamma` at each of these epochs.
    Multistep {
        /// Epochs, ascending.
        milestones: Vec<usize>,
        /// The factor.
        gamma: f32,
    },
}

/// Networks that the report compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Candidate {
    /// Each member.
    Members,
    /// The member with the highest validation accuracy.
    BestMember,
    /// The mean of the members' logits.
    Ensemble,
    /// The class that most members name.
    Vote,
    /// The plain mean of the members' weights.
    Average,
    /// The mean after each member was carried over to the first, BatchNorm measured anew.
    OptimalTransport,
    /// The mean after the members' units were matched, BatchNorm measured anew.
    PermutationAlignment,
    /// The first member, trained as the fused network is.
    Distilled,
    /// The fused network, before and after recovery.
    Fused,
}

/// Where a job computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// Wherever a worker has room.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected `auto`, `cpu` or `cuda:N`, got `{text}`")),
        }
    }
}

/// A whole job, as asked for. Its JSON form is the body of `POST /v1/jobs` with every default written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "serde_json::Value", try_from = "serde_json::Value")]
pub struct JobRequest {
    /// Names or ids of the checkpoints; at least one.
    pub members: Vec<String>,
    /// Which network the members are.
    pub architecture: Architecture,
    /// Shape of one example, where neither dataset nor checkpoint tell.
    pub input_shape: Option<Shape>,
    /// How the members become one network.
    pub method: Method,
    /// How large the fused network becomes.
    pub target: Target,
    /// Data; without it nothing is trained and nothing measured.
    pub dataset: Option<DatasetRequest>,
    /// Training; `None` for none.
    pub finetune: Option<Finetune>,
    /// What the report compares.
    pub evaluate: Vec<Candidate>,
    /// Where to compute.
    pub device: Device,
    /// Seed of every random choice.
    pub seed: u64,
    /// Seconds of running after which the job fails.
    pub max_runtime_s: u64,
    /// The client's own marks, for filtering.
    pub labels: BTreeMap<String, String>,
}
