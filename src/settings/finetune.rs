//! How a network is trained.

use serde::{Deserialize, Serialize};

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
    /// Which of the trained networks is published.
    pub publish: PublishRule,
    /// What was left to the network.
    pub undecided: Undecided,
}

/// Which network is published after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishRule {
    /// The best on examples that the members have not seen: the transplanted one, or the best member after as much training.
    #[default]
    Auto,
    /// The transplanted one.
    Fused,
}

/// Settings of a training that follow from the network where nobody gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Undecided {
    /// What is minimised.
    pub objective: bool,
    /// The learning rate of SGD.
    pub rate: bool,
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 10,
            objective: Objective::Distill { temperature: 2.0, soft_weight: 0.9, teacher: Teacher::Ensemble },
            label_smoothing: 0.0,
            optimizer: Optimizer::default(),
            schedule: Schedule::Cosine,
            warmup_epochs: 0.0,
            clip_norm: None,
            patience: None,
            batch_size: 256,
            augment: None,
            batch_norm_reestimate: false,
            publish: PublishRule::default(),
            undecided: Undecided::default(),
        }
    }
}

/// What was decided about the training of a fused network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecoveryRule {
    /// What is minimised: `cross_entropy` or `distill`.
    pub objective: String,
    /// Weight of what the ensemble says against the labels, in distillation.
    #[serde(default)]
    pub soft_weight: Option<f64>,
    /// The learning rate that the schedule begins with.
    pub lr: f64,
    /// Why, where the job left it open.
    pub rule: Option<String>,
}

impl std::fmt::Display for RecoveryRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "recovery by `{}`", self.objective)?;
        self.soft_weight.map_or(Ok(()), |weight| write!(f, " with a soft weight of {weight}"))?;
        write!(f, " at a learning rate of {}", self.lr)?;
        self.rule.as_ref().map_or(Ok(()), |rule| write!(f, ", since {rule}"))
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
    /// As they become the ensemble.
    #[default]
    Ensemble,
    /// `softmax(t/T)` of the mean t of the members' logits.
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

    /// The same with this learning rate.
    #[must_use]
    pub fn with_rate(mut self, rate: f32) -> Self {
        let (Self::Sgd { lr, .. } | Self::AdamW { lr, .. }) = &mut self;
        *lr = rate;
        self
    }

    /// The learning rate where the schedule stands at `factor`.
    #[must_use]
    pub fn rate(&self, factor: f64) -> f64 {
        let (Self::Sgd { lr, .. } | Self::AdamW { lr, .. }) = self;
        f64::from(*lr) * factor
    }
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
