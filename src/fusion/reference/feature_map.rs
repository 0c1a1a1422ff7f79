//! Activations of a batch, channels first.

use crate::fusion::assemble::routes::PositionRun;
use crate::model::graph::Graph;

/// One node's output for a batch: N x C x P, where P is the number of positions.
pub(super) struct FeatureMap {
    pub(super) values: Vec<f32>,
    pub(super) channels: usize,
    axes: Vec<usize>,
}

impl FeatureMap {
    pub(super) fn new(values: Vec<f32>, channels: usize, axes: &[usize]) -> Self {
        Self { values, channels, axes: axes.to_vec() }
    }

    pub(super) fn zeros(batch: usize, channels: usize, axes: &[usize]) -> Self {
        Self::new(vec![0.0; batch * channels * axes.iter().product::<usize>()], channels, axes)
    }

    /// Values of the same shape.
    pub(super) fn with(&self, values: Vec<f32>) -> Self {
        Self::new(values, self.channels, &self.axes)
    }

    /// Number of positions, at least 1.
    pub(super) fn positions(&self) -> usize {
        self.axes.iter().product()
    }

    /// Height and width; a sequence has height 1.
    pub(super) fn size(&self) -> [usize; 2] {
        match self.axes[..] {
            [height, width] => [height, width],
            _ => [1, self.positions()],
        }
    }

    /// The axes behind the channels.
    pub(super) fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// Elements of one example.
    pub(super) fn example(&self) -> usize {
        self.channels * self.positions()
    }

    /// The channels of one member, in that member's own order.
    pub(super) fn take(&self, runs: &[PositionRun], batch: usize) -> Self {
        let channels = runs.iter().map(|run| run.source + run.len).max().unwrap_or(0);
        let mut own = Self::zeros(batch, channels, &self.axes);
        let p = self.positions();
        let examples =
            self.values.chunks_exact(self.example().max(1)).zip(own.values.chunks_exact_mut((channels * p).max(1)));
        for (source, target) in examples {
            for run in runs {
                let (to, from, len) = (run.source * p, run.target * p, run.len * p);
                target[to..to + len].copy_from_slice(&source[from..from + len]);
            }
        }
        own
    }

    /// Adds one member's channels where they stand in the stack.
    pub(super) fn add(&mut self, part: &[f32], runs: &[PositionRun]) {
        self.each_run(part, runs, |target, source| {
            target.iter_mut().zip(source).for_each(|(sum, value)| *sum += value);
        });
    }

    /// Puts one member's channels where they stand in the stack.
    pub(super) fn put(&mut self, part: &[f32], runs: &[PositionRun]) {
        self.each_run(part, runs, <[f32]>::copy_from_slice);
    }

    fn each_run(&mut self, part: &[f32], runs: &[PositionRun], put: impl Fn(&mut [f32], &[f32])) {
        let (p, example) = (self.positions(), self.example());
        let own = runs.iter().map(|run| run.source + run.len).max().unwrap_or(0) * p;
        for (target, source) in self.values.chunks_exact_mut(example.max(1)).zip(part.chunks_exact(own.max(1))) {
            for run in runs {
                let (from, to, len) = (run.source * p, run.target * p, run.len * p);
                put(&mut target[to..to + len], &source[from..from + len]);
            }
        }
    }
}

/// Positions within zeros, of which there are `begin` before each axis; `axes` are the sizes with them.
pub(super) fn within_zeros(x: &FeatureMap, begin: &[usize], axes: &[usize]) -> FeatureMap {
    let channels = x.values.len() / x.positions();
    let ([_, width], mut y) = (x.size(), FeatureMap::zeros(channels, 1, axes));
    let ([_, outer], around) = (y.size(), y.positions());
    let [above, before] = match *begin {
        [above, before] => [above, before],
        _ => [0, begin.iter().sum()],
    };
    for (y, x) in y.values.chunks_exact_mut(around).zip(x.values.chunks_exact(x.positions())) {
        for (row, x) in x.chunks_exact(width).enumerate() {
            y[(row + above) * outer + before..][..width].copy_from_slice(x);
        }
    }
    FeatureMap::new(y.values, x.channels, axes)
}

/// Operands one after another along the channels.
pub(super) fn concat(operands: &[&FeatureMap], batch: usize) -> FeatureMap {
    let channels = operands.iter().map(|operand| operand.channels).sum();
    let mut values = Vec::with_capacity(operands.iter().map(|operand| operand.values.len()).sum());
    for example in 0..batch {
        for operand in operands {
            values.extend_from_slice(&operand.values[example * operand.example()..][..operand.example()]);
        }
    }
    FeatureMap::new(values, channels, operands[0].axes())
}

/// For every node, the last node that reads it.
pub(super) fn last_uses(graph: &Graph) -> Vec<usize> {
    let mut last = vec![0; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| last[input.0] = id.0);
    }
    last
}
