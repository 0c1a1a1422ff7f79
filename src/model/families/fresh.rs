//! Networks that have no checkpoint yet, in the families' usual naming.

use std::collections::BTreeSet;

use crate::model::families::builder::{Builder, EPS};
use crate::model::graph::{Graph, GraphError, NodeId, Op, Shape, Window};

/// Matrices with bias, `fc1`, `fc2`, …, of the widths `hidden` and then `classes`, with ReLU between them.
///
/// # Errors
/// When a width is 0 or the network would be too large.
pub fn mlp(input: &Shape, hidden: &[usize], classes: usize) -> Result<Graph, GraphError> {
    let mut builder = Builder::new(input, BTreeSet::new());
    if input.len() > 1 {
        builder.then("flatten", Op::Flatten);
    }
    matrices(&mut builder, input.iter().product(), hidden, classes);
    builder.build()
}

/// Channels of LeNet-5's first layer.
pub const LENET: usize = 6;

/// The convolutional network LeNet-5 with ReLU and maximum pooling: `conv1` to 6 and `conv2` to 16 channels, 5x5, then `fc1` to 120,
/// `fc2` to 84 and `fc3`, all with bias; all in proportion where `width`, that of `conv1`, is another. Images of up to 28 pixels are
/// padded by 2 on each side, as MNIST's are.
///
/// # Errors
/// When `input` is no image that is large enough.
pub fn lenet(input: &Shape, width: usize, classes: usize) -> Result<Graph, GraphError> {
    let mut builder = Builder::new(input, BTreeSet::new());
    let (channels, padding) = match input[..] {
        [channels, height, width] => (channels, if height.min(width) <= 28 { 2 } else { 0 }),
        _ => (input.first().copied().unwrap_or(0), 0),
    };
    let scaled = |units: usize| units.saturating_mul(width).div_ceil(LENET);
    let [first, second] = [LENET, 16].map(scaled);
    for (index, (from, to, padding)) in (1..).zip([(channels, first, padding), (first, second, 0)]) {
        builder.weighted(
            &format!("conv{index}"),
            Op::conv2d(from, to, Window::square(5, 1, padding), true),
            builder.last(),
        );
        builder.then(&format!("relu{index}"), Op::Relu);
        builder.then(&format!("pool{index}"), Op::MaxPool2d { window: Window::square(2, 2, 0), ceil_mode: false });
    }
    builder.then("flatten", Op::Flatten);
    let side = |size: usize| ((size + 2 * padding).saturating_sub(4) / 2).saturating_sub(4) / 2;
    let positions: usize = input.iter().skip(1).map(|size| side(*size)).product();
    matrices(&mut builder, second.saturating_mul(positions), &[120, 84].map(scaled), classes);
    builder.build()
}

/// VGG-11 (Simonyan and Zisserman, ICLR 2015) without BatchNorm, as is usual for images of 32 pixels: `features.0` to `features.18`
/// with ReLU and five maximum pools, then one matrix, `classifier`. The first layer has `width` channels (the
/// paper's has 64), the last eight times as many.
///
/// # Errors
/// When `input` is no image of at least 32 pixels, `width` is 0 or the network would be too large.
pub fn vgg11(input: &Shape, width: usize, classes: usize) -> Result<Graph, GraphError> {
    /// Channels of each layer, as multiples of the first one's.
    const STAGES: [&[usize]; 5] = [&[1], &[2], &[4, 4], &[8, 8], &[8, 8]];
    let mut builder = Builder::new(input, BTreeSet::new());
    let (mut from, mut index) = (input.first().copied().unwrap_or(0), 0);
    for stage in STAGES {
        for to in stage.iter().map(|times| times.saturating_mul(width)) {
            let conv = Op::conv2d(from, to, Window::square(3, 1, 1), true);
            builder.weighted(&format!("features.{index}"), conv, builder.last());
            builder.then(&format!("features.{}", index + 1), Op::Relu);
            (from, index) = (to, index + 2);
        }
        builder.then(&format!("features.{index}"), Op::max_pool2d(Window::square(2, 2, 0)));
        index += 1;
    }
    builder.then("flatten", Op::Flatten);
    let positions: usize = input.iter().skip(1).map(|size| size >> STAGES.len()).product();
    let matrix = Op::Linear { in_features: from * positions, out_features: classes, bias: true };
    builder.weighted("classifier", matrix, builder.last());
    builder.build()
}

/// ResNet-18 (He et al., CVPR 2016) as is usual for images of 32 pixels: a stem of stride 1 without a pool, four stages of two blocks,
/// of `width` channels and twice as many in each further stage, mean over all positions, `linear`.
///
/// # Errors
/// When `input` is no image, `width` is 0 or the network would be too large.
pub fn resnet18(input: &Shape, width: usize, classes: usize) -> Result<Graph, GraphError> {
    let mut builder = Builder::new(input, BTreeSet::new());
    let stem = builder.last();
    conv_and_norm(&mut builder, ["conv1", "bn1"], stem, [input.first().copied().unwrap_or(0), width], 3, 1);
    builder.then("relu", Op::Relu);
    let mut from = width;
    for (stage, to) in (1..=4).map(|stage| (stage, width.saturating_mul(1 << (stage - 1)))) {
        for block in 0..2 {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            residual(&mut builder, &format!("layer{stage}.{block}"), [from, to], stride);
            from = to;
        }
    }
    builder.then("mean", Op::GlobalAvgPool2d);
    builder.then("flatten", Op::Flatten);
    let matrix = Op::Linear { in_features: from, out_features: classes, bias: true };
    builder.weighted("linear", matrix, builder.last());
    builder.build()
}

/// A convolution without bias, of a kernel and a stride, and its normalisation.
fn conv_and_norm(
    builder: &mut Builder,
    names: [&str; 2],
    input: NodeId,
    [from, to]: [usize; 2],
    kernel: usize,
    stride: usize,
) -> NodeId {
    let conv = Op::conv2d(from, to, Window::square(kernel, stride, kernel / 2), false);
    let conv = builder.weighted(names[0], conv, input);
    builder.weighted(names[1], Op::BatchNorm { affine: true, features: to, eps: EPS }, conv)
}

/// Two convolutions and a shortcut around them, which is a convolution where the size changes.
fn residual(builder: &mut Builder, name: &str, [from, to]: [usize; 2], stride: usize) {
    let input = builder.last();
    let at = |part: &str| format!("{name}.{part}");
    conv_and_norm(builder, [&at("conv1"), &at("bn1")], input, [from, to], 3, stride);
    let inner = builder.then(&at("relu1"), Op::Relu);
    let main = conv_and_norm(builder, [&at("conv2"), &at("bn2")], inner, [to, to], 3, 1);
    let shortcut = if stride == 1 && from == to {
        input
    } else {
        conv_and_norm(builder, [&at("shortcut.0"), &at("shortcut.1")], input, [from, to], 1, stride)
    };
    builder.add(&at("add"), Op::Add, &[main, shortcut]);
    builder.then(&at("relu"), Op::Relu);
}

fn matrices(builder: &mut Builder, input: usize, hidden: &[usize], classes: usize) {
    let mut from = input;
    for (index, to) in (1..).zip(hidden.iter().chain([&classes])) {
        let op = Op::Linear { in_features: from, out_features: *to, bias: true };
        builder.weighted(&format!("fc{index}"), op, builder.last());
        if index <= hidden.len() {
            builder.then(&format!("fc{index}.relu"), Op::Relu);
        }
        from = *to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families::detect;
    use crate::model::header::{CheckpointHeader, Dtype, TensorInfo};
    use crate::model::{natural, parameters};
    use crate::settings::Architecture;

    /// Names and shapes of the weights, without the biases.
    fn weights(graph: &Graph) -> Vec<(String, Vec<usize>)> {
        let weights = parameters::of_graph(graph).into_iter().filter(|parameter| parameter.name.ends_with("weight"));
        weights.map(|parameter| (parameter.name, parameter.shape)).collect()
    }

    /// A network is recognised by its own weights, as the very same network.
    #[test]
    fn convolutional_networks_are_recognised_again() {
        let input = vec![3, 32, 32];
        let networks =
            [("lenet", lenet(&input, LENET, 10)), ("vgg", vgg11(&input, 16, 10)), ("resnet", resnet18(&input, 16, 10))];
        for (family, graph) in networks {
            let graph = graph.expect("a network");
            let tensor = |parameter: parameters::Parameter| TensorInfo {
                name: parameter.name,
                dtype: Dtype::F32,
                shape: parameter.shape,
            };
            let mut tensors: Vec<TensorInfo> = parameters::of_graph(&graph).into_iter().map(tensor).collect();
            tensors.sort_by(|a, b| natural::compare(&a.name, &b.name));
            let header = CheckpointHeader::new(tensors);
            let detected = detect(&[&header], &Architecture::default(), Some(&input)).expect("it is recognised");
            assert_eq!(detected.family, family);
            let ops = |graph: &Graph| {
                graph.nodes().iter().map(|node| (node.op.clone(), node.inputs.clone())).collect::<Vec<_>>()
            };
            assert_eq!(ops(&detected.graphs[0]), ops(&graph), "{family}");
        }
    }

    #[test]
    fn networks_have_the_usual_names_and_shapes() {
        let expected = |list: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
            list.iter().map(|(name, shape)| (format!("{name}.weight"), shape.to_vec())).collect()
        };
        let graph = mlp(&vec![1, 4, 4], &[7, 5], 3).expect("a network");
        assert_eq!(weights(&graph), expected(&[("fc1", &[7, 16]), ("fc2", &[5, 7]), ("fc3", &[3, 5])]));
        assert_eq!(weights(&mlp(&vec![9], &[], 3).expect("a network")), expected(&[("fc1", &[3, 9])]));
        let dense: [(&str, &[usize]); 3] = [("fc1", &[120, 400]), ("fc2", &[84, 120]), ("fc3", &[10, 84])];
        for (input, first) in [(vec![3, 32, 32], [6, 3, 5, 5]), (vec![1, 28, 28], [6, 1, 5, 5])] {
            let graph = lenet(&input, LENET, 10).expect("a network");
            let mut layers: Vec<(&str, &[usize])> = vec![("conv1", &first), ("conv2", &[16, 6, 5, 5])];
            layers.extend(dense);
            assert_eq!(weights(&graph), expected(&layers));
        }
        let double = weights(&lenet(&vec![3, 32, 32], 2 * LENET, 10).expect("a network"));
        let widths: Vec<usize> = double.iter().map(|(_, shape)| shape[0]).collect();
        assert_eq!(widths, [12, 32, 240, 168, 10]);
        let vgg = weights(&vgg11(&vec![3, 32, 32], 64, 10).expect("a network"));
        assert_eq!(vgg.iter().map(|(name, _)| name.as_str()).nth(7), Some("features.18.weight"));
        assert_eq!(vgg[8], ("classifier.weight".to_owned(), vec![10, 512]));
        assert!(
            lenet(&vec![3, 8, 8], LENET, 10).is_err()
                && lenet(&vec![64], LENET, 10).is_err()
                && mlp(&vec![4], &[0], 2).is_err()
        );
    }
}
