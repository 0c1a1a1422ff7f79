//! Random crop with zero padding and random horizontal flip: what torchvision's `RandomCrop(size, padding)` and, behind
//! it, `RandomHorizontalFlip()` do to an image as it is stored. The border is black before normalisation.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::settings::Augment;

/// Sets the draws of views apart from all others that have the same seed.
const PURPOSE: &[u8; 8] = b"views   ";

/// Channels, height, width.
pub type ImageShape = [usize; 3];

/// The views of one epoch. Each follows from the seed, the epoch and the example's index alone, whatever was drawn before.
#[derive(Debug, Clone)]
pub struct Views {
    augment: Augment,
    generator: ChaCha8Rng,
}

/// How one image is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageView {
    /// How far below and to the right of the image its piece begins.
    pub shift: [isize; 2],
    /// Whether the piece is mirrored.
    pub flip: bool,
}

impl Views {
    /// Those of `epoch` in the training of this `seed`.
    #[must_use]
    pub fn new(augment: Augment, seed: u64, epoch: usize) -> Self {
        let mut key = [0; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([seed.to_le_bytes(), epoch.to_le_bytes(), *PURPOSE]) {
            part.copy_from_slice(&value);
        }
        Self { augment, generator: ChaCha8Rng::from_seed(key) }
    }

    /// The view of the example `index`: all places of the piece are equally likely, and so is every second one mirrored.
    pub fn of(&mut self, index: usize) -> ImageView {
        self.generator.set_stream(index as u64);
        self.generator.set_word_pos(0);
        let padding = self.augment.crop_padding;
        // From 32 random bits by multiplication, spelled out so that no update of a library changes a view.
        let places = 2 * padding as u64 + 1;
        let mut place = || ((u64::from(self.generator.next_u32()) * places) >> 32) as isize - padding as isize;
        let shift = [place(), place()];
        ImageView { shift, flip: self.augment.flip && self.generator.next_u32() >> 31 == 1 }
    }
}

impl ImageView {
    /// Turns `image` (channels x height x width, row-major) into this view of it; what lies outside of it becomes
    /// `black` of its channel. In place: allocates nothing.
    pub fn apply(self, image: &mut [f32], [_, height, width]: ImageShape, black: impl Fn(usize) -> f32) {
        for (channel, plane) in image.chunks_exact_mut(height * width).enumerate() {
            self.shift(plane, height, width, black(channel));
            if self.flip {
                plane.chunks_exact_mut(width).for_each(<[f32]>::reverse);
            }
        }
    }

    fn shift(self, plane: &mut [f32], height: usize, width: usize, black: f32) {
        let [down, right] = self.shift;
        if [down, right] == [0, 0] {
            return;
        }
        let from = right.unsigned_abs().min(width);
        let (kept, source, target) = if right > 0 { (width - from, from, 0) } else { (width - from, 0, from) };
        for step in 0..height {
            // Rows are read before they are written.
            let row = if down >= 0 { step } else { height - 1 - step };
            let start = row * width;
            match row.checked_add_signed(down).filter(|read| *read < height) {
                Some(read) => {
                    let read = read * width + source;
                    plane.copy_within(read..read + kept, start + target);
                    plane[start..start + target].fill(black);
                    plane[start + target + kept..start + width].fill(black);
                }
                None => plane[start..start + width].fill(black),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = [2, 3, 4];

    /// Pads, cuts and mirrors pixel by pixel.
    fn naive(view: ImageView, image: &[f32], [channels, height, width]: ImageShape, black: [f32; 2]) -> Vec<f32> {
        let mut out = Vec::new();
        for (channel, black) in black.into_iter().take(channels).enumerate() {
            for y in 0..height as isize {
                for x in 0..width as isize {
                    let column = if view.flip { width as isize - 1 - x } else { x };
                    let (y, x) = (y + view.shift[0], column + view.shift[1]);
                    let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
                    let at = |y: isize, x: isize| (channel * height + y as usize) * width + x as usize;
                    out.push(if inside { image[at(y, x)] } else { black });
                }
            }
        }
        out
    }

    #[test]
    fn every_view_is_the_naive_one() {
        let image: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let black = [-1.0, -2.0];
        for down in -4..=4 {
            for right in -5..=5 {
                for flip in [false, true] {
                    let view = ImageView { shift: [down, right], flip };
                    let mut seen = image.clone();
                    view.apply(&mut seen, SHAPE, |channel| black[channel]);
                    assert_eq!(seen, naive(view, &image, SHAPE, black), "{view:?}");
                }
            }
        }
    }

    #[test]
    fn views_follow_from_seed_epoch_and_index() {
        let augment = Augment { crop_padding: 2, flip: true };
        let all = |seed, epoch| -> Vec<ImageView> {
            let mut views = Views::new(augment, seed, epoch);
            (0..2000).map(|index| views.of(index)).collect()
        };
        let first = all(1, 1);
        let mut views = Views::new(augment, 1, 1);
        assert!((0..2000).rev().all(|index| views.of(index) == first[index]), "in any order");
        for other in [all(2, 1), all(1, 2)] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 100, "{same} alike; of independent views one in fifty");
        }
    }

    #[test]
    fn all_views_are_equally_likely() {
        let mut views = Views::new(Augment { crop_padding: 1, flip: true }, 3, 1);
        let mut seen = std::collections::BTreeMap::new();
        for index in 0..18_000 {
            let ImageView { shift, flip } = views.of(index);
            *seen.entry((shift, flip)).or_insert(0_u32) += 1;
        }
        assert_eq!(seen.len(), 18);
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
        let mut still = Views::new(Augment { crop_padding: 0, flip: true }, 3, 1);
        assert!((0..100).all(|index| still.of(index).shift == [0, 0]));
        let mut upright = Views::new(Augment { crop_padding: 1, flip: false }, 3, 1);
        assert!((0..100).all(|index| !upright.of(index).flip));
    }

    #[test]
    fn views_stay_the_same_for_good() {
        let mut views = Views::new(Augment { crop_padding: 4, flip: true }, 0, 1);
        let seen: Vec<([isize; 2], bool)> =
            (0..4).map(|index| views.of(index)).map(|view| (view.shift, view.flip)).collect();
        assert_eq!(seen, [([-2, -3], false), ([-4, 4], true), ([0, -2], false), ([1, 4], true)]);
    }
}
