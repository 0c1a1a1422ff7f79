//! Residual networks by their usual names: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.shortcut.0` or
//! `layer2.0.downsample.0`, and `linear` or `fc` (He et al., CVPR 2016). Wide ones (`wide_resnet50_2`) and those with
//! grouped convolutions (`ResNeXt`) differ in their shapes alone.

use crate::model::families::builder::EPS;
use crate::model::families::images::for_images;
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{Variants, activations, check_stages, epsilons, summaries};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op, Window};
use crate::settings::{Activation, Settings, Strided};

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "layer1.0.conv1.weight";

/// Height and width that stand for all where the input is not known: after a small or a large stem.
const DEFAULT_SIZES: (usize, usize) = (32, 224);

/// What stands behind the activation of a convolution that would have stride 2.
const BLUR: Op = Op::BlurPool2d { kernel: 3, stride: 2 };

/// Size of a stem's kernels from which on it is one for large images.
const LARGE_STEM: usize = 7;

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, kernel, _] = tensors.kernels("conv1")?;
    if tensors.has("layer1.0.bn1") && !tensors.has("bn1") {
        let detail = "a residual network whose stem has no BatchNorm has its blocks' BatchNorms before the convolutions, \
                      which is not known under these names";
        return Err(Unfit::Unknown(detail.to_owned()));
    }
    check_stages(tensors.places("layer").len())?;
    let large = kernel >= LARGE_STEM;
    let size = if large { DEFAULT_SIZES.1 } else { DEFAULT_SIZES.0 };
    for_images(given.input, channels, size, &variants(tensors, given.settings, large), |shape, settings| {
        let mut net = Net::new(tensors, shape);
        stem(&mut net, settings)?;
        for (index, stage) in tensors.places("layer").into_iter().enumerate() {
            let at = |list: &Option<Vec<usize>>| list.as_ref().and_then(|list| list.get(index)).copied().unwrap_or(1);
            let (stride, dilation) = (at(&settings.strides), at(&settings.dilation));
            // torchvision's way to put dilation in the place of stride: the first block keeps that of the stage before.
            let before =
                settings.dilation.as_ref().and_then(|list| list.get(index.checked_sub(1)?)).copied().unwrap_or(1);
            for block in tensors.places(&format!("layer{stage}.")) {
                let first = block == 0;
                let place =
                    Place { stride: if first { stride } else { 1 }, dilation: if first { before } else { dilation } };
                residual(&mut net, &format!("layer{stage}.{block}"), place, settings)?;
            }
        }
        let pooled = net.summary(settings);
        net.linear(&tensors.first_of(&["linear", "fc"])?, pooled)?;
        net.finish("resnet", settings, vec!["the activation after every BatchNorm and sum".to_owned()])
    })
}

/// What is open: strides and pools of published networks and of the changes that people make to them for small images.
fn variants<'a>(tensors: &Tensors<'_>, given: &'a Settings, large: bool) -> Variants<'a> {
    let stem = |stride, pool| Settings { stem_stride: Some(stride), stem_pool: Some(pool), ..Settings::default() };
    let stems = if large {
        [stem(2, true), stem(2, false), stem(1, false), stem(1, true)]
    } else {
        [stem(1, false), stem(1, true), stem(2, false), stem(2, true)]
    };
    let stages = tensors.places("layer").len();
    let strides = |change: &dyn Fn(&mut Vec<usize>)| {
        let mut strides: Vec<usize> = (0..stages).map(|stage| if stage == 0 { 1 } else { 2 }).collect();
        change(&mut strides);
        strides
    };
    let ones = |places: usize| {
        move |strides: &mut Vec<usize>| {
            let first = strides.len().saturating_sub(places);
            strides[first..].fill(1);
        }
    };
    let moves = |strides: Vec<usize>, dilation: Vec<usize>| Settings {
        strides: Some(strides),
        dilation: Some(dilation),
        ..Settings::default()
    };
    let plain = vec![1; stages];
    let dilated = |places: usize| {
        let mut dilation = plain.clone();
        for place in stages.saturating_sub(places)..stages {
            dilation[place] = if place == 0 { 1 } else { 2 * dilation[place - 1] };
        }
        dilation
    };
    let usual = strides(&|_| {});
    let mut places = vec![moves(usual.clone(), plain.clone())];
    places.extend((1..=3.min(stages.saturating_sub(1))).map(|count| moves(strides(&ones(count)), dilated(count))));
    places.extend((1..stages.min(5)).map(|count| moves(strides(&ones(count)), plain.clone())));
    places.push(moves(strides(&|strides| strides.iter_mut().for_each(|stride| *stride = 2)), plain.clone()));
    if stages > 2 {
        places.push(moves(strides(&|strides| strides[1] = 1), plain.clone()));
        places.push(moves(strides(&|strides| strides[2] = 1), plain));
    }
    let strided =
        [Strided::Middle, Strided::First].map(|which| Settings { strided: Some(which), ..Settings::default() });
    let bottlenecks = tensors.has("layer1.0.conv3");
    let functions = [
        Activation::Relu,
        Activation::LeakyRelu(0.01),
        Activation::Gelu,
        Activation::Silu,
        Activation::LeakyRelu(0.1),
        Activation::LeakyRelu(0.2),
        Activation::Relu6,
        Activation::Hardswish,
        Activation::Tanh,
        Activation::GeluTanh,
        Activation::Mish,
        Activation::Elu,
    ];
    Variants::new(given)
        .with(stems)
        .with(places)
        .with(bottlenecks.then_some(strided).into_iter().flatten())
        .with([false, true].map(|blur_pool| Settings { blur_pool: Some(blur_pool), ..Settings::default() }))
        .with(activations(&functions))
        .with(summaries())
        .with(epsilons(if tensors.has("bn1") { &[EPS, 1e-3] } else { &[] }))
}

fn stem(net: &mut Net<'_>, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    conv_and_norm(net, ["conv1", "bn1"], input, settings.stem_stride.unwrap_or(1), 1, settings)?;
    net.activation("relu", settings);
    match (settings.stem_pool, settings.blur_pool) {
        (Some(true), Some(true)) => {
            net.then("maxpool", Op::max_pool2d(Window::square(3, 1, 1)));
            net.then("maxpool.blur", BLUR);
        }
        (Some(true), _) => {
            net.then("maxpool", Op::max_pool2d(Window::square(3, 2, 1)));
        }
        _ => {}
    }
    Ok(())
}

/// Adds a convolution and, where there is one, its normalisation.
fn conv_and_norm(
    net: &mut Net<'_>,
    names: [&str; 2],
    input: NodeId,
    stride: usize,
    dilation: usize,
    settings: &Settings,
) -> Result<NodeId, Unfit> {
    let out = net.dilated(names[0], input, stride, dilation)?;
    if net.tensors.has(names[1]) { net.batch_norm(names[1], out, settings.eps.unwrap_or(EPS)) } else { Ok(out) }
}

/// Where a block stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    stride: usize,
    dilation: usize,
}

/// Two or three convolutions and a shortcut around them.
fn residual(net: &mut Net<'_>, name: &str, place: Place, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    let count = if net.tensors.has(&format!("{name}.conv3")) { 3 } else { 2 };
    let strided = if count == 3 && settings.strided != Some(Strided::First) { 2 } else { 1 };
    let mut main = input;
    let blurred = settings.blur_pool == Some(true) && place.stride == 2;
    for index in 1..=count {
        let stride = if index == strided && !blurred { place.stride } else { 1 };
        let names = [&*format!("{name}.conv{index}"), &*format!("{name}.bn{index}")];
        main = conv_and_norm(net, names, main, stride, place.dilation, settings)?;
        if index < count {
            main = net.activation(&format!("{name}.relu{index}"), settings);
        }
        if index == strided && blurred {
            main = net.then(&format!("{name}.blur"), BLUR);
        }
    }
    let projection = ["shortcut", "downsample"].into_iter().find(|kind| net.tensors.has(&format!("{name}.{kind}.0")));
    let shortcut = match projection {
        Some(kind) => {
            let names = [&*format!("{name}.{kind}.0"), &*format!("{name}.{kind}.1")];
            conv_and_norm(net, names, input, place.stride, 1, settings)?
        }
        None => input,
    };
    net.op(&format!("{name}.add"), Op::Add, &[main, shortcut]);
    net.activation(&format!("{name}.relu"), settings);
    Ok(())
}
