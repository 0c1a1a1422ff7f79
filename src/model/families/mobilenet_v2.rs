//! MobileNetV2 in torchvision's naming: `features.1.conv.0.0`, … (Sandler et al., CVPR 2018).

use crate::model::families::builder::{EPS, function};
use crate::model::families::images::for_images;
use crate::model::families::inverted::{Parts, Style, block, conv_unit, variants};
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{activations, check_stages};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::Op;
use crate::settings::Activation;

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "features.1.conv.0.0.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// Stages of the published network: number of blocks, stride of the first.
const STAGES: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)];

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.0.0")?;
    let blocks = tensors.places("features.").len().saturating_sub(2);
    let stages = stages(tensors, blocks)?;
    check_stages(stages.len())?;
    let functions =
        [Activation::Relu6, Activation::Relu, Activation::Silu, Activation::Hardswish, Activation::LeakyRelu(0.01)];
    let strides = STAGES.map(|(_, stride)| stride);
    let variants = variants(given.settings, stages.len(), &strides, [EPS, 1e-3]).with(activations(&functions));
    for_images(given.input, channels, DEFAULT_SIZE, &variants, |shape, settings| {
        let Some(activation) = function(settings.activation.unwrap_or(Activation::Relu6)) else {
            return Err(Unfit::Setting("activation", "expected a function".to_owned()));
        };
        let eps = settings.eps.unwrap_or(EPS);
        let style = Style { activation, gate: Op::Sigmoid, squeeze: Op::Relu, eps };
        let mut net = Net::new(tensors, shape);
        conv_unit(&mut net, ["features.0.0", "features.0.1"], settings.stem_stride.unwrap_or(2), &style)?;
        let strides = settings.strides.clone().unwrap_or(strides.to_vec());
        let each = stages.iter().zip(strides);
        let each = each.flat_map(|(&blocks, stride)| (0..blocks).map(move |index| (index, stride)));
        for (place, (index, stride)) in each.enumerate() {
            let name = format!("features.{}", place + 1);
            let parts = parts(tensors, &name);
            block(&mut net, &name, &parts, if index == 0 { stride } else { 1 }, index > 0, &style)?;
        }
        let end = format!("features.{}", blocks + 1);
        conv_unit(&mut net, [&format!("{end}.0"), &format!("{end}.1")], 1, &style)?;
        let pooled = net.summary(settings);
        net.linear("classifier.1", pooled)?;
        net.finish("mobilenet_v2", settings, assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "a stride in the first block of every stage".to_owned(),
        "a sum around every block that is not the first of its stage".to_owned(),
        "the activation after every BatchNorm but the last of a block".to_owned(),
    ]
}

/// Number of blocks of each stage: as published, or where there are others, a stage wherever the number of channels changes.
fn stages(tensors: &Tensors<'_>, blocks: usize) -> Result<Vec<usize>, Unfit> {
    let published = STAGES.map(|(blocks, _)| blocks);
    if published.iter().sum::<usize>() == blocks {
        return Ok(published.to_vec());
    }
    let mut stages: Vec<usize> = Vec::new();
    let mut before = 0;
    for place in 1..=blocks {
        let [channels, ..] = tensors.kernels(&parts(tensors, &format!("features.{place}")).project[0])?;
        match stages.last_mut() {
            Some(count) if channels == before => *count += 1,
            _ => stages.push(1),
        }
        before = channels;
    }
    Ok(stages)
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
