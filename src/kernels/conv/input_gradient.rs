//! Gradient of a convolution's input.
//!
//! Input pixels whose coordinates leave the same remainder by the stride take part in the same offsets of the kernel: for
//! each remainder the gradient is a convolution of the output's gradient with these offsets, at stride 1.

use rayon::prelude::*;

use super::sums::window_sums;
use super::{Conv, POSITIONS, Padded};
use crate::kernels::panels::Panels;
use crate::kernels::product::TileSpan;
use crate::kernels::tile::ROWS;
use crate::kernels::workspace::scratch;
use crate::kernels::{Epilogue, Float, Geometry, Matrix, Workspace};

/// Input pixels of one remainder, and the offsets of the kernel that reach them.
#[derive(Debug)]
struct Phase {
    /// First pixel.
    first: [usize; 2],
    /// Number of pixels.
    pixels: [usize; 2],
    /// Offsets of the kernel.
    taps: Vec<[usize; 2]>,
}

/// The output's gradient, with its padding.
#[derive(Debug, Clone, Copy)]
struct PaddedGradient<'a, T> {
    padded: &'a Padded,
    dy: &'a [T],
}

/// `dx = ` or `dx += ` the gradient.
pub(super) fn input_gradient<T: Float>(
    conv: &Conv,
    work: &mut Workspace<T>,
    dy: &[T],
    weight: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    let (g, out_channels) = (&conv.geometry, conv.out_channels);
    let padded = padded(g, out_channels);
    let phases: Vec<Phase> = phases(g);
    let Workspace { panels, lanes, sums: kernel, .. } = work;
    let mut rest = scratch(panels, phases.iter().map(|phase| conv.groups * phase.panels_len::<T>(conv)).sum());
    let mut packed = Vec::with_capacity(phases.len() * conv.groups);
    for phase in phases.iter().filter(|phase| !phase.taps.is_empty()) {
        for group in 0..conv.groups {
            let (data, others) = rest.split_at_mut(phase.panels_len::<T>(conv));
            rest = others;
            packed.push((phase, group, phase.pack(conv, group, weight, kernel, data)));
        }
    }
    let group = POSITIONS.div_ceil(g.positions());
    let (input, output) = (group * g.input_len(), group * g.positions() * out_channels);
    dx.par_chunks_mut(input).zip(dy.par_chunks(output)).for_each(|(dx, dy)| {
        let lane = &mut *lanes.take();
        let dy = padded.pad(dy, &mut lane.images);
        if !accumulate && phases.iter().any(|phase| phase.taps.is_empty()) {
            dx.fill(T::ZERO);
        }
        let source = PaddedGradient { padded: &padded, dy };
        for (phase, group, panels) in &packed {
            phase.correlate(conv, source, *group, panels, Epilogue::adding(accumulate), dx);
        }
    });
}

/// Lines and columns before the first output that an input pixel may need, for one axis.
fn before(g: &Geometry, axis: usize) -> usize {
    ((g.kernel[axis] - 1) * g.dilation[axis]).saturating_sub(g.padding[axis]).div_ceil(g.stride[axis])
}

fn padded(g: &Geometry, out_channels: usize) -> Padded {
    let last = |axis: usize| (g.input[axis] - 1 + g.padding[axis]) / g.stride[axis];
    let after = [0, 1].map(|axis| (last(axis) + 1).saturating_sub(g.output[axis]));
    Padded::new(out_channels, g.output, [before(g, 0), before(g, 1)], after)
}

fn phases(g: &Geometry) -> Vec<Phase> {
    let taps = |axis: usize, first: usize| {
        let shift = move |tap: &usize| tap * g.dilation[axis] % g.stride[axis];
        let reached = move |tap: &usize| (first + g.padding[axis]) % g.stride[axis] == shift(tap);
        (0..g.kernel[axis]).filter(reached)
    };
    let firsts = |axis: usize| 0..g.stride[axis].min(g.input[axis]);
    let phase = |first: [usize; 2]| Phase {
        first,
        pixels: [0, 1].map(|axis| (g.input[axis] - first[axis]).div_ceil(g.stride[axis])),
        taps: taps(0, first[0]).flat_map(|ky| taps(1, first[1]).map(move |kx| [ky, kx])).collect(),
    };
    firsts(0).flat_map(|y| firsts(1).map(move |x| phase([y, x]))).collect()
}

impl Phase {
    fn panels_len<T: Float>(&self, conv: &Conv) -> usize {
        let (inputs, outputs) = conv.of_group();
        Panels::<T>::len(self.taps.len() * outputs, inputs)
    }

    /// A group's weights of the phase's offsets as panels: (offset, output channel) x input channel.
    fn pack<'p, T: Float>(
        &self,
        conv: &Conv,
        group: usize,
        weight: &[T],
        kernel: &mut Vec<T>,
        data: &'p mut [T],
    ) -> Panels<'p, T> {
        let (g, (inputs, outputs)) = (&conv.geometry, conv.of_group());
        let weight = &weight[group * outputs * conv.kernel_len()..][..outputs * conv.kernel_len()];
        let kernel = scratch(kernel, self.taps.len() * outputs * inputs);
        for ([ky, kx], kernel) in self.taps.iter().zip(kernel.chunks_exact_mut(outputs * inputs)) {
            let start = (ky * g.kernel[1] + kx) * inputs;
            for (row, window) in kernel.chunks_exact_mut(inputs).zip(weight.chunks_exact(conv.kernel_len())) {
                row.copy_from_slice(&window[start..start + inputs]);
            }
        }
        Panels::pack_into(Matrix::new(kernel, self.taps.len() * outputs, inputs), data)
    }

    /// The gradient of this phase's pixels in a group's channels; `dy` with its padding.
    fn correlate<T: Float>(
        &self,
        conv: &Conv,
        PaddedGradient { padded, dy }: PaddedGradient<'_, T>,
        group: usize,
        panels: &Panels<T>,
        epilogue: Epilogue<T>,
        dx: &mut [T],
    ) {
        let (g, width, (inputs, outputs)) = (&conv.geometry, panels.tile.columns, conv.of_group());
        let depth = padded.channels();
        // The output that sees pixel `first` under an offset is (first + padding - offset) / stride, a whole number.
        let source = |axis: usize, tap: usize| {
            let offset = tap * g.dilation[axis];
            (before(g, axis) * g.stride[axis] + self.first[axis] + g.padding[axis] - offset) / g.stride[axis]
        };
        let starts = self.taps.iter().map(|[ky, kx]| {
            let pixel = source(0, *ky) * padded.line() + source(1, *kx) * depth;
            pixel + group * outputs
        });
        let per_image = self.pixels[0] * self.pixels[1];
        let count = dx.len() / g.input_len() * per_image;
        let pixel = |position: usize| {
            let (image, within) = (position / per_image, position % per_image);
            (image, within / self.pixels[1], within % self.pixels[1])
        };
        let window = |position: usize| {
            let (image, y, x) = pixel(position);
            image * padded.len() + y * padded.line() + x * depth
        };
        window_sums((starts, outputs), dy, panels, count, window, |sums, top, panel| {
            let rows: [usize; ROWS] = std::array::from_fn(|r| {
                let (image, y, x) = pixel((top + r).min(count - 1));
                let (y, x) = (self.first[0] + y * g.stride[0], self.first[1] + x * g.stride[1]);
                image * g.input_len() + (y * g.input[1] + x) * g.channels
            });
            let rows = &rows[..ROWS.min(count - top)];
            let column = group * inputs + panel.column;
            epilogue.write(sums, width, &TileSpan { rows, column, columns: panel.columns }, dx);
        });
    }
}
