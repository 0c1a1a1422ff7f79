//! DenseNet-121, 161, 169 and 201 in torchvision's naming: `features.denseblock1.denselayer1.norm1`, … (Huang et al.,
//! CVPR 2017). Depths and widths are those of the names and shapes.

use crate::model::families::builder::EPS;
use crate::model::families::images::for_images;
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{Variants, activations, epsilons, summaries};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op, Window};
use crate::settings::{Activation, Pool, Settings};

/// The tensors by which the family is known: as they are written now, and as older files have them.
pub(super) const ANCHORS: [&str; 2] =
    ["features.denseblock1.denselayer1.conv1.weight", "features.denseblock1.denselayer1.conv.1.weight"];

/// Height and width that stand for all where the input is not known: after a small or a large stem.
const DEFAULT_SIZES: (usize, usize) = (32, 224);

/// Size of a stem's kernels from which on it is one for large images.
const LARGE_STEM: usize = 7;

/// The networks that fit.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, kernel, _] = tensors.kernels("features.conv0")?;
    let large = kernel >= LARGE_STEM;
    let size = if large { DEFAULT_SIZES.1 } else { DEFAULT_SIZES.0 };
    let stem = |stride, pool| Settings { stem_stride: Some(stride), stem_pool: Some(pool), ..Settings::default() };
    let stems = if large {
        [stem(2, true), stem(2, false), stem(1, false), stem(1, true)]
    } else {
        [stem(1, false), stem(1, true), stem(2, false), stem(2, true)]
    };
    let pools = [Pool::Mean, Pool::Max].map(|pool| Settings { pool: Some(pool), ..Settings::default() });
    let functions =
        [Activation::Relu, Activation::LeakyRelu(0.01), Activation::Silu, Activation::Gelu, Activation::Relu6];
    let variants = Variants::new(given.settings)
        .with(stems)
        .with(pools)
        .with(activations(&functions))
        .with(summaries())
        .with(epsilons(&[EPS, 1e-3]));
    for_images(given.input, channels, size, &variants, |shape, settings| {
        let mut net = Net::new(tensors, shape);
        let input = net.last();
        let stem = net.conv("features.conv0", input, settings.stem_stride.unwrap_or(2))?;
        if tensors.has("features.norm0") {
            norm_and_activation(&mut net, "features.norm0", stem, settings)?;
        }
        if settings.stem_pool == Some(true) {
            net.then("features.pool0", Op::max_pool2d(Window::square(3, 2, 1)));
        }
        for block in tensors.places("features.denseblock") {
            for layer in tensors.places(&format!("features.denseblock{block}.denselayer")) {
                dense_layer(&mut net, &format!("features.denseblock{block}.denselayer{layer}"), settings)?;
            }
            let transition = format!("features.transition{block}");
            if tensors.has(&format!("{transition}.conv")) {
                let last = net.last();
                let active = norm_and_activation(&mut net, &format!("{transition}.norm"), last, settings)?;
                net.conv(&format!("{transition}.conv"), active, 1)?;
                let window = Window::square(2, 2, 0);
                let pool =
                    if settings.pool == Some(Pool::Max) { Op::max_pool2d(window) } else { Op::avg_pool2d(window) };
                net.then(&format!("{transition}.pool"), pool);
            }
        }
        let last = net.last();
        norm_and_activation(&mut net, "features.norm5", last, settings)?;
        let pooled = net.summary(settings);
        net.linear("classifier", pooled)?;
        net.finish("densenet", settings, assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "the activation after every BatchNorm; every layer reads the outputs of all layers of its block before it"
            .to_owned(),
        "a 2 x 2 pool at the end of every transition".to_owned(),
    ]
}

fn norm_and_activation(net: &mut Net<'_>, name: &str, input: NodeId, settings: &Settings) -> Result<NodeId, Unfit> {
    net.batch_norm(name, input, settings.eps.unwrap_or(EPS))?;
    Ok(net.activation(&format!("{name}.relu"), settings))
}

/// A bottleneck of two convolutions, whose output joins its input.
fn dense_layer(net: &mut Net<'_>, name: &str, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    let mut inner = input;
    for index in 1..=2 {
        let pick = |kind: &str| {
            let [new, old] = [format!("{name}.{kind}{index}"), format!("{name}.{kind}.{index}")];
            if net.tensors.has(&new) { new } else { old }
        };
        let (norm, conv) = (pick("norm"), pick("conv"));
        inner = norm_and_activation(net, &norm, inner, settings)?;
        inner = net.conv(&conv, inner, 1)?;
    }
    net.op(&format!("{name}.concat"), Op::Concat, &[input, inner]);
    Ok(())
}
