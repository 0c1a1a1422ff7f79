//! Sums of an image's pixels, as adaptive pools are taken apart.

/// Largest difference of two shares that are the same.
const TOLERANCE: f64 = 1e-6;

/// A sum of pixels: their places in each channel, row by row, and their factors.
pub(super) type Sum = Vec<(usize, f64)>;

/// Sums of an image's pixels, the same for each channel, by their places along `dims`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PixelSums {
    pub(super) dims: Vec<usize>,
    pub(super) sums: Vec<Sum>,
}

impl PixelSums {
    /// The sums at other places: each of `dims` is as many of these as `from` lists for it.
    fn regrouped(&self, dims: Vec<usize>, from: impl Fn(&[usize]) -> Vec<usize>, factor: f64) -> Self {
        let count = dims.iter().product();
        let sums = (0..count).map(|place| {
            let own = from(&coordinates(place, &dims)).into_iter().flat_map(|place| &self.sums[place]);
            own.map(|(pixel, own)| (*pixel, own * factor)).collect()
        });
        Self { sums: sums.collect(), dims }
    }

    /// Pixels in all sums.
    pub(super) fn terms(&self) -> usize {
        self.sums.iter().map(Vec::len).sum()
    }

    /// Whether they are the means of PyTorch's adaptive pool of an image of this size.
    pub(super) fn are_means(&self, height: usize, width: usize) -> bool {
        let [rows, columns] = self.dims[..] else { return false };
        let part =
            |at: usize, outputs: usize, inputs: usize| (at * inputs / outputs, ((at + 1) * inputs).div_ceil(outputs));
        self.sums.iter().enumerate().all(|(place, sum)| {
            let (top, bottom) = part(place / columns, rows, height);
            let (left, right) = part(place % columns, columns, width);
            let share = 1.0 / ((bottom - top) * (right - left)) as f64;
            let mut own = sum.clone();
            own.sort_by_key(|(pixel, _)| *pixel);
            let expected = (top..bottom).flat_map(|row| (left..right).map(move |column| row * width + column));
            own.len() == (bottom - top) * (right - left)
                && own.iter().zip(expected).all(|((pixel, factor), expected)| {
                    *pixel == expected && (factor - share).abs() <= TOLERANCE * share
                })
        })
    }
}

/// Where the place with this number is along each axis.
fn coordinates(place: usize, dims: &[usize]) -> Vec<usize> {
    let mut rest = place;
    let mut all: Vec<usize> = dims.iter().rev().map(|len| (rest % len, rest /= len).0).collect();
    all.reverse();
    all
}

/// The number of a place.
fn number(coordinates: &[usize], dims: &[usize]) -> usize {
    coordinates.iter().zip(dims).fold(0, |number, (at, len)| number * len + at)
}

/// The sums without some axes: over the places of each that `range` says.
pub(super) fn reduced(
    pixels: &PixelSums,
    axes: &[usize],
    range: impl Fn(usize) -> std::ops::Range<usize>,
    factor: f64,
) -> PixelSums {
    let kept: Vec<usize> = (0..pixels.dims.len()).filter(|axis| !axes.contains(axis)).collect();
    let dims = kept.iter().map(|axis| pixels.dims[*axis]).collect();
    let from = |place: &[usize]| {
        let mut all = vec![Vec::new()];
        for axis in 0..pixels.dims.len() {
            let own = match kept.iter().position(|kept| *kept == axis) {
                Some(at) => place[at]..place[at] + 1,
                None => range(axis),
            };
            all = all
                .iter()
                .flat_map(|head: &Vec<usize>| own.clone().map(move |at| [&head[..], &[at]].concat()))
                .collect();
        }
        all.iter().map(|place| number(place, &pixels.dims)).collect()
    };
    pixels.regrouped(dims, from, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels of a 3 x 3 image in four overlapping parts of 2 x 2, (rows, of a part, columns, of a part).
    fn parts() -> PixelSums {
        let dims = vec![2; 4];
        let pixel = |place: usize| {
            let [row, down, column, right] = coordinates(place, &dims)[..] else { return Vec::new() };
            vec![((row + down) * 3 + column + right, 1.0)]
        };
        PixelSums { sums: (0..16).map(pixel).collect(), dims: dims.clone() }
    }

    #[test]
    fn means_of_overlapping_parts_are_found() {
        let means = reduced(&parts(), &[1, 3], |_| 0..2, 0.25);
        assert_eq!(means.dims, [2, 2]);
        assert!(means.are_means(3, 3));
        assert!(!reduced(&parts(), &[1, 3], |_| 0..2, 1.0).are_means(3, 3), "sums are no means");
        assert!(!reduced(&parts(), &[1, 3], |_| 0..1, 1.0).are_means(3, 3), "nor are corners");
        assert!(!reduced(&parts(), &[2, 3], |_| 0..2, 0.25).are_means(3, 3), "nor other parts");
        assert!(!means.are_means(4, 4) && !parts().are_means(3, 3));
    }

    #[test]
    fn one_pixel_may_be_the_mean_of_many_places() {
        let pixels = PixelSums { dims: vec![2, 3], sums: vec![vec![(0, 1.0)]; 6] };
        assert!(pixels.are_means(1, 1));
        assert!(!pixels.are_means(2, 1));
    }
}
