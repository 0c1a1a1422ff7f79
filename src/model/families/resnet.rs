//! Residual networks by their usual names: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.shortcut.0` or
//! `layer2.0.downsample.0`, and `linear` or `fc` (He et al., CVPR 2016). Wide ones (`wide_resnet50_2`) and those with
//! grouped convolutions (`ResNeXt`) differ in their shapes alone.

use crate::model::families::builder::EPS;
use crate::model::families::named::{Net, Tensors, for_images};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op, Window};

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "layer1.0.conv1.weight";

/// Height and width that stand for all where the input is not known: after a small or a large stem.
const DEFAULT_SIZES: (usize, usize) = (32, 224);

/// Size of a stem's kernels from which on it is one for large images.
const LARGE_STEM: usize = 7;

/// The one network that fits.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, kernel, _] = tensors.kernels("conv1")?;
    if tensors.has("layer1.0.bn1") && !tensors.has("bn1") {
        let detail = "a residual network whose stem has no BatchNorm has its blocks' BatchNorms before the convolutions, \
                      which is not known under these names";
        return Err(Unfit::Unknown(detail.to_owned()));
    }
    let large = kernel >= LARGE_STEM;
    let size = if large { DEFAULT_SIZES.1 } else { DEFAULT_SIZES.0 };
    for_images(given.input, channels, size, |shape| {
        let mut net = Net::new(tensors, shape);
        stem(&mut net, large)?;
        for stage in tensors.places("layer") {
            for block in tensors.places(&format!("layer{stage}.")) {
                residual(&mut net, &format!("layer{stage}.{block}"), if stage > 1 && block == 0 { 2 } else { 1 })?;
            }
        }
        let pooled = net.mean();
        net.linear(&tensors.first_of(&["linear", "fc"])?, pooled)?;
        net.finish("resnet", assumptions(large))
    })
}

fn assumptions(large: bool) -> Vec<String> {
    let stem = if large { "a stem of stride 2 with a 3x3 maximum pool" } else { "a stem of stride 1 without a pool" };
    vec![
        stem.to_owned(),
        "stride 2 in the first block of every stage but the first (in its 3x3 convolution)".to_owned(),
        "ReLU after every BatchNorm and sum, eps 1e-5, mean over all positions before the output".to_owned(),
    ]
}

fn stem(net: &mut Net<'_>, large: bool) -> Result<(), Unfit> {
    let input = net.last();
    conv_and_norm(net, ["conv1", "bn1"], input, if large { 2 } else { 1 })?;
    net.then("relu", Op::Relu);
    if large {
        net.then("maxpool", Op::max_pool2d(Window::square(3, 2, 1)));
    }
    Ok(())
}

/// Adds a convolution and, where there is one, its normalisation.
fn conv_and_norm(net: &mut Net<'_>, names: [&str; 2], input: NodeId, stride: usize) -> Result<NodeId, Unfit> {
    let out = net.conv(names[0], input, stride)?;
    if net.tensors.has(names[1]) { net.batch_norm(names[1], out, EPS) } else { Ok(out) }
}

/// Two or three convolutions and a shortcut around them.
fn residual(net: &mut Net<'_>, name: &str, stride: usize) -> Result<(), Unfit> {
    let input = net.last();
    let count = if net.tensors.has(&format!("{name}.conv3")) { 3 } else { 2 };
    let strided = count - 1;
    let mut main = input;
    for index in 1..=count {
        let stride = if index == strided { stride } else { 1 };
        main = conv_and_norm(net, [&format!("{name}.conv{index}"), &format!("{name}.bn{index}")], main, stride)?;
        if index < count {
            main = net.op(&format!("{name}.relu{index}"), Op::Relu, &[main]);
        }
    }
    let projection = ["shortcut", "downsample"].into_iter().find(|kind| net.tensors.has(&format!("{name}.{kind}.0")));
    let shortcut = match projection {
        Some(kind) => conv_and_norm(net, [&format!("{name}.{kind}.0"), &format!("{name}.{kind}.1")], input, stride)?,
        None => input,
    };
    net.op(&format!("{name}.add"), Op::Add, &[main, shortcut]);
    net.then(&format!("{name}.relu"), Op::Relu);
    Ok(())
}
