//! Wide residual networks by the names of the usual PyTorch code: `block1.layer.0.bn1`, `.conv1`, `.bn2`, `.conv2`,
//! `.convShortcut` (Zagoruyko and Komodakis, BMVC 2016). BatchNorm and ReLU come before the convolutions.

use crate::model::families::builder::EPS;
use crate::model::families::named::{Net, Tensors, for_images};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op};

/// The tensor by which the family is known.
pub(super) const ANCHOR: &str = "block1.layer.0.conv1.weight";

/// Height and width that stand for all where the input is not known.
const DEFAULT_SIZE: usize = 32;

/// The one network that fits.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let [_, channels, ..] = tensors.kernels("conv1")?;
    for_images(given.input, channels, DEFAULT_SIZE, |shape| {
        let mut net = Net::new(tensors, shape);
        let input = net.last();
        net.conv("conv1", input, 1)?;
        for stage in tensors.places("block") {
            for block in tensors.places(&format!("block{stage}.layer.")) {
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                residual(&mut net, &format!("block{stage}.layer.{block}"), stride)?;
            }
        }
        let last = net.last();
        norm_and_relu(&mut net, "bn1", last)?;
        let pooled = net.mean();
        net.linear("fc", pooled)?;
        net.finish("wide_resnet", assumptions())
    })
}

fn assumptions() -> Vec<String> {
    vec![
        "a stem of stride 1 without a pool".to_owned(),
        "stride 2 in the first block of every stage but the first (in its first convolution)".to_owned(),
        "ReLU after every BatchNorm, eps 1e-5; a convolution in the shortcut reads behind the block's first ReLU"
            .to_owned(),
        "mean over all positions before the output".to_owned(),
    ]
}

fn norm_and_relu(net: &mut Net<'_>, name: &str, input: NodeId) -> Result<NodeId, Unfit> {
    net.batch_norm(name, input, EPS)?;
    Ok(net.then(&format!("{name}.relu"), Op::Relu))
}

/// Two convolutions and a shortcut around them.
fn residual(net: &mut Net<'_>, name: &str, stride: usize) -> Result<(), Unfit> {
    let input = net.last();
    let active = norm_and_relu(net, &format!("{name}.bn1"), input)?;
    let inner = net.conv(&format!("{name}.conv1"), active, stride)?;
    let inner = norm_and_relu(net, &format!("{name}.bn2"), inner)?;
    let main = net.conv(&format!("{name}.conv2"), inner, 1)?;
    let projection = format!("{name}.convShortcut");
    let shortcut = if net.tensors.has(&projection) { net.conv(&projection, active, stride)? } else { input };
    net.op(&format!("{name}.add"), Op::Add, &[shortcut, main]);
    Ok(())
}
