//! Pools over windows, over parts of images and over whole ones.

use rayon::prelude::*;

use crate::fusion::reference::activation::Activation;
use crate::kernels::Geometry;
use crate::kernels::pool::Cover;
use crate::model::graph::{Op, PoolKind};

/// Applies the pool `op`; `axes` are the positions of the output.
pub(super) fn pool(op: &Op, x: &Activation, axes: &[usize]) -> Activation {
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
fn reduce(x: &Activation, axes: &[usize], maximum: bool, cover: &Cover) -> Activation {
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
    Activation::new(values, x.channels, axes)
}

/// The largest value; one that is not a number wins.
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(f32::NEG_INFINITY, |most, value| if value > most || value.is_nan() { value } else { most })
}
