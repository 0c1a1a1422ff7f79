//! Runs a virtual concatenation: activations of all members stacked as in the concatenated network, each dense layer
//! computed block by block from the members' own weights. Plain loops; for checking, not for speed.

use rayon::prelude::*;

use crate::fusion::routes::{Routes, Run};
use crate::fusion::{Ensemble, FusionError, Selection};
use crate::model::graph::{Node, NodeId, Op, Shape, Window};

/// One node's stacked output for a batch: N x C x P, where P is the number of positions.
struct Activation {
    values: Vec<f32>,
    channels: usize,
    size: [usize; 2],
}

impl Activation {
    fn positions(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// Logits of the concatenation, N x classes.
pub(super) fn run(ensemble: &Ensemble<'_>, inputs: &[f32], batch: usize) -> Result<Vec<f32>, FusionError> {
    let graph = ensemble.graph();
    let expected = batch * graph.input_shape().iter().product::<usize>();
    if inputs.len() != expected {
        let detail = format!("expected {expected} input values for {batch} examples, got {}", inputs.len());
        return Err(FusionError::Graph(crate::model::graph::GraphError {
            node: graph.nodes()[0].name.clone(),
            detail,
        }));
    }
    let stack = Stack { ensemble, everything: Selection::all(ensemble), batch };
    let mut done: Vec<Option<Activation>> = Vec::with_capacity(graph.nodes().len());
    let last_use = last_uses(graph);
    for (id, node) in graph.iter() {
        let output = if id.0 == 0 {
            input(inputs, graph.input_shape())
        } else {
            let operands: Vec<&Activation> = node.inputs.iter().filter_map(|input| done[input.0].as_ref()).collect();
            stack.compute(id, node, &operands)?
        };
        done.push(Some(output));
        for input in &node.inputs {
            if last_use[input.0] == id.0 {
                done[input.0] = None;
            }
        }
    }
    Ok(done.pop().flatten().map(|logits| logits.values).unwrap_or_default())
}

/// For every node, the last node that reads it.
fn last_uses(graph: &crate::model::graph::Graph) -> Vec<usize> {
    let mut last = vec![0; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| last[input.0] = id.0);
    }
    last
}

/// The batch as it comes in.
fn input(inputs: &[f32], shape: &Shape) -> Activation {
    let size = if let [_, height, width] = shape[..] { [height, width] } else { [1, 1] };
    Activation { values: inputs.to_vec(), channels: shape[0], size }
}

/// What all layers need to know.
struct Stack<'a> {
    ensemble: &'a Ensemble<'a>,
    everything: Selection,
    batch: usize,
}

impl Stack<'_> {
    fn compute(&self, id: NodeId, node: &Node, operands: &[&Activation]) -> Result<Activation, FusionError> {
        let x = operands[0];
        let map = |f: fn(f32) -> f32| x.values.iter().map(|&value| f(value)).collect();
        Ok(match &node.op {
            Op::Input { .. } => Activation { values: map(|value| value), ..*x },
            Op::Linear { bias, .. } => self.dense(id, node, x, &Window::square(1, 1, 0), *bias)?,
            Op::Conv2d { window, bias, .. } => self.dense(id, node, x, window, *bias)?,
            Op::BatchNorm { eps, .. } => self.normalise(id, node, x, *eps)?,
            Op::Relu => Activation { values: map(|value| value.max(0.0)), ..*x },
            Op::MaxPool2d { window, .. } => slide(x, window, |inside, _| inside.fold(f32::NEG_INFINITY, f32::max)),
            Op::AvgPool2d { window, .. } => slide(x, window, |inside, count| inside.sum::<f32>() / count),
            Op::GlobalAvgPool2d => slide(x, &Window { kernel: x.size, ..Window::square(1, 1, 0) }, |inside, count| {
                inside.sum::<f32>() / count
            }),
            Op::Flatten => {
                Activation { values: map(|value| value), channels: x.channels * x.positions(), size: [1, 1] }
            }
            Op::Add => {
                let pairs = x.values.iter().zip(&operands[1].values);
                Activation { values: pairs.map(|(a, b)| a + b).collect(), ..*x }
            }
            _ => return Err(unknown(node)),
        })
    }

    /// Linear and convolution: each member's block reads its own units and writes its own, or, at the output, adds its
    /// share to the mean.
    fn dense(
        &self,
        id: NodeId,
        node: &Node,
        x: &Activation,
        window: &Window,
        bias: bool,
    ) -> Result<Activation, FusionError> {
        let columns = Routes::columns(self.ensemble, id, &self.everything);
        let rows = Routes::rows(self.ensemble, id, &self.everything);
        let size = window.output(x.size).unwrap_or([0, 0]);
        let mut y =
            Activation { values: vec![0.0; self.batch * rows.len * size[0] * size[1]], channels: rows.len, size };
        for (index, member) in self.ensemble.members().iter().enumerate() {
            let weight = member.weights.f32(&format!("{}.weight", node.name))?;
            let bias = if bias { member.weights.f32(&format!("{}.bias", node.name))? } else { vec![].into() };
            let block = take_channels(x, &columns.runs[index], self.batch);
            let outputs: usize = rows.runs[index].iter().map(|run| run.len).sum();
            let part = convolve(&block, &weight, &bias, outputs, window, size);
            let share = if self.ensemble.is_head(id) { self.ensemble.shares()[index] } else { 1.0 };
            add_channels(&mut y, &part, &rows.runs[index], share);
        }
        Ok(y)
    }

    fn normalise(&self, id: NodeId, node: &Node, x: &Activation, eps: f64) -> Result<Activation, FusionError> {
        let rows = Routes::rows(self.ensemble, id, &self.everything);
        let places = rows.by_target();
        let tensors = |name: &str| {
            let members = self.ensemble.members().iter();
            members.map(|member| member.weights.f32(&format!("{}.{name}", node.name))).collect::<Result<Vec<_>, _>>()
        };
        let (weight, bias) = (tensors("weight")?, tensors("bias")?);
        let (mean, variance) = (tensors("running_mean")?, tensors("running_var")?);
        let mut values = x.values.clone();
        for (index, channel) in values.chunks_exact_mut(x.positions().max(1)).enumerate() {
            let (member, row) = places[index % x.channels];
            let scale = f64::from(weight[member][row]) / (f64::from(variance[member][row]) + eps).sqrt();
            let shift = f64::from(bias[member][row]) - f64::from(mean[member][row]) * scale;
            for value in channel {
                *value = (f64::from(*value) * scale + shift) as f32;
            }
        }
        Ok(Activation { values, ..*x })
    }
}

fn unknown(node: &Node) -> FusionError {
    let detail = "fusing networks with this operation is not supported yet".to_owned();
    FusionError::Coupling(crate::model::groups::CouplingError { node: node.name.clone(), detail })
}

/// The channels of one member, in that member's own order.
fn take_channels(x: &Activation, runs: &[Run], batch: usize) -> Activation {
    let p = x.positions();
    let channels = runs.iter().map(|run| run.source + run.len).max().unwrap_or(0);
    let mut values = vec![0.0; batch * channels * p];
    for (source, target) in
        x.values.chunks_exact((x.channels * p).max(1)).zip(values.chunks_exact_mut((channels * p).max(1)))
    {
        for run in runs {
            let (own, stacked, len) = (run.source * p, run.target * p, run.len * p);
            target[own..own + len].copy_from_slice(&source[stacked..stacked + len]);
        }
    }
    Activation { values, channels, size: x.size }
}

/// Adds one member's channels where they stand in the stacked output.
fn add_channels(y: &mut Activation, part: &[f32], runs: &[Run], share: f32) {
    let p = y.positions();
    let channels: usize = runs.iter().map(|run| run.len).sum();
    for (target, source) in
        y.values.chunks_exact_mut((y.channels * p).max(1)).zip(part.chunks_exact((channels * p).max(1)))
    {
        for run in runs {
            let (own, stacked, len) = (run.source * p, run.target * p, run.len * p);
            let pairs = target[stacked..stacked + len].iter_mut().zip(&source[own..own + len]);
            pairs.for_each(|(sum, value)| *sum += share * value);
        }
    }
}

/// Cross-correlation with all kernels, N x out x P'; a matrix is a kernel of one position.
fn convolve(
    x: &Activation,
    weight: &[f32],
    bias: &[f32],
    outputs: usize,
    window: &Window,
    size: [usize; 2],
) -> Vec<f32> {
    let (p_in, p_out) = (x.positions(), size[0] * size[1]);
    let [kernel_h, kernel_w] = window.kernel;
    let images = x.values.par_chunks_exact((x.channels * p_in).max(1));
    let one_image = |image: &[f32]| {
        let mut y = vec![0.0_f32; outputs * p_out];
        for (out, plane) in y.chunks_exact_mut(p_out.max(1)).enumerate() {
            plane.fill(bias.get(out).copied().unwrap_or(0.0));
            for (channel, source) in image.chunks_exact(p_in.max(1)).enumerate() {
                let kernel = &weight[(out * x.channels + channel) * kernel_h * kernel_w..][..kernel_h * kernel_w];
                for (tap, &factor) in kernel.iter().enumerate() {
                    add_tap(plane, size, source, x.size, window, [tap / kernel_w, tap % kernel_w], factor);
                }
            }
        }
        y
    };
    images.flat_map_iter(one_image).collect()
}

/// Adds one element of the kernel times the part of the image that it meets.
fn add_tap(
    plane: &mut [f32],
    size: [usize; 2],
    source: &[f32],
    source_size: [usize; 2],
    window: &Window,
    tap: [usize; 2],
    factor: f32,
) {
    for y in 0..size[0] {
        let Some(row) = place(y, tap[0], window, 0, source_size[0]) else { continue };
        for x in 0..size[1] {
            if let Some(column) = place(x, tap[1], window, 1, source_size[1]) {
                plane[y * size[1] + x] += factor * source[row * source_size[1] + column];
            }
        }
    }
}

/// Where the window's element `tap` meets the image when the window stands at `at`; `None` in the padding.
fn place(at: usize, tap: usize, window: &Window, axis: usize, len: usize) -> Option<usize> {
    (at * window.stride[axis] + tap).checked_sub(window.padding[axis]).filter(|place| *place < len)
}

/// Slides a window over every channel; `reduce` gets the elements inside the image and the window's size.
fn slide(x: &Activation, window: &Window, reduce: impl Fn(&mut dyn Iterator<Item = f32>, f32) -> f32) -> Activation {
    let size = window.output(x.size).unwrap_or([0, 0]);
    let count = (window.kernel[0] * window.kernel[1]) as f32;
    let mut values = Vec::with_capacity(x.values.len());
    for plane in x.values.chunks_exact(x.positions().max(1)) {
        for at in 0..size[0] * size[1] {
            let (y0, x0) = (at / size[1], at % size[1]);
            let mut inside = (0..window.kernel[0] * window.kernel[1]).filter_map(|tap| {
                let row = place(y0, tap / window.kernel[1], window, 0, x.size[0])?;
                let column = place(x0, tap % window.kernel[1], window, 1, x.size[1])?;
                Some(plane[row * x.size[1] + column])
            });
            values.push(reduce(&mut inside, count));
        }
    }
    Activation { values, channels: x.channels, size }
}
