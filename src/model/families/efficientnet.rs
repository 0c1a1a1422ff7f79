//! EfficientNet B0 to B7 in torchvision's naming: `features.1.0.block.0.0`, … (Tan and Le, ICML 2019). They differ in
//! depths and widths, which names and shapes tell.

use crate::model::families::builder::{EPS, function};
use crate::model::families::images::for_images;
use crate::model::families::inverted::{Parts, Style, block, conv_unit, variants};
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{activations, check_stages};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;
use crate::settings::Activation;

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "features.1.0.block.0.0.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// Strides of the first blocks of the stages.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// Number of blocks from which on torchvision's networks (B5 to B7) have another `eps`.
const DEEP: usize = 39;

/// That `eps`.
const DEEP_EPS: f64 = 1e-3;

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let count = tensors.places("features.").len().saturating_sub(2);
    check_stages(count)?;
    let stages: Vec<usize> = (1..=count).map(|stage| tensors.places(&format!("features.{stage}.")).len()).collect();
    let eps = if stages.iter().sum::<usize>() >= DEEP { [DEEP_EPS, EPS] } else { [EPS, DEEP_EPS] };
    let functions = [Activation::Silu, Activation::Relu, Activation::Relu6, Activation::Hardswish, Activation::Gelu];
    let variants = variants(given.settings, count, &STRIDES, eps).with(activations(&functions));
    for_images(given.input, channels, DEFAULT_SIZE, &variants, |shape, settings| {
        let Some(activation) = function(settings.activation.unwrap_or(Activation::Silu)) else {
            return Err(Unfit::Setting("activation", "expected a function".to_owned()));
        };
        let eps = settings.eps.unwrap_or(eps[0]);
        let style = Style { squeeze: activation.clone(), activation, gate: Op::Sigmoid, eps };
        let mut net = Net::new(tensors, shape);
        conv_unit(&mut net, ["features.0.0", "features.0.1"], settings.stem_stride.unwrap_or(2), &style)?;
        let strides = settings.strides.clone().unwrap_or(STRIDES.to_vec());
        for (stage, stride) in strides.iter().enumerate().take(stages.len()) {
            for index in 0..stages[stage] {
                let name = format!("features.{}.{index}", stage + 1);
                let parts = Parts::of_sequence(&net, &name)?;
                block(&mut net, &name, &parts, if index == 0 { *stride } else { 1 }, index > 0, &style)?;
            }
        }
        let end = format!("features.{}", count + 1);
        conv_unit(&mut net, [&format!("{end}.0"), &format!("{end}.1")], 1, &style)?;
        let pooled = net.summary(settings);
        net.linear("classifier.1", pooled)?;
        net.finish("efficientnet", settings, assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "a stride in the first block of every stage; a sum around every other block".to_owned(),
        "the activation after every BatchNorm but the last of a block; gates of it and Sigmoid".to_owned(),
    ]
}
