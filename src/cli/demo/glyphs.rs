//! The demo's own data: ten letters, drawn with strokes, bent, blurred by noise and crossed by stray lines. Hard enough that
//! small networks differ in what they get wrong, which is what an ensemble lives on.

use std::io::{self, Seek, Write};
use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// Height and width of an image.
pub(super) const SIZE: usize = 20;

type Point = [f32; 2];

/// The letters and their strokes, on the unit square with y downwards.
const LETTERS: [(&str, &[&[Point]]); 10] = [
    ("E", &[&[[0.8, 0.1], [0.2, 0.1], [0.2, 0.9], [0.8, 0.9]], &[[0.2, 0.5], [0.7, 0.5]]]),
    ("F", &[&[[0.8, 0.1], [0.2, 0.1], [0.2, 0.9]], &[[0.2, 0.5], [0.7, 0.5]]]),
    ("H", &[&[[0.2, 0.1], [0.2, 0.9]], &[[0.8, 0.1], [0.8, 0.9]], &[[0.2, 0.5], [0.8, 0.5]]]),
    ("K", &[&[[0.2, 0.1], [0.2, 0.9]], &[[0.8, 0.1], [0.2, 0.5], [0.8, 0.9]]]),
    ("L", &[&[[0.2, 0.1], [0.2, 0.9], [0.8, 0.9]]]),
    ("T", &[&[[0.1, 0.1], [0.9, 0.1]], &[[0.5, 0.1], [0.5, 0.9]]]),
    ("V", &[&[[0.1, 0.1], [0.5, 0.9], [0.9, 0.1]]]),
    ("X", &[&[[0.1, 0.1], [0.9, 0.9]], &[[0.9, 0.1], [0.1, 0.9]]]),
    ("Y", &[&[[0.1, 0.1], [0.5, 0.5], [0.9, 0.1]], &[[0.5, 0.5], [0.5, 0.9]]]),
    ("Z", &[&[[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]]),
];

/// Images (N x SIZE x SIZE) and their labels.
#[derive(Debug)]
pub(super) struct Glyphs {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// Draws `count` images; the same seed draws the same ones.
pub(super) fn draw(count: usize, seed: u64) -> Glyphs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut glyphs = Glyphs { pixels: Vec::with_capacity(count * SIZE * SIZE), labels: Vec::with_capacity(count) };
    for _ in 0..count {
        let label = rng.random_range(0..LETTERS.len());
        glyphs.labels.push(label as u8);
        image(LETTERS[label].1, &mut rng, &mut glyphs.pixels);
    }
    glyphs
}

fn image(strokes: &[&[Point]], rng: &mut ChaCha8Rng, pixels: &mut Vec<u8>) {
    let place = Placement::random(rng);
    let jitter = |point: &Point, rng: &mut ChaCha8Rng| {
        place.apply([point[0] + normal(rng) * 0.05, point[1] + normal(rng) * 0.05])
    };
    let mut segments: Vec<(Point, Point, f32)> = Vec::new();
    let ink = uniform(rng, 0.45..1.0);
    for stroke in strokes {
        let points: Vec<Point> = stroke.iter().map(|point| jitter(point, rng)).collect();
        segments.extend(points.windows(2).map(|pair| (pair[0], pair[1], ink)));
    }
    for _ in 0..rng.random_range(0..3) {
        let mut end = || [uniform(rng, 0.0..1.0), uniform(rng, 0.0..1.0)];
        let (from, to) = (end(), end());
        segments.push((from, to, uniform(rng, 0.2..0.6)));
    }
    let width = uniform(rng, 0.03..0.07);
    let noise = uniform(rng, 0.05..0.22);
    for row in 0..SIZE {
        for column in 0..SIZE {
            let at = [(column as f32 + 0.5) / SIZE as f32, (row as f32 + 0.5) / SIZE as f32];
            let drawn = segments.iter().map(|(from, to, ink)| {
                let cover = 1.0 - (distance(at, *from, *to) - width) * SIZE as f32;
                cover.clamp(0.0, 1.0) * ink
            });
            let value = drawn.fold(0.0, f32::max) + normal(rng) * noise;
            pixels.push((value.clamp(0.0, 1.0) * 255.0) as u8);
        }
    }
}

/// A random affine map of the unit square around its centre.
struct Placement {
    matrix: [[f32; 2]; 2],
    shift: Point,
}

impl Placement {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let (sin, cos) = uniform(rng, -0.4..0.4).sin_cos();
        let (scale_x, scale_y) = (uniform(rng, 0.5..0.95), uniform(rng, 0.5..0.95));
        let shear = uniform(rng, -0.3..0.3);
        let matrix = [[cos * scale_x, (cos * shear - sin) * scale_y], [sin * scale_x, (sin * shear + cos) * scale_y]];
        Self { matrix, shift: [0.5 + uniform(rng, -0.14..0.14), 0.5 + uniform(rng, -0.14..0.14)] }
    }

    fn apply(&self, point: Point) -> Point {
        let centred = [point[0] - 0.5, point[1] - 0.5];
        let axis = |i: usize| self.matrix[i][0] * centred[0] + self.matrix[i][1] * centred[1] + self.shift[i];
        [axis(0), axis(1)]
    }
}

fn uniform(rng: &mut ChaCha8Rng, range: Range<f32>) -> f32 {
    rng.random_range(range)
}

/// Near enough to a standard normal: the sum of twelve uniforms, less their mean.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Distance of `p` from the segment between `a` and `b`.
fn distance(p: Point, a: Point, b: Point) -> f32 {
    let (along, to) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let t = if length > 0.0 { ((to[0] * along[0] + to[1] * along[1]) / length).clamp(0.0, 1.0) } else { 0.0 };
    (to[0] - t * along[0]).hypot(to[1] - t * along[1])
}

/// Writes one `.npz` with the arrays `x` and `y`, and `x_test` and `y_test` if there is a test split.
///
/// # Errors
/// What `out` returns.
pub(super) fn write_npz(train: &Glyphs, test: Option<&Glyphs>, out: impl Write + Seek) -> io::Result<()> {
    let mut archive = ZipWriter::new(out);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let splits = std::iter::once((train, "")).chain(test.map(|test| (test, "_test")));
    for (split, suffix) in splits {
        let count = split.labels.len();
        for (name, shape, bytes) in
            [("x", format!("({count}, {SIZE}, {SIZE})"), &split.pixels), ("y", format!("({count},)"), &split.labels)]
        {
            archive.start_file(format!("{name}{suffix}.npy"), options)?;
            archive.write_all(&npy_header(&shape))?;
            archive.write_all(bytes)?;
        }
    }
    archive.finish()?.flush()
}

/// The header of a NumPy array of unsigned bytes (format 1.0), padded to a multiple of 64.
fn npy_header(shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}
