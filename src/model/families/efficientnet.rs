//! EfficientNet B0 to B7 in torchvision's naming: `features.1.0.block.0.0`, … (Tan and Le, ICML 2019). They differ in
//! depths and widths, which names and shapes tell.

use crate::model::families::builder::EPS;
use crate::model::families::inverted::{Parts, Style, block, conv_unit};
use crate::model::families::named::{Net, Tensors, for_images};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;

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

/// The one network that fits.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let stages: Vec<usize> =
        (1..=STRIDES.len()).map(|stage| tensors.places(&format!("features.{stage}.")).len()).collect();
    let eps = if stages.iter().sum::<usize>() >= DEEP { DEEP_EPS } else { EPS };
    for_images(given.input, channels, DEFAULT_SIZE, |shape| {
        let style = Style { activation: Op::Silu, gate: Op::Sigmoid, squeeze: Op::Silu, eps };
        let mut net = Net::new(tensors, shape);
        conv_unit(&mut net, ["features.0.0", "features.0.1"], 2, &style)?;
        for (stage, stride) in STRIDES.iter().enumerate() {
            for index in 0..stages[stage] {
                let name = format!("features.{}.{index}", stage + 1);
                let parts = Parts::of_sequence(&net, &name)?;
                block(&mut net, &name, &parts, if index == 0 { *stride } else { 1 }, index > 0, &style)?;
            }
        }
        let end = format!("features.{}", STRIDES.len() + 1);
        conv_unit(&mut net, [&format!("{end}.0"), &format!("{end}.1")], 1, &style)?;
        let pooled = net.mean();
        net.linear("classifier.1", pooled)?;
        net.finish("efficientnet", assumptions(eps))
    })
}

fn assumptions(eps: f64) -> Vec<String> {
    vec![
        "strides 2, then 1, 2, 2, 2, 1, 2, 1 in the first blocks of the stages".to_owned(),
        "a sum around every block that is not the first of its stage".to_owned(),
        format!("SiLU after every BatchNorm but the last of a block, gates of SiLU and Sigmoid, eps {eps:e}"),
        "mean over all positions before the output".to_owned(),
    ]
}
