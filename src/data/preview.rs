//! A few examples of a dataset, small enough to be shown: does the file hold what its owner thinks it does?

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::labels::Labels;
use super::store::Pixels;
use crate::domain::dataset::Example;

/// Most examples that are shown.
const EXAMPLES: usize = 10;
/// Most values that are shown of an example that is no image.
const VALUES: usize = 8;
/// Most pixels that an image is wide or high; larger ones are thinned out.
const SIDE: usize = 32;

/// Picks examples out of the stream, evenly spread, so that files in class order show all their classes.
#[derive(Debug)]
pub(super) struct Preview {
    view: View,
    elements: usize,
    /// Index of each example and what is shown of it, once it has come.
    picked: Vec<(usize, Vec<f32>)>,
}

/// Which elements of an example are shown.
#[derive(Debug, Clone, Copy)]
enum View {
    /// Its first few.
    Values(usize),
    /// One in `step` pixels each way of all its channels: 1 (grey) or 3 (colour).
    Image { channels: usize, size: [usize; 2], step: usize },
}

impl Preview {
    /// For `count` examples of `shape`.
    pub(super) fn new(count: usize, shape: &[usize]) -> Self {
        let elements = shape.iter().product();
        let view = match *shape {
            [channels @ (1 | 3), height, width] => {
                View::Image { channels, size: [height, width], step: height.max(width).div_ceil(SIDE) }
            }
            _ => View::Values(VALUES.min(elements)),
        };
        let shown = EXAMPLES.min(count);
        let picked = (0..shown).map(|pick| (pick * count / shown, Vec::new())).collect();
        Self { view, elements, picked }
    }

    /// The same examples, their single channel seen three times.
    pub(super) fn in_colour(self, shape: &[usize]) -> Self {
        let mut colour = Self::new(0, shape);
        colour.picked = self.picked.into_iter().map(|(index, grey)| (index, grey.repeat(3))).collect();
        colour
    }

    /// Looks at whole examples, the first of them number `first`.
    pub(super) fn look(&mut self, first: usize, block: Pixels<'_>) {
        let examples = match block {
            Pixels::U8(pixels) => pixels.len(),
            Pixels::F32(pixels) => pixels.len(),
        } / self.elements;
        for (index, shown) in &mut self.picked {
            let Some(at) = index.checked_sub(first).filter(|at| *at < examples) else { continue };
            let range = at * self.elements..(at + 1) * self.elements;
            *shown = match block {
                Pixels::U8(pixels) => self.view.of(&pixels[range], |value| f32::from(*value)),
                Pixels::F32(pixels) => self.view.of(&pixels[range], |value| *value),
            };
        }
    }

    /// The examples that came, with their labels.
    pub(super) fn finish(self, labels: &Labels) -> Vec<Example> {
        let came = self.picked.into_iter().filter(|(_, shown)| !shown.is_empty());
        came.filter_map(|(index, shown)| {
            let (values, image) = match self.view {
                View::Values(_) => (shown, None),
                View::Image { .. } => (Vec::new(), self.view.png(&shown)),
            };
            let (label, targets) = match labels {
                Labels::Classes(classes) => (Some(*classes.get(index)?), Vec::new()),
                Labels::Flags(rows) | Labels::Numbers(rows) => {
                    (None, rows.rows().nth(index)?.iter().take(VALUES).copied().collect())
                }
                Labels::Absent(_) => (None, Vec::new()),
            };
            Some(Example { index, label, targets, values, image })
        })
        .collect()
    }
}

impl View {
    fn of<T>(self, example: &[T], value: impl Fn(&T) -> f32) -> Vec<f32> {
        match self {
            Self::Values(count) => example[..count].iter().map(value).collect(),
            Self::Image { size: [height, width], step, .. } => {
                let planes = example.chunks_exact(height * width);
                let rows = planes.flat_map(|plane| plane.chunks_exact(width).step_by(step));
                rows.flat_map(|row| row.iter().step_by(step)).map(value).collect()
            }
        }
    }

    /// A `data:` address of the picture; its darkest value is black and its brightest white.
    fn png(self, shown: &[f32]) -> Option<String> {
        let Self::Image { channels, size, step } = self else { return None };
        let [height, width] = size.map(|side| side.div_ceil(step));
        let low = shown.iter().copied().fold(f32::INFINITY, f32::min);
        let high = shown.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
        let positions = (0..height * width).flat_map(|pixel| (0..channels).map(move |c| c * height * width + pixel));
        let bytes: Vec<u8> = positions.map(|at| ((shown[at] - low) * scale).round() as u8).collect();
        let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut png = Vec::new();
        let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
        PngEncoder::new(&mut png).write_image(&bytes, width, height, colour).ok()?;
        Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(example: &Example) -> image::DynamicImage {
        let png = example.image.as_ref().expect("an image").strip_prefix("data:image/png;base64,").expect("a PNG");
        image::load_from_memory(&STANDARD.decode(png).expect("base64")).expect("a picture")
    }

    #[test]
    fn vectors_show_their_first_values_and_examples_are_spread() {
        let mut preview = Preview::new(40, &[9]);
        for first in 0..40 {
            let vector: Vec<f32> = (0..9).map(|value| (first * 100 + value) as f32).collect();
            preview.look(first, Pixels::F32(&vector));
        }
        let examples = preview.finish(&Labels::Classes((0..40).collect()));
        assert_eq!(
            examples.iter().map(|example| example.index).collect::<Vec<_>>(),
            (0..40).step_by(4).collect::<Vec<_>>()
        );
        assert_eq!(examples[1].label, Some(4));
        assert_eq!(examples[1].values, [400.0, 401.0, 402.0, 403.0, 404.0, 405.0, 406.0, 407.0]);
        assert_eq!(examples[1].image, None);
    }

    #[test]
    fn images_are_thinned_out_and_keep_their_colours() {
        let mut preview = Preview::new(1, &[3, 40, 70]);
        let plane = |value: u8| vec![value; 40 * 70];
        preview.look(0, Pixels::U8(&[plane(0), plane(51), plane(255)].concat()));
        let picture = decode(&preview.finish(&Labels::Classes(vec![0]))[0]).to_rgb8();
        assert_eq!((picture.width(), picture.height()), (24, 14));
        assert!(picture.pixels().all(|pixel| pixel.0 == [0, 51, 255]));
    }

    #[test]
    fn grey_images_among_coloured_ones_stay_grey() {
        let mut preview = Preview::new(2, &[1, 1, 2]);
        preview.look(0, Pixels::U8(&[0, 255]));
        let mut preview = preview.in_colour(&[3, 1, 2]);
        preview.look(1, Pixels::U8(&[255, 0, 0, 0, 0, 255]));
        let examples = preview.finish(&Labels::Classes(vec![0, 1]));
        let pixels = |example| decode(example).to_rgb8().pixels().map(|pixel| pixel.0).collect::<Vec<_>>();
        assert_eq!(pixels(&examples[0]), [[0, 0, 0], [255, 255, 255]]);
        assert_eq!(pixels(&examples[1]), [[255, 0, 0], [0, 0, 255]]);
    }
}
