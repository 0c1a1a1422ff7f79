//! Inverted residual blocks, which MobileNets and EfficientNets are made of: a 1x1 convolution that widens, a depthwise
//! one, a gate (squeeze and excitation), and a 1x1 convolution that narrows (Sandler et al., CVPR 2018; Howard et al.,
//! ICCV 2019).

use crate::model::families::Unfit;
use crate::model::families::named::Net;
use crate::model::families::variants::{Variants, epsilons, summaries};
use crate::model::graph::{NodeId, Op};
use crate::settings::Settings;

/// What names and shapes do not tell of a block.
#[derive(Debug, Clone)]
pub(super) struct Style {
    /// Behind the first and the depthwise convolution.
    pub(super) activation: Op,
    /// At the end of a gate.
    pub(super) gate: Op,
    /// Between the two convolutions of a gate.
    pub(super) squeeze: Op,
    /// Of every BatchNorm.
    pub(super) eps: f64,
}

/// Most stages of which every set of strides is tried.
const MOST_STAGES: usize = 8;

/// What is open of a network of such blocks in `stages` stages, of which the published one has `published` strides: for small
/// images people take the stride out of the stem, or out of the first places that have one. A network with another number of
/// stages may have a stride in each but the first.
pub(super) fn variants<'a>(given: &'a Settings, stages: usize, published: &[usize], eps: [f64; 2]) -> Variants<'a> {
    let stems = [2, 1].map(|stride| Settings { stem_stride: Some(stride), ..Settings::default() });
    let fewer = |count: usize| {
        let mut strides = published.to_vec();
        strides.iter_mut().filter(|stride| **stride > 1).take(count).for_each(|stride| *stride = 1);
        strides
    };
    let any = |chosen: usize| {
        (0..stages).map(|stage| if stage > 0 && (chosen >> (stage - 1)) & 1 == 1 { 2 } else { 1 }).collect()
    };
    let strides: Vec<Vec<usize>> = if stages == published.len() {
        (0..4).map(fewer).collect()
    } else {
        (0..1_usize << stages.min(MOST_STAGES).saturating_sub(1)).rev().map(any).collect()
    };
    let strides = strides.into_iter().map(|strides| Settings { strides: Some(strides), ..Settings::default() });
    Variants::new(given).with(stems).with(strides).with(summaries()).with(epsilons(&eps))
}

/// Names of a block's modules; those of its convolutions each with the BatchNorm behind it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) expand: Option<[String; 2]>,
    pub(super) depthwise: [String; 2],
    pub(super) gate: Option<String>,
    pub(super) project: [String; 2],
}

impl Parts {
    /// The parts of a block whose modules are `{name}.block.0`, … as in torchvision's MobileNetV3 and EfficientNet.
    pub(super) fn of_sequence(net: &Net<'_>, name: &str) -> Result<Self, Unfit> {
        let mut convs = Vec::new();
        let mut gate = None;
        for place in net.tensors.places(&format!("{name}.block.")) {
            let part = format!("{name}.block.{place}");
            if net.tensors.has(&format!("{part}.fc1")) {
                gate = Some(part);
            } else {
                convs.push([format!("{part}.0"), format!("{part}.1")]);
            }
        }
        let wrong = Unfit::Unknown(format!("block `{name}`: expected 2 or 3 convolutions, got {}", convs.len()));
        let (Some(project), Some(depthwise)) = (convs.pop(), convs.pop()) else { return Err(wrong) };
        let expand = convs.pop();
        if convs.is_empty() { Ok(Self { expand, depthwise, gate, project }) } else { Err(wrong) }
    }
}

/// Adds a convolution, its BatchNorm and an activation.
pub(super) fn conv_unit(
    net: &mut Net<'_>,
    [conv, norm]: [&str; 2],
    stride: usize,
    style: &Style,
) -> Result<NodeId, Unfit> {
    let input = net.last();
    let out = net.conv(conv, input, stride)?;
    net.batch_norm(norm, out, style.eps)?;
    Ok(net.then(&format!("{norm}.activation"), style.activation.clone()))
}

/// Adds a block behind the last node; `residual` adds its input to its output.
pub(super) fn block(
    net: &mut Net<'_>,
    name: &str,
    parts: &Parts,
    stride: usize,
    residual: bool,
    style: &Style,
) -> Result<(), Unfit> {
    let input = net.last();
    if let Some([conv, norm]) = &parts.expand {
        conv_unit(net, [conv, norm], 1, style)?;
    }
    let [conv, norm] = &parts.depthwise;
    let wide = net.last();
    let out = net.depthwise(conv, wide, stride)?;
    net.batch_norm(norm, out, style.eps)?;
    net.then(&format!("{norm}.activation"), style.activation.clone());
    if let Some(gate) = &parts.gate {
        squeeze_excite(net, gate, style)?;
    }
    let [conv, norm] = &parts.project;
    let wide = net.last();
    let narrow = net.conv(conv, wide, 1)?;
    let out = net.batch_norm(norm, narrow, style.eps)?;
    if residual {
        net.op(&format!("{name}.add"), Op::Add, &[input, out]);
    }
    Ok(())
}

/// Multiplies every channel by a factor that is computed from the means of all (Hu et al., CVPR 2018).
fn squeeze_excite(net: &mut Net<'_>, name: &str, style: &Style) -> Result<(), Unfit> {
    let input = net.last();
    let mean = net.then(&format!("{name}.mean"), Op::GlobalAvgPool2d);
    net.conv(&format!("{name}.fc1"), mean, 1)?;
    let squeezed = net.then(&format!("{name}.squeeze"), style.squeeze.clone());
    net.conv(&format!("{name}.fc2"), squeezed, 1)?;
    let factors = net.then(&format!("{name}.gate"), style.gate.clone());
    net.op(&format!("{name}.multiply"), Op::Multiply, &[input, factors]);
    Ok(())
}
