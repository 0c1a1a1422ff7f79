//! The time of a network on a device whose speed is known.

use crate::domain::speed::Speed;
use crate::model::costs::Costs;
use crate::model::graph::{Graph, Op};
use crate::model::precision::Precision;

/// Channels that the processor computes at once: those of an output are rounded up to a multiple of them.
const VECTOR: usize = 16;

/// A training step is worth as many ways forward.
pub const STEP: f64 = 3.0;

/// Seconds of the way forward of one example. BatchNorm melts into the layer before it.
#[must_use]
pub fn forward_seconds(graph: &Graph, speed: &Speed) -> f64 {
    seconds(graph, speed, |op| matches!(op, Op::BatchNorm { .. }))
}

/// Seconds that a training step takes for each of its examples, forward and twice as long back.
#[must_use]
pub fn step_seconds(graph: &Graph, speed: &Speed) -> f64 {
    STEP * seconds(graph, speed, |_| false)
}

/// Seconds of the way forward of one example through all that is not `melted`.
fn seconds(graph: &Graph, speed: &Speed, melted: impl Fn(&Op) -> bool) -> f64 {
    let precision = Precision::default();
    let seconds = graph.iter().map(|(id, node)| {
        let macs = Costs::of_node(node, graph.shape(id), &precision).macs as f64;
        let elements = graph.shape(id).iter().product::<usize>() as f64 / speed.elements;
        match &node.op {
            // They melt into what comes before them, or move nothing.
            Op::Relu | Op::Flatten | Op::Dropout { .. } => 0.0,
            op if melted(op) => 0.0,
            Op::Linear { out_features, .. } => rounded(macs, *out_features) / speed.products,
            op => match op.convolution() {
                // One channel after another is no product.
                Some(conv) if conv.inputs_of_one() == 1 => elements,
                Some(conv) => rounded(macs, conv.out_channels / conv.groups()) / speed.convolutions,
                None => macs / speed.products + elements,
            },
        }
    });
    seconds.sum()
}

/// Multiply-accumulates with those of channels that are not there.
fn rounded(macs: f64, channels: usize) -> f64 {
    macs * channels.next_multiple_of(VECTOR) as f64 / channels.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families::fresh;

    #[test]
    fn every_kind_of_operation_takes_its_time() {
        let only = |speed: Speed, graph: &Graph| forward_seconds(graph, &speed).round() as u64;
        let endless = Speed {
            products: f64::INFINITY,
            convolutions: f64::INFINITY,
            elements: f64::INFINITY,
            solving: f64::INFINITY,
            step_seconds: 0.0,
        };
        let [products, convolutions, elements] = [
            Speed { products: 1.0, ..endless },
            Speed { convolutions: 1.0, ..endless },
            Speed { elements: 1.0, ..endless },
        ];
        let lenet = fresh::lenet(&vec![3, 32, 32], 6, 10).expect("a network");
        // 120, 84 and 10 outputs as 128, 96 and 16; 6 channels as 16.
        assert_eq!(only(products, &lenet), 400 * 128 + 120 * 96 + 84 * 16);
        assert_eq!(only(convolutions, &lenet), 75 * 16 * 28 * 28 + 150 * 16 * 10 * 10);
        // The image and the two pools.
        assert_eq!(only(elements, &lenet), 3 * 32 * 32 + 6 * 14 * 14 + 16 * 5 * 5);
    }

    #[test]
    fn a_step_is_three_ways_forward_and_normalises() {
        let speed = Speed::default();
        let lenet = fresh::lenet(&vec![3, 32, 32], 6, 10).expect("a network");
        assert!((step_seconds(&lenet, &speed) / forward_seconds(&lenet, &speed) - STEP).abs() < 1e-9);
        let resnet = fresh::resnet18(&vec![3, 32, 32], 16, 10).expect("a network");
        let normalised: usize = resnet
            .iter()
            .filter(|(_, node)| matches!(node.op, Op::BatchNorm { .. }))
            .map(|(id, _)| resnet.shape(id).iter().product::<usize>())
            .sum();
        let normalising = step_seconds(&resnet, &speed) / STEP - forward_seconds(&resnet, &speed);
        assert!(normalised > 0 && (normalising / (normalised as f64 / speed.elements) - 1.0).abs() < 1e-9);
    }
}
