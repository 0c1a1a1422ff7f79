//! From modules of PyTorch, by class and settings, to operations.

use serde_json::Value;

use crate::model::graph::{Approximate, Op, Window};
use crate::model::header::{CheckpointHeader, ModuleInfo};

/// What a module does when it is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Nothing: dropout, `Identity`.
    Identity,
    /// Makes vectors of examples.
    Flatten,
    /// This; weights are named after the module.
    Op(Op),
}

/// On which examples an operation does the same here and in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    Any,
    /// Vectors alone; of images PyTorch's module reads another axis.
    Vectors,
    Images,
}

/// What a module of `header` does; none for modules that are not known, or have settings that are not.
pub(super) fn part(module: &ModuleInfo, header: &CheckpointHeader) -> Option<(Part, Reads)> {
    let class = module.class.strip_prefix("torch.nn.modules.")?;
    let settings = Known(module);
    let op = match class {
        "dropout.Dropout" | "dropout.Dropout1d" | "dropout.Dropout2d" | "dropout.AlphaDropout" | "linear.Identity" => {
            return Some((Part::Identity, Reads::Any));
        }
        "flatten.Flatten" => {
            let whole = settings.number("start_dim") == Some(1) && settings.value("end_dim")?.as_i64() == Some(-1);
            return whole.then_some((Part::Flatten, Reads::Any));
        }
        "linear.Linear" => (
            Op::Linear {
                in_features: settings.number("in_features")?,
                out_features: settings.number("out_features")?,
                bias: header.get(&format!("{}.bias", module.name)).is_some(),
            },
            Reads::Vectors,
        ),
        "conv.Conv2d" => (convolution(settings, module, header)?, Reads::Images),
        "batchnorm.BatchNorm1d" => (batch_norm(settings)?, Reads::Vectors),
        "batchnorm.BatchNorm2d" => (batch_norm(settings)?, Reads::Images),
        "normalization.LayerNorm" if settings.is("elementwise_affine") => {
            let [features] = settings.list("normalized_shape")?[..] else { return None };
            (Op::LayerNorm { features, eps: settings.real("eps")? }, Reads::Vectors)
        }
        "normalization.GroupNorm" if settings.is("affine") => {
            let (groups, features) = (settings.number("num_groups")?, settings.number("num_channels")?);
            let group_width = (groups != 1).then_some(features.checked_div(groups)?);
            (Op::GroupNorm { group_width, features, eps: settings.real("eps")? }, Reads::Any)
        }
        _ => plain(class, settings)?,
    };
    Some((Part::Op(op.0), op.1))
}

/// A module without weights.
fn plain(class: &str, settings: Known<'_>) -> Option<(Op, Reads)> {
    let pool = || settings.window("kernel_size");
    Some(match class {
        "activation.ReLU" => (Op::Relu, Reads::Any),
        "activation.ReLU6" => (Op::Relu6, Reads::Any),
        "activation.LeakyReLU" => (Op::LeakyRelu { negative_slope: settings.real("negative_slope")? }, Reads::Any),
        "activation.GELU" => {
            let approximate = match settings.value("approximate")?.as_str()? {
                "none" => Approximate::None,
                "tanh" => Approximate::Tanh,
                _ => return None,
            };
            (Op::Gelu { approximate }, Reads::Any)
        }
        "activation.SiLU" => (Op::Silu, Reads::Any),
        "activation.Hardswish" => (Op::Hardswish, Reads::Any),
        "activation.Hardsigmoid" => (Op::Hardsigmoid, Reads::Any),
        "activation.Sigmoid" => (Op::Sigmoid, Reads::Any),
        "activation.Tanh" => (Op::Tanh, Reads::Any),
        "activation.ELU" => (Op::Elu { alpha: settings.real("alpha")? }, Reads::Any),
        "activation.SELU" => (Op::Selu, Reads::Any),
        "activation.Mish" => (Op::Mish, Reads::Any),
        "activation.Softplus" if settings.real("beta") == Some(1.0) && settings.real("threshold") == Some(20.0) => {
            (Op::Softplus, Reads::Any)
        }
        "activation.Softmax" if matches!(settings.value("dim")?.as_i64(), Some(1 | -1)) => {
            (Op::Softmax, Reads::Vectors)
        }
        "pooling.MaxPool2d" if settings.is_not("return_indices") => {
            (Op::MaxPool2d { window: pool()?, ceil_mode: settings.is("ceil_mode") }, Reads::Images)
        }
        "pooling.AvgPool2d" if settings.value("divisor_override").is_none_or(Value::is_null) => {
            let count_include_pad = settings.is("count_include_pad");
            (Op::AvgPool2d { window: pool()?, ceil_mode: settings.is("ceil_mode"), count_include_pad }, Reads::Images)
        }
        "pooling.AdaptiveAvgPool2d" => match settings.pair("output_size")? {
            [1, 1] => (Op::GlobalAvgPool2d, Reads::Images),
            output => (Op::AdaptiveAvgPool2d { output }, Reads::Images),
        },
        "pooling.AdaptiveMaxPool2d" if settings.is_not("return_indices") => {
            (Op::AdaptiveMaxPool2d { output: settings.pair("output_size")? }, Reads::Images)
        }
        _ => return None,
    })
}

fn convolution(settings: Known<'_>, module: &ModuleInfo, header: &CheckpointHeader) -> Option<Op> {
    if settings.value("padding_mode")?.as_str() != Some("zeros") {
        return None;
    }
    let (in_channels, groups) = (settings.number("in_channels")?, settings.number("groups")?);
    Some(Op::Conv2d {
        in_channels,
        out_channels: settings.number("out_channels")?,
        group_width: (groups != 1).then_some(in_channels.checked_div(groups)?),
        window: settings.window("kernel_size")?,
        bias: header.get(&format!("{}.bias", module.name)).is_some(),
    })
}

fn batch_norm(settings: Known<'_>) -> Option<Op> {
    if !settings.is("track_running_stats") {
        return None;
    }
    let (features, eps) = (settings.number("num_features")?, settings.real("eps")?);
    Some(Op::BatchNorm { affine: settings.is("affine"), features, eps })
}

/// The settings of a module.
#[derive(Debug, Clone, Copy)]
struct Known<'a>(&'a ModuleInfo);

impl<'a> Known<'a> {
    fn value(self, name: &str) -> Option<&'a Value> {
        self.0.settings.get(name)
    }

    fn is(self, name: &str) -> bool {
        self.value(name) == Some(&Value::Bool(true))
    }

    fn is_not(self, name: &str) -> bool {
        self.value(name) == Some(&Value::Bool(false))
    }

    fn real(self, name: &str) -> Option<f64> {
        self.value(name)?.as_f64()
    }

    fn number(self, name: &str) -> Option<usize> {
        usize::try_from(self.value(name)?.as_u64()?).ok()
    }

    fn list(self, name: &str) -> Option<Vec<usize>> {
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.value(name)?.as_array()?.iter().map(number).collect()
    }

    /// Two numbers, or one that stands for both.
    fn pair(self, name: &str) -> Option<[usize; 2]> {
        match self.number(name) {
            Some(both) => Some([both; 2]),
            None => self.list(name)?.try_into().ok(),
        }
    }

    /// A window whose size is the setting `kernel`; a mean has no dilation.
    fn window(self, kernel: &str) -> Option<Window> {
        let (kernel, stride) = (self.pair(kernel)?, self.pair("stride")?);
        let dilation = if self.value("dilation").is_some() { self.pair("dilation")? } else { [1; 2] };
        let padding = match self.value("padding")?.as_str() {
            None => self.pair("padding")?,
            Some("valid") => [0; 2],
            Some("same") => [self::same(kernel[0], dilation[0])?, self::same(kernel[1], dilation[1])?],
            Some(_) => return None,
        };
        Some(Window { kernel, stride, padding, dilation })
    }
}

/// Padding on each side that keeps the size; none where the two sides would differ.
fn same(kernel: usize, dilation: usize) -> Option<usize> {
    let around = kernel.checked_sub(1)?.checked_mul(dilation)?;
    around.is_multiple_of(2).then_some(around / 2)
}
