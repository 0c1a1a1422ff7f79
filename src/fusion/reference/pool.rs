//! Pools over windows, over parts of images and over whole ones.

use rayon::prelude::*;

use crate::fusion::reference::feature_map::FeatureMap;
use crate::kernels::Geometry;
use crate::kernels::pool::Cover;
use crate::model::graph::{BlurWindow, Op, PoolKind};

/// Applies the pool `op`; `axes` are the positions of the output.
pub(super) fn pool(op: &Op, x: &FeatureMap, axes: &[usize]) -> FeatureMap {
    if let Some(window) = op.blur() {
        return blur(x, axes, window);
    }
    let Some(pool) = op.pool() else {
        let size = match op {
            Op::AdaptiveAvgPool2d { output } | Op::AdaptiveMaxPool2d { output } => *output,
            _ => [1, 1],
        };
        return reduce(x, axes, matches!(op, Op::AdaptiveMaxPool2d { .. }), &Cover::parts(x.size(), size));
    };
    let output = match axes {
        [height, width] => [*height, *width],
        _ => [1, axes.iter().product()],
    };
    let window = pool.window;
    let geometry = Geometry {
        channels: x.channels,
        input: x.size(),
        output,
        kernel: window.kernel,
        stride: window.stride,
        padding: window.padding,
        dilation: window.dilation,
    };
    let count_rim = pool.kind == PoolKind::Mean { count_padding: true };
    reduce(x, axes, pool.kind == PoolKind::Max, &Cover::windows(&geometry, count_rim))
}

/// Maximum or mean of what every output position covers, channel by channel.
fn reduce(x: &FeatureMap, axes: &[usize], maximum: bool, cover: &Cover) -> FeatureMap {
    let mut values = vec![0.0; x.values.len() / cover.inputs() * cover.outputs()];
    let planes = values.par_chunks_exact_mut(cover.outputs()).zip(x.values.par_chunks_exact(cover.inputs()));
    planes.for_each(|(y, x)| {
        for (o, y) in y.iter_mut().enumerate() {
            let values = cover.positions(o).map(|position| x[position]);
            *y = if maximum {
                largest(values)
            } else {
                (values.map(f64::from).sum::<f64>() / cover.count(o) as f64) as f32
            };
        }
    });
    FeatureMap::new(values, x.channels, axes)
}

/// The image with its rims reflected, then the filter over it.
fn blur(x: &FeatureMap, axes: &[usize], window: BlurWindow) -> FeatureMap {
    let BlurWindow { kernel, stride, padding } = window;
    let ([height, width], inside) = (x.size(), x.size().map(|size| size as isize - 1));
    let at = |axis: usize, padded: usize| {
        let from = (padded as isize - padding as isize).abs();
        (inside[axis] - (inside[axis] - from).abs()) as usize
    };
    let choose = |k: usize| (1..=k).fold(1.0, |all, i| all * (kernel - i) as f64 / i as f64);
    let sum = 4.0_f64.powi(kernel as i32 - 1);
    let mut values = Vec::new();
    for plane in x.values.chunks_exact(height * width) {
        for (row, column) in (0..axes[0]).flat_map(|row| (0..axes[1]).map(move |column| (row, column))) {
            let mut blurred = 0.0;
            for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
                let value = plane[at(0, row * stride + i) * width + at(1, column * stride + j)];
                blurred += choose(i) * choose(j) / sum * f64::from(value);
            }
            values.push(blurred as f32);
        }
    }
    FeatureMap::new(values, x.channels, axes)
}

/// The largest value; one that is not a number wins.
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(f32::NEG_INFINITY, |most, value| if value > most || value.is_nan() { value } else { most })
}
