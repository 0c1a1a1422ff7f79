//! Inputs as the host has them become values of the network.

use crate::exec::gpu::kernels::elementwise::{per_row, pieces, spread};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};

/// `images` (f32, examples x channels x positions) with their channels behind the positions.
pub fn stage(tape: &mut Tape, images: Place, y: Values) {
    let sizes = [pieces(tape, y), per_row(tape, y), y.channels, y.positions].map(Argument::from);
    let arguments = [images.into(), y.into()].into_iter().chain(sizes).collect();
    spread(tape, "stage", pieces(tape, y), arguments);
}

/// Images of bytes on the device, and which of them are wanted how.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// Images x channels x height x width, `u8`.
    pub pixels: Place,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// Which image each example is, `u32`.
    pub indices: Place,
    /// Mean and deviation of each channel of the network's input, f32 in pairs.
    pub affine: Place,
    /// For each example how far below and to the right of the image its piece begins, and whether it is mirrored (1 or
    /// 0), `i32` each; see [`ImageView`](crate::data::augment::ImageView).
    pub views: Option<Place>,
}

/// `(byte / 255 - mean) / deviation`, seen as the views say, black (byte 0) outside of the image. Where `y` has more
/// channels than the images, theirs are repeated one after another.
pub fn gather(tape: &mut Tape, gather: Gather, y: Values) {
    let [channels, height, width] = gather.shape;
    let images = gather.pixels.bytes / (channels * height * width);
    let sizes = [pieces(tape, y), per_row(tape, y), y.channels, channels, height, width, images].map(Argument::from);
    let Gather { pixels, indices, affine, views, .. } = gather;
    let pointers: [Argument; 5] = [pixels.into(), indices.into(), affine.into(), views.into(), y.into()];
    spread(tape, "gather", pieces(tape, y), [&pointers[..], &sizes].concat());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::{Bench, STORAGES};
    use crate::exec::gpu::tape::Storage;

    #[test]
    fn channels_move_behind_the_positions() {
        for storage in STORAGES {
            for [examples, channels, positions] in [[1, 1, 1], [3, 3, 35], [2, 37, 9], [5, 8, 1]] {
                let mut bench = Bench::new(storage);
                let (images, numbers) = bench.weights(examples * channels * positions);
                let y = bench.output([examples, positions, channels]);
                stage(&mut bench.tape, images, y);
                bench.play();
                let at = |example, p, c| numbers[(example * channels + c) * positions + p];
                let each = (0..examples).flat_map(|example| (0..positions).map(move |p| (example, p)));
                let all = each.flat_map(|(example, p)| (0..channels).map(move |c| (example, p, c)));
                bench.check("stage", y, &all.map(|(example, p, c)| at(example, p, c)).collect::<Vec<f64>>());
            }
        }
    }

    /// The formula, bit for bit: views as pixels are padded, cut and mirrored one by one.
    #[test]
    fn bytes_are_seen_as_on_the_host() {
        for (stored, channels, seen) in [(3, 3, true), (1, 3, true), (1, 37, false), (3, 3, false), (1, 1, true)] {
            let (height, width) = (5, 4);
            let mut bench = Bench::new(Storage::F32);
            let pixels: Vec<u8> = (0..6 * stored * 20).map(|at| (at * 89 % 256) as u8).collect();
            let place = bench.device.place(pixels.len());
            bench.device.put_bytes(place, &pixels);
            let (indices, views) = ([4, 0, 5], [[0, 0, 0], [-2, 3, 1], [1, -5, 1]]);
            let affine: Vec<f32> = (0..channels).flat_map(|c| [0.1 * c as f32, 0.3 + c as f32]).collect();
            let affine_place = bench.device.numbers(&affine);
            let view_words: Vec<u32> = views.as_flattened().iter().map(|word: &i32| word.cast_unsigned()).collect();
            let (index_place, view_place) = (bench.device.words(&indices), bench.device.words(&view_words));
            let y = bench.output([3, height * width, channels]);
            let images = Gather {
                pixels: place,
                shape: [stored, height, width],
                indices: index_place,
                affine: affine_place,
                views: seen.then_some(view_place),
            };
            gather(&mut bench.tape, images, y);
            bench.play();
            let mut got = bench.device.read(y, Storage::F32).into_iter();
            for (index, view) in indices.into_iter().zip(views) {
                let [down, right, flip] = if seen { view } else { [0; 3] };
                for (line, column) in (0..height as i32).flat_map(|line| (0..width as i32).map(move |c| (line, c))) {
                    let column = if flip == 1 { width as i32 - 1 - column } else { column };
                    let (line, column) = (line + down, column + right);
                    let inside = (0..height as i32).contains(&line) && (0..width as i32).contains(&column);
                    for c in 0..channels {
                        let at = (index as usize * stored + c % stored) * 20 + (line * 4 + column) as usize % 20;
                        let byte = if inside { pixels[at] } else { 0 };
                        let expected = (f32::from(byte) / 255.0 - affine[2 * c]) / affine[2 * c + 1];
                        assert_eq!(got.next().map(f32::to_bits), Some(expected.to_bits()));
                    }
                }
            }
        }
    }
}
