//! Which network the members are: what the client says of it, and what names and shapes never show.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which network the members are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Architecture {
    /// The network, or where it comes from.
    pub network: NetworkChoice,
    /// What is known of it beyond names and shapes; what is `None` is open.
    pub settings: Settings,
    /// Take the most usual network where several fit and nothing decides.
    pub assume: bool,
    /// Tensors that belong to no network: names, or beginnings of names that end in `*`.
    pub ignore: Vec<String>,
}

/// The network, or where it comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum NetworkChoice {
    /// Recognised from names and shapes.
    #[default]
    Auto,
    /// One of `/v1/architectures`.
    Family(String),
    /// Spelled out, in the JSON form of [`crate::model::graph::Graph`].
    Graph(serde_json::Value),
}

impl Architecture {
    /// The network of a family.
    #[must_use]
    pub fn family(name: &str) -> Self {
        Self { network: NetworkChoice::Family(name.to_owned()), ..Self::default() }
    }

    /// A network that is spelled out.
    #[must_use]
    pub fn graph(form: serde_json::Value) -> Self {
        Self { network: NetworkChoice::Graph(form), ..Self::default() }
    }

    /// Whether `name` is a tensor that belongs to no network.
    #[must_use]
    pub fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    }
}

/// What a `state_dict` does not say of a network. `None` where a network has no such setting, or where it is open.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The function between layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "relu")]
    pub activation: Option<Activation>,
    /// Where normalisations stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_place: Option<NormPlace>,
    /// What makes images smaller between layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// Names of the layers behind which (or in which) images become smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_after: Option<Vec<String>>,
    /// How convolutions are padded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Stride of the first convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem_stride: Option<usize>,
    /// Whether a pool follows the first convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem_pool: Option<bool>,
    /// Whether a blur pool stands where there is a stride else (timm's `resnetblur`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur_pool: Option<bool>,
    /// Stride of each stage, in its first block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<usize>>,
    /// Which convolution of a bottleneck has the stride.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strided: Option<Strided>,
    /// Dilation of each stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dilation: Option<Vec<usize>>,
    /// Heads of every attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// What becomes of all positions before the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The layers in order of computation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<String>>,
    /// The function behind the last layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "relu")]
    pub output: Option<Activation>,
    /// Added to the variance in every normalisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
}

impl Settings {
    /// The names of all settings.
    pub const NAMES: [&'static str; 16] = [
        "activation",
        "norm_place",
        "pool",
        "pool_after",
        "padding",
        "stem_stride",
        "stem_pool",
        "blur_pool",
        "strides",
        "strided",
        "dilation",
        "heads",
        "summary",
        "order",
        "output",
        "eps",
    ];

    /// Every setting that has a value, by its name in requests.
    #[must_use]
    pub fn entries(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(entries)) => entries,
            _ => serde_json::Map::new(),
        }
    }

    /// These, each with the value that is `given` for it, if any.
    #[must_use]
    pub fn overridden(self, given: &Self) -> Self {
        fn one<T: Clone>(own: Option<T>, given: Option<&T>) -> Option<T> {
            own.map(|own| given.cloned().unwrap_or(own))
        }
        Self {
            activation: one(self.activation, given.activation.as_ref()),
            norm_place: one(self.norm_place, given.norm_place.as_ref()),
            pool: one(self.pool, given.pool.as_ref()),
            pool_after: one(self.pool_after, given.pool_after.as_ref()),
            padding: one(self.padding, given.padding.as_ref()),
            stem_stride: one(self.stem_stride, given.stem_stride.as_ref()),
            stem_pool: one(self.stem_pool, given.stem_pool.as_ref()),
            blur_pool: one(self.blur_pool, given.blur_pool.as_ref()),
            strides: one(self.strides, given.strides.as_ref()),
            strided: one(self.strided, given.strided.as_ref()),
            dilation: one(self.dilation, given.dilation.as_ref()),
            heads: one(self.heads, given.heads.as_ref()),
            summary: one(self.summary, given.summary.as_ref()),
            order: one(self.order, given.order.as_ref()),
            output: one(self.output, given.output.as_ref()),
            eps: one(self.eps, given.eps.as_ref()),
        }
    }

    /// These, and where they are open those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            activation: self.activation.or(other.activation),
            norm_place: self.norm_place.or(other.norm_place),
            pool: self.pool.or(other.pool),
            pool_after: self.pool_after.or(other.pool_after),
            padding: self.padding.or(other.padding),
            stem_stride: self.stem_stride.or(other.stem_stride),
            stem_pool: self.stem_pool.or(other.stem_pool),
            blur_pool: self.blur_pool.or(other.blur_pool),
            strides: self.strides.or(other.strides),
            strided: self.strided.or(other.strided),
            dilation: self.dilation.or(other.dilation),
            heads: self.heads.or(other.heads),
            summary: self.summary.or(other.summary),
            order: self.order.or(other.order),
            output: self.output.or(other.output),
            eps: self.eps.or(other.eps),
        }
    }
}

/// The value of a setting in words.
#[must_use]
pub fn shown(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.entries().iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {}", shown(value))?;
        }
        Ok(())
    }
}

/// The function between layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x` where positive, else this factor times `x`.
    LeakyRelu(f64),
    /// `x Φ(x)`.
    Gelu,
    /// GELU with Φ by the hyperbolic tangent.
    GeluTanh,
    /// `x sigmoid(x)`.
    Silu,
    /// `x relu6(x + 3) / 6`.
    Hardswish,
    /// `x` where positive, else `exp(x) - 1`.
    Elu,
    /// ELU with fixed factors.
    Selu,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// There is none.
    None,
}

/// PyTorch's default slope of a leaky ReLU.
const SLOPE: f64 = 0.01;

/// Those without a parameter, by their names.
const ACTIVATIONS: [(&str, Activation); 13] = [
    ("relu", Activation::Relu),
    ("relu6", Activation::Relu6),
    ("gelu", Activation::Gelu),
    ("gelu_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
    ("hardswish", Activation::Hardswish),
    ("elu", Activation::Elu),
    ("selu", Activation::Selu),
    ("mish", Activation::Mish),
    ("softplus", Activation::Softplus),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("none", Activation::None),
];

impl Activation {
    /// Its name without a parameter, for the names of nodes.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LeakyRelu(_) => "leaky_relu",
            other => ACTIVATIONS.iter().find(|(_, activation)| *activation == other).map_or("none", |(name, _)| *name),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeakyRelu(slope) if *slope == SLOPE => f.write_str("leaky_relu"),
            Self::LeakyRelu(slope) => write!(f, "leaky_relu({slope})"),
            other => f.write_str(other.word()),
        }
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, activation)) = ACTIVATIONS.iter().find(|(name, _)| *name == text) {
            return Ok(*activation);
        }
        let slope = match text.strip_prefix("leaky_relu") {
            Some("") => Some(SLOPE),
            Some(rest) => rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')?.parse().ok()),
            None => None,
        };
        match slope {
            Some(slope) if (0.0..1.0).contains(&slope) => Ok(Self::LeakyRelu(slope)),
            _ => {
                let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
                Err(format!("expected one of {}, leaky_relu, leaky_relu(0.2), got `{text}`", names.join(", ")))
            }
        }
    }
}

impl From<Activation> for String {
    fn from(activation: Activation) -> Self {
        activation.to_string()
    }
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Where normalisations stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// Between a layer and its activation.
    BeforeActivation,
    /// Behind the activation.
    AfterActivation,
}

/// What makes images smaller between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// Maximum over windows, behind the activation.
    Max,
    /// Mean over windows, behind the activation.
    Mean,
    /// Maximum over windows, before the activation.
    MaxBeforeActivation,
    /// Mean over windows, before the activation.
    MeanBeforeActivation,
    /// Maximum over overlapping windows (3 x 3, stride 2), behind the activation.
    OverlappingMax,
    /// The same with a border that is padded.
    PaddedMax,
    /// Mean over overlapping windows (3 x 3, stride 2), behind the activation.
    OverlappingMean,
    /// Convolutions of stride 2, without pools.
    Stride,
}

/// How convolutions are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// By half the kernel.
    Same,
    /// Not at all.
    None,
    /// Only the first, by half its kernel.
    FirstSame,
    /// The first by 2, the others by half their kernel.
    #[serde(rename = "alexnet")]
    AlexNet,
}

/// Which convolution of a bottleneck has the stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Strided {
    /// The one in the middle (torchvision, "v1.5").
    #[serde(rename = "3x3")]
    Middle,
    /// The first one (He et al., Caffe).
    #[serde(rename = "1x1")]
    First,
}

/// What becomes of all positions before the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}
