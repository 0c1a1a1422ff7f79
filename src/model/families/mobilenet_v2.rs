//! MobileNetV2 in torchvision's naming: `features.1.conv.0.0`, … (Sandler et al., CVPR 2018).

use crate::model::families::builder::EPS;
use crate::model::families::inverted::{Parts, Style, block, conv_unit};
use crate::model::families::named::{Net, Tensors, for_images};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "features.1.conv.0.0.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// Stages of the published network: number of blocks, stride of the first.
const STAGES: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)];

/// The one network that fits.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let blocks: usize = STAGES.iter().map(|(blocks, _)| blocks).sum();
    let places = tensors.places("features.");
    if !places.iter().copied().eq(0..blocks + 2) {
        let got = places.len().saturating_sub(2);
        let detail = format!("the strides of a MobileNetV2 are known for {blocks} blocks, this one has {got}");
        return Err(Unfit::Unknown(detail));
    }
    for_images(given.input, channels, DEFAULT_SIZE, |shape| {
        let style = Style { activation: Op::Relu6, gate: Op::Sigmoid, squeeze: Op::Relu, eps: EPS };
        let mut net = Net::new(tensors, shape);
        conv_unit(&mut net, ["features.0.0", "features.0.1"], 2, &style)?;
        let stages = STAGES.iter().flat_map(|&(blocks, stride)| (0..blocks).map(move |index| (index, stride)));
        for (place, (index, stride)) in stages.enumerate() {
            let name = format!("features.{}", place + 1);
            let parts = parts(tensors, &name);
            block(&mut net, &name, &parts, if index == 0 { stride } else { 1 }, index > 0, &style)?;
        }
        let end = format!("features.{}", blocks + 1);
        conv_unit(&mut net, [&format!("{end}.0"), &format!("{end}.1")], 1, &style)?;
        let pooled = net.mean();
        net.linear("classifier.1", pooled)?;
        net.finish("mobilenet_v2", assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "strides 2, then 1, 2, 2, 2, 1, 2, 1 in the first blocks of stages of 1, 2, 3, 4, 3, 3, 1 blocks".to_owned(),
        "a sum around every block that is not the first of its stage".to_owned(),
        "ReLU6 after every BatchNorm but the last of a block, eps 1e-5".to_owned(),
        "mean over all positions before the output".to_owned(),
    ]
}

/// With or without a convolution that widens: three convolutions or two.
fn parts(tensors: &Tensors<'_>, name: &str) -> Parts {
    let unit = |place: usize| [format!("{name}.conv.{place}.0"), format!("{name}.conv.{place}.1")];
    let last = |place: usize| [format!("{name}.conv.{place}"), format!("{name}.conv.{}", place + 1)];
    if tensors.has(&format!("{name}.conv.1.0")) {
        Parts { expand: Some(unit(0)), depthwise: unit(1), gate: None, project: last(2) }
    } else {
        Parts { expand: None, depthwise: unit(0), gate: None, project: last(1) }
    }
}
