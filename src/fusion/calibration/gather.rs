//! Rows of features out of activations: channels at sampled positions, unfolded windows, picked outputs.

use std::ops::Range;

use super::NodeValue;
use crate::model::graph::Window;

/// Appends each example's channels at `positions`: rows of C elements.
pub(in crate::fusion) fn channels(value: &NodeValue, positions: &[usize], rows: &mut Vec<f32>) {
    let image = value.channels * value.positions();
    for example in value.values.chunks_exact(image.max(1)) {
        for position in positions {
            rows.extend_from_slice(&example[position * value.channels..][..value.channels]);
        }
    }
}

/// Appends, for each example and each of the output `positions`, what the kernel sees there of some `channels` (im2col):
/// rows of kh x kw x channels elements, zero on the rim.
pub(in crate::fusion) fn windows(
    value: &NodeValue,
    window: &Window,
    output: [usize; 2],
    positions: &[usize],
    channels: &Range<usize>,
    rows: &mut Vec<f32>,
) {
    let image = value.channels * value.positions();
    for example in value.values.chunks_exact(image.max(1)) {
        for position in positions {
            let at = [position / output[1], position % output[1]];
            for tap in 0..window.kernel[0] * window.kernel[1] {
                let tap = [tap / window.kernel[1], tap % window.kernel[1]];
                let place = |axis: usize| {
                    let place = at[axis] * window.stride[axis] + tap[axis] * window.dilation[axis];
                    place.checked_sub(window.padding[axis]).filter(|place| *place < value.size[axis])
                };
                match (place(0), place(1)) {
                    (Some(y), Some(x)) => {
                        let pixel = (y * value.size[1] + x) * value.channels;
                        rows.extend_from_slice(&example[pixel + channels.start..pixel + channels.end]);
                    }
                    _ => rows.resize(rows.len() + channels.len(), 0.0),
                }
            }
        }
    }
}

/// For each example and each of the `positions`, the channels `chosen` go to their targets: `rows` has `width` elements per
/// row, and channel `source` is added to element `target`, times its `factor`.
pub(in crate::fusion) fn picks(
    value: &NodeValue,
    positions: &[usize],
    chosen: &[(usize, usize)],
    factor: impl Fn(usize) -> f32,
    width: usize,
    rows: &mut [f32],
) {
    let image = value.channels * value.positions();
    let mut targets = rows.chunks_exact_mut(width.max(1));
    for example in value.values.chunks_exact(image.max(1)) {
        for (position, row) in positions.iter().zip(targets.by_ref()) {
            let pixel = &example[position * value.channels..][..value.channels];
            for (source, target) in chosen {
                row[*target] += factor(*source) * pixel[*source];
            }
        }
    }
}

/// Appends, for each example and each of the `positions`, the channels of a flattened image, whose element
/// `channel * repeat + position` they are: rows of C elements.
pub(in crate::fusion) fn flattened(value: &NodeValue, repeat: usize, positions: &[usize], rows: &mut Vec<f32>) {
    for example in value.values.chunks_exact(value.channels.max(1)) {
        for position in positions {
            rows.extend(example.iter().skip(*position).step_by(repeat));
        }
    }
}
