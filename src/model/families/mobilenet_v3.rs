//! MobileNetV3, small and large, in torchvision's naming: `features.1.block.0.0`, … (Howard et al., ICCV 2019).

use crate::model::families::images::for_images;
use crate::model::families::inverted::{Parts, Style, block, conv_unit, variants};
use crate::model::families::named::{Net, Tensors};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "features.1.block.0.0.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// torchvision's `eps`.
const EPS: f64 = 1e-3;

/// What names and shapes do not tell of a block.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// Size of the depthwise kernels, by which a network is distinguished from others of its depth.
    kernel: usize,
    /// Hardswish, or else ReLU.
    hardswish: bool,
    stride: usize,
    residual: bool,
}

const fn setting(kernel: usize, hardswish: bool, stride: usize, residual: bool) -> Setting {
    Setting { kernel, hardswish, stride, residual }
}

/// The small network of the publication.
const SMALL: [Setting; 11] = [
    setting(3, false, 2, false),
    setting(3, false, 2, false),
    setting(3, false, 1, true),
    setting(5, true, 2, false),
    setting(5, true, 1, true),
    setting(5, true, 1, true),
    setting(5, true, 1, false),
    setting(5, true, 1, true),
    setting(5, true, 2, false),
    setting(5, true, 1, true),
    setting(5, true, 1, true),
];

/// The large one.
const LARGE: [Setting; 15] = [
    setting(3, false, 1, true),
    setting(3, false, 2, false),
    setting(3, false, 1, true),
    setting(5, false, 2, false),
    setting(5, false, 1, true),
    setting(5, false, 1, true),
    setting(3, true, 2, false),
    setting(3, true, 1, true),
    setting(3, true, 1, true),
    setting(3, true, 1, true),
    setting(3, true, 1, false),
    setting(3, true, 1, true),
    setting(5, true, 2, false),
    setting(5, true, 1, true),
    setting(5, true, 1, true),
];

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let (size, blocks) = settings(tensors)?;
    let published: Vec<usize> = blocks.iter().map(|block| block.stride).collect();
    let variants = variants(given.settings, published.len(), &published, [EPS, 1e-5]);
    for_images(given.input, channels, DEFAULT_SIZE, &variants, |shape, settings| {
        let style = |hardswish| style(hardswish, settings.eps.unwrap_or(EPS));
        let mut net = Net::new(tensors, shape);
        conv_unit(&mut net, ["features.0.0", "features.0.1"], settings.stem_stride.unwrap_or(2), &style(true))?;
        let strides = settings.strides.as_ref().unwrap_or(&published);
        for (index, (setting, &stride)) in blocks.iter().zip(strides).enumerate() {
            let name = format!("features.{}", index + 1);
            let parts = Parts::of_sequence(&net, &name)?;
            let [_, _, kernel, _] = tensors.kernels(&parts.depthwise[0])?;
            if kernel != setting.kernel {
                let expected = setting.kernel;
                let detail =
                    format!("block `{name}` of a {size} MobileNetV3: expected kernels of {expected}, got {kernel}");
                return Err(Unfit::Unknown(detail));
            }
            block(&mut net, &name, &parts, stride, setting.residual, &style(setting.hardswish))?;
        }
        let end = format!("features.{}", blocks.len() + 1);
        conv_unit(&mut net, [&format!("{end}.0"), &format!("{end}.1")], 1, &style(true))?;
        let pooled = net.summary(settings);
        net.linear("classifier.0", pooled)?;
        let hidden = net.then("classifier.0.activation", Op::Hardswish);
        net.linear("classifier.3", hidden)?;
        net.finish("mobilenet_v3", settings, assumptions(size))
    })
}

/// The published network of the checkpoint's depth.
fn settings(tensors: &Tensors<'_>) -> Result<(&'static str, &'static [Setting]), Unfit> {
    let places = tensors.places("features.");
    for (size, settings) in [("small", &SMALL[..]), ("large", &LARGE[..])] {
        if places.iter().copied().eq(0..settings.len() + 2) {
            return Ok((size, settings));
        }
    }
    let (small, large, got) = (SMALL.len(), LARGE.len(), places.len().saturating_sub(2));
    let detail = format!("the strides of a MobileNetV3 are known for {small} and {large} blocks, this one has {got}");
    Err(Unfit::Unknown(detail))
}

fn style(hardswish: bool, eps: f64) -> Style {
    let activation = if hardswish { Op::Hardswish } else { Op::Relu };
    Style { activation, gate: Op::Hardsigmoid, squeeze: Op::Relu, eps }
}

fn assumptions(size: &str) -> Vec<String> {
    vec![
        format!("sums and activations (ReLU, Hardswish) of the blocks as in the published {size} network"),
        "gates of ReLU and Hardsigmoid".to_owned(),
    ]
}
