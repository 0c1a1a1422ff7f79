//! Products and convolutions in plain loops, with sums in f64.

use half::bf16;

use super::memory::Memories;
use crate::exec::gpu::tape::{Convolution, ConvolutionPass, Factor, Place, Product, Storage};
use crate::kernels::Geometry;

/// Numbers in a place, by their index.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    place: Place,
    storage: Storage,
}

impl Numbers {
    fn get(self, memories: &Memories, index: usize) -> f64 {
        let bytes = memories.bytes(self.place.part(index * self.storage.bytes(), self.storage.bytes()));
        match *bytes {
            [a, b] => bf16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => unreachable!("2 or 4 bytes"),
        }
    }

    /// Stores `value`, or adds it to what is there.
    fn put(self, memories: &mut Memories, index: usize, value: f64, accumulate: bool) {
        let value = if accumulate { self.get(memories, index) + value } else { value } as f32;
        let bytes = memories.bytes_mut(self.place.part(index * self.storage.bytes(), self.storage.bytes()));
        match self.storage {
            Storage::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
            Storage::Bf16 => bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }

    fn all(self, memories: &Memories, count: usize) -> Vec<f64> {
        (0..count).map(|index| self.get(memories, index)).collect()
    }
}

impl Factor {
    fn numbers(self) -> Numbers {
        Numbers { place: self.place, storage: self.storage }
    }

    fn index(self, batch: usize, row: usize, column: usize) -> usize {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        batch * self.step + row * self.stride + column
    }

    /// One matrix of a batch, dense.
    fn matrix(self, memories: &Memories, batch: usize, [rows, columns]: [usize; 2]) -> Vec<f64> {
        let at = |index| self.numbers().get(memories, self.index(batch, index / columns, index % columns));
        (0..rows * columns).map(at).collect()
    }
}

/// What [`Product`] says.
pub(super) fn product(memories: &mut Memories, product: &Product) {
    let [rows, columns, depth] = product.sizes;
    assert!(!product.result.transposed, "a result is never transposed");
    for batch in 0..product.batch {
        let left = product.left.matrix(memories, batch, [rows, depth]);
        let right = product.right.matrix(memories, batch, [depth, columns]);
        for (row, left) in left.chunks_exact(depth).enumerate() {
            let mut sums = vec![0.0; columns];
            for (left, right) in left.iter().zip(right.chunks_exact(columns)) {
                sums.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
            }
            for (column, sum) in sums.into_iter().enumerate() {
                put_result(memories, product, [batch, row, column], sum);
            }
        }
    }
}

fn put_result(memories: &mut Memories, product: &Product, [batch, row, column]: [usize; 3], sum: f64) {
    let (numbers, index) = (product.result.numbers(), product.result.index(batch, row, column));
    let mut value = f64::from(product.scale) * sum;
    if product.accumulate {
        value += numbers.get(memories, index);
    }
    if let Some(bias) = product.finish.bias {
        value += Numbers { place: bias, storage: product.result.storage }.get(memories, column);
    }
    if product.finish.relu && value < 0.0 {
        value = 0.0;
    }
    numbers.put(memories, index, value, false);
}

/// Indices into `x`, the weight and `y`, channels excluded, of all that meet in a convolution.
fn meetings(geometry: &Geometry, examples: usize) -> impl Iterator<Item = [usize; 3]> {
    let Geometry { input, output, kernel, stride, padding, dilation, .. } = *geometry;
    let along = move |axis: usize| {
        (0..output[axis]).flat_map(move |o| {
            (0..kernel[axis]).filter_map(move |k| {
                let at = (o * stride[axis] + k * dilation[axis]).checked_sub(padding[axis])?;
                (at < input[axis]).then_some([at, k, o])
            })
        })
    };
    (0..examples).flat_map(move |example| {
        along(0).flat_map(move |[x, k, y]| {
            along(1).map(move |[column, tap, out]| {
                let x = (example * input[0] + x) * input[1] + column;
                let y = (example * output[0] + y) * output[1] + out;
                [x, k * kernel[1] + tap, y]
            })
        })
    })
}

/// What [`Convolution`] says.
pub(super) fn convolution(memories: &mut Memories, convolution: &Convolution) {
    let Convolution { pass, geometry, out_channels, examples, storage, accumulate, .. } = *convolution;
    let channels = geometry.channels;
    let [x, weight, y] = [convolution.x, convolution.weight, convolution.y].map(|place| Numbers { place, storage });
    let sizes = [
        examples * geometry.input[0] * geometry.input[1] * channels,
        out_channels * geometry.taps() * channels,
        examples * geometry.positions() * out_channels,
    ];
    let (result, which) = match pass {
        ConvolutionPass::Forward => (y, 2),
        ConvolutionPass::Input => (x, 0),
        ConvolutionPass::Weight => (weight, 1),
    };
    let mut all: Vec<Vec<f64>> = [x, weight, y]
        .into_iter()
        .zip(sizes)
        .enumerate()
        .map(|(index, (numbers, size))| if index == which { vec![0.0; size] } else { numbers.all(memories, size) })
        .collect();
    for [pixel, tap, out] in meetings(&geometry, examples) {
        for o in 0..out_channels {
            let (at_w, at_y) = ((o * geometry.taps() + tap) * channels, out * out_channels + o);
            for c in 0..channels {
                let (at_x, at_w) = (pixel * channels + c, at_w + c);
                match pass {
                    ConvolutionPass::Forward => all[2][at_y] += all[0][at_x] * all[1][at_w],
                    ConvolutionPass::Input => all[0][at_x] += all[1][at_w] * all[2][at_y],
                    ConvolutionPass::Weight => all[1][at_w] += all[0][at_x] * all[2][at_y],
                }
            }
        }
    }
    for (index, value) in all.swap_remove(which).into_iter().enumerate() {
        result.put(memories, index, value, accumulate);
    }
}
