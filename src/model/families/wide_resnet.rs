//! Wide residual networks by the names of the usual PyTorch code: `block1.layer.0.bn1`, `.conv1`, `.bn2`, `.conv2`,
//! `.convShortcut` (Zagoruyko and Komodakis, BMVC 2016). BatchNorm and ReLU come before the convolutions.

use crate::model::families::builder::EPS;
use crate::model::families::images::for_images;
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{Variants, activations, check_stages, epsilons, summaries};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op};
use crate::settings::{Activation, Settings};

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "block1.layer.0.conv1.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 32;

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("conv1")?;
    let stages = tensors.places("block").len();
    check_stages(stages)?;
    let strides = |first: usize| (0..stages).map(|stage| if stage == 0 { first } else { 2 }).collect();
    let strides = |first: usize| Settings { strides: Some(strides(first)), ..Settings::default() };
    let stem = |stride: usize| Settings { stem_stride: Some(stride), ..Settings::default() };
    let functions =
        [Activation::Relu, Activation::LeakyRelu(0.1), Activation::LeakyRelu(0.01), Activation::Silu, Activation::Gelu];
    let variants = Variants::new(given.settings)
        .with([stem(1), stem(2)])
        .with([strides(1), strides(2)])
        .with(activations(&functions))
        .with(summaries())
        .with(epsilons(&[EPS, 1e-3]));
    for_images(given.input, channels, DEFAULT_SIZE, &variants, |shape, settings| {
        let mut net = Net::new(tensors, shape);
        let input = net.last();
        net.conv("conv1", input, settings.stem_stride.unwrap_or(1))?;
        for (index, stage) in tensors.places("block").into_iter().enumerate() {
            for block in tensors.places(&format!("block{stage}.layer.")) {
                let first = settings.strides.as_ref().and_then(|strides| strides.get(index)).copied().unwrap_or(1);
                let stride = if block == 0 { first } else { 1 };
                residual(&mut net, &format!("block{stage}.layer.{block}"), stride, settings)?;
            }
        }
        let last = net.last();
        norm_and_activation(&mut net, "bn1", last, settings)?;
        let pooled = net.summary(settings);
        net.linear("fc", pooled)?;
        net.finish("wide_resnet", settings, assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "the activation after every BatchNorm; a convolution in the shortcut reads behind the block's first".to_owned(),
    ]
}

fn norm_and_activation(net: &mut Net<'_>, name: &str, input: NodeId, settings: &Settings) -> Result<NodeId, Unfit> {
    net.batch_norm(name, input, settings.eps.unwrap_or(EPS))?;
    Ok(net.activation(&format!("{name}.relu"), settings))
}

/// Two convolutions and a shortcut around them.
fn residual(net: &mut Net<'_>, name: &str, stride: usize, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    let active = norm_and_activation(net, &format!("{name}.bn1"), input, settings)?;
    let inner = net.conv(&format!("{name}.conv1"), active, stride)?;
    let inner = norm_and_activation(net, &format!("{name}.bn2"), inner, settings)?;
    let main = net.conv(&format!("{name}.conv2"), inner, 1)?;
    let projection = format!("{name}.convShortcut");
    let shortcut = if net.tensors.has(&projection) { net.conv(&projection, active, stride)? } else { input };
    net.op(&format!("{name}.add"), Op::Add, &[shortcut, main]);
    Ok(())
}
