//! Networks that have no checkpoint yet, in the families' usual naming.

use std::collections::BTreeSet;

use crate::model::families::builder::Builder;
use crate::model::graph::{Graph, GraphError, Op, Shape, Window};

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

/// The convolutional network LeNet-5 with ReLU and maximum pooling: `conv1` to 6 and `conv2` to 16 channels, 5x5, then `fc1` to 120,
/// `fc2` to 84 and `fc3`, all with bias. Images of up to 28 pixels are padded by 2 on each side, as MNIST's are.
///
/// # Errors
/// When `input` is no image that is large enough.
pub fn lenet(input: &Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut builder = Builder::new(input, BTreeSet::new());
    let (channels, padding) = match input[..] {
        [channels, height, width] => (channels, if height.min(width) <= 28 { 2 } else { 0 }),
        _ => (input.first().copied().unwrap_or(0), 0),
    };
    for (index, (from, to, padding)) in (1..).zip([(channels, 6, padding), (6, 16, 0)]) {
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
    matrices(&mut builder, 16 * positions, &[120, 84], classes);
    builder.build()
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
    use crate::model::parameters;

    /// Names and shapes of the weights, without the biases.
    fn weights(graph: &Graph) -> Vec<(String, Vec<usize>)> {
        let weights = parameters::of_graph(graph).into_iter().filter(|parameter| parameter.name.ends_with("weight"));
        weights.map(|parameter| (parameter.name, parameter.shape)).collect()
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
            let graph = lenet(&input, 10).expect("a network");
            let mut layers: Vec<(&str, &[usize])> = vec![("conv1", &first), ("conv2", &[16, 6, 5, 5])];
            layers.extend(dense);
            assert_eq!(weights(&graph), expected(&layers));
        }
        assert!(lenet(&vec![3, 8, 8], 10).is_err() && lenet(&vec![64], 10).is_err() && mlp(&vec![4], &[0], 2).is_err());
    }
}
