//! ConvNeXt in torchvision's naming: `features.1.0.block.0`, `features.1.0.layer_scale`, … (Liu et al., CVPR 2022).
//! Depths and widths are those of the names and shapes.

use crate::model::families::images::for_images;
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{Variants, activations, epsilons};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;
use crate::settings::{Activation, Settings};

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "features.1.0.layer_scale";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// Of every LayerNorm.
const EPS: f64 = 1e-6;

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let functions = [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu];
    let variants = Variants::new(given.settings).with(activations(&functions)).with(epsilons(&[EPS, 1e-5]));
    for_images(given.input, channels, DEFAULT_SIZE, &variants, |shape, settings| {
        let eps = settings.eps.unwrap_or(EPS);
        let mut net = Net::new(tensors, shape);
        let input = net.last();
        let stem = net.patches("features.0.0", input)?;
        net.layer_norm("features.0.1", stem, eps)?;
        for place in tensors.places("features.").into_iter().skip(1) {
            let name = format!("features.{place}");
            if tensors.has(&format!("{name}.1")) {
                let last = net.last();
                let normed = net.layer_norm(&format!("{name}.0"), last, eps)?;
                net.patches(&format!("{name}.1"), normed)?;
            } else {
                for index in tensors.places(&format!("{name}.")) {
                    residual(&mut net, &format!("{name}.{index}"), settings)?;
                }
            }
        }
        let mean = net.then("mean", Op::GlobalAvgPool2d);
        net.layer_norm("classifier.0", mean, eps)?;
        let flat = net.then("flatten", Op::Flatten);
        net.linear("classifier.2", flat)?;
        net.finish("convnext", settings, assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "a stem and transitions whose convolutions cut the image into patches of their kernel's size".to_owned(),
        "the activation between the two matrices of a block, LayerNorm over the channels".to_owned(),
        "mean over all positions before the classifier".to_owned(),
    ]
}

/// A depthwise convolution, a LayerNorm and two matrices, with a scale per channel and a sum around all.
fn residual(net: &mut Net<'_>, name: &str, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    let width = net.channels(input);
    let mixed = net.depthwise(&format!("{name}.block.0"), input, 1)?;
    let normed = net.layer_norm(&format!("{name}.block.2"), mixed, settings.eps.unwrap_or(EPS))?;
    net.linear(&format!("{name}.block.3"), normed)?;
    let active = net.activation(&format!("{name}.block.4"), settings);
    let narrow = net.linear(&format!("{name}.block.5"), active)?;
    let scale = format!("{name}.layer_scale");
    net.take(&scale, &[width, 1, 1])?;
    let scaled = net.weighted(&scale, Op::LayerScale { features: width, unit_axes: 2 }, narrow, width);
    net.op(&format!("{name}.add"), Op::Add, &[scaled, input]);
    Ok(())
}
