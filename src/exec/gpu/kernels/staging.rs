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
    /// For each example how far below and to the right of the image its piece begins, and whether it is mirrored (1 or 0), `i32`
    /// each; see [`ImageView`](crate::data::augment::ImageView).
    pub views: Option<Place>,
}

/// `(byte / 255 - mean) / deviation`, seen as the views say, black (byte 0) outside of the image. Where `y` has more channels than
/// the images, theirs are repeated one after another.
pub fn gather(tape: &mut Tape, gather: Gather, y: Values) {
    let [channels, height, width] = gather.shape;
    let sizes = [pieces(tape, y), per_row(tape, y), y.channels, channels, height, width].map(Argument::from);
    let Gather { pixels, indices, affine, views, .. } = gather;
    let pointers: [Argument; 5] = [pixels.into(), indices.into(), affine.into(), views.into(), y.into()];
    spread(tape, "gather", pieces(tape, y), [&pointers[..], &sizes].concat());
}
