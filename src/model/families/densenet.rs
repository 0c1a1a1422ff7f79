//! DenseNet-121, 161, 169 and 201 in torchvision's naming: `features.denseblock1.denselayer1.norm1`, … (Huang et al.,
//! CVPR 2017). Depths and widths are those of the names and shapes.

use crate::model::families::builder::EPS;
use crate::model::families::named::{Net, Tensors, for_images};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op, Window};

/// The tensors by which the family is known: as they are written now, and as older files have them.
pub(super) const ANCHORS: [&str; 2] =
    ["features.denseblock1.denselayer1.conv1.weight", "features.denseblock1.denselayer1.conv.1.weight"];

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 224;

/// The one network that fits.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("features.conv0")?;
    for_images(given.input, channels, DEFAULT_SIZE, |shape| {
        let mut net = Net::new(tensors, shape);
        let input = net.last();
        let stem = net.conv("features.conv0", input, 2)?;
        norm_and_relu(&mut net, "features.norm0", stem)?;
        net.then("features.pool0", Op::max_pool2d(Window::square(3, 2, 1)));
        for block in tensors.places("features.denseblock") {
            for layer in tensors.places(&format!("features.denseblock{block}.denselayer")) {
                dense_layer(&mut net, &format!("features.denseblock{block}.denselayer{layer}"))?;
            }
            let transition = format!("features.transition{block}");
            if tensors.has(&format!("{transition}.conv")) {
                let last = net.last();
                let active = norm_and_relu(&mut net, &format!("{transition}.norm"), last)?;
                net.conv(&format!("{transition}.conv"), active, 1)?;
                net.then(&format!("{transition}.pool"), Op::avg_pool2d(Window::square(2, 2, 0)));
            }
        }
        let last = net.last();
        norm_and_relu(&mut net, "features.norm5", last)?;
        let pooled = net.mean();
        net.linear("classifier", pooled)?;
        net.finish("densenet", assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "a stem of stride 2 with a 3x3 maximum pool".to_owned(),
        "ReLU after every BatchNorm, eps 1e-5; every layer reads the outputs of all layers of its block before it"
            .to_owned(),
        "2 x 2 mean pooling at the end of every transition, mean over all positions before the output".to_owned(),
    ]
}

fn norm_and_relu(net: &mut Net<'_>, name: &str, input: NodeId) -> Result<NodeId, Unfit> {
    net.batch_norm(name, input, EPS)?;
    Ok(net.then(&format!("{name}.relu"), Op::Relu))
}

/// A bottleneck of two convolutions, whose output joins its input.
fn dense_layer(net: &mut Net<'_>, name: &str) -> Result<(), Unfit> {
    let input = net.last();
    let mut inner = input;
    for index in 1..=2 {
        let pick = |kind: &str| {
            let [new, old] = [format!("{name}.{kind}{index}"), format!("{name}.{kind}.{index}")];
            if net.tensors.has(&new) { new } else { old }
        };
        let (norm, conv) = (pick("norm"), pick("conv"));
        inner = norm_and_relu(net, &norm, inner)?;
        inner = net.conv(&conv, inner, 1)?;
    }
    net.op(&format!("{name}.concat"), Op::Concat, &[input, inner]);
    Ok(())
}
