//! Pools over windows, over parts of images and over whole ones.

use rayon::prelude::*;

use crate::fusion::execute::activation::Activation;
use crate::model::graph::{Op, Pool, PoolKind};

/// Applies the pool `op`; `axes` are the positions of the output.
pub(super) fn pool(op: &Op, x: &Activation, axes: &[usize]) -> Activation {
    if let Some(windows) = op.pool() {
        return reduce(x, axes, windows.kind == PoolKind::Max, |at| over(&windows, x.size(), at));
    }
    let maximum = matches!(op, Op::AdaptiveMaxPool2d { .. });
    let size = match op {
        Op::AdaptiveAvgPool2d { output } | Op::AdaptiveMaxPool2d { output } => *output,
        _ => [1, 1],
    };
    reduce(x, axes, maximum, |at| part(x.size(), size, at))
}

/// Rows and columns of an image, and the count that their mean is taken over.
struct Covered {
    rows: Places,
    columns: Places,
    count: usize,
}

type Places = std::iter::StepBy<std::ops::Range<usize>>;

/// What the window at `at` covers.
fn over(pool: &Pool, size: [usize; 2], at: [usize; 2]) -> Covered {
    let [rows, columns] = [0, 1].map(|axis| {
        let (step, rim) = (pool.window.dilation[axis], pool.window.padding[axis]);
        let start = at[axis] * pool.window.stride[axis];
        let span = (pool.window.kernel[axis] - 1) * step + 1;
        let outside = rim.saturating_sub(start).div_ceil(step) * step;
        let (first, end) = ((start + outside).saturating_sub(rim), (start + span).saturating_sub(rim));
        // Of the window, all that lies on the image or its rim.
        let with_rim = (start + span).min(size[axis] + 2 * rim) - start;
        ((first..end.min(size[axis])).step_by(step), with_rim)
    });
    let inside = rows.0.len() * columns.0.len();
    let counts_rim = pool.kind == PoolKind::Mean { count_padding: true };
    Covered { rows: rows.0, columns: columns.0, count: if counts_rim { rows.1 * columns.1 } else { inside } }
}

/// The part of an image that belongs to position `at` of an output of the given size.
fn part(size: [usize; 2], output: [usize; 2], at: [usize; 2]) -> Covered {
    let [rows, columns] = [0, 1].map(|axis| {
        let first = at[axis] * size[axis] / output[axis];
        (first..((at[axis] + 1) * size[axis]).div_ceil(output[axis])).step_by(1)
    });
    let count = rows.len() * columns.len();
    Covered { rows, columns, count }
}

/// Maximum or mean of what every output position covers, channel by channel.
fn reduce(x: &Activation, axes: &[usize], maximum: bool, covered: impl Fn([usize; 2]) -> Covered + Sync) -> Activation {
    let width = x.size()[1];
    let (per_channel, line) = (axes.iter().product::<usize>(), axes.last().copied().unwrap_or(1));
    let mut values = vec![0.0; x.values.len() / x.positions() * per_channel];
    let planes = values.par_chunks_exact_mut(per_channel).zip(x.values.par_chunks_exact(x.positions()));
    planes.for_each(|(y, x)| {
        for (index, y) in y.iter_mut().enumerate() {
            let Covered { rows, columns, count } = covered([index / line, index % line]);
            let values = rows.flat_map(|row| columns.clone().map(move |column| x[row * width + column]));
            *y = if maximum { largest(values) } else { (values.map(f64::from).sum::<f64>() / count as f64) as f32 };
        }
    });
    Activation::new(values, x.channels, axes)
}

/// The largest value; one that is not a number wins.
fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(f32::NEG_INFINITY, |most, value| if value > most || value.is_nan() { value } else { most })
}
