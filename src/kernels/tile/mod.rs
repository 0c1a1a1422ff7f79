//! The innermost loop of every product: one tile of 8 rows and a few vectors of columns, kept in registers.
//!
//! There is one implementation per instruction set, chosen when the program runs; the portable one is the reference.

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions on pointers")]
mod x86;

use crate::kernels::Float;

/// Rows of a tile.
pub(super) const ROWS: usize = 8;
/// Most columns of a tile.
pub(super) const MOST_COLUMNS: usize = 32;

/// Where the operands of a tile's sum lie: the sum runs over segments, and over `len` steps within each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'w> {
    /// Where each segment starts, in the left and in the right operand.
    starts: &'w [(usize, usize)],
    len: usize,
    /// Distance between two steps in the left and in the right operand.
    steps: (usize, usize),
    /// Highest position in the left and in the right operand, from a row's start on.
    reach: (usize, usize),
}

impl<'w> Walk<'w> {
    /// A sum over `starts.len() * len` products.
    ///
    /// # Panics
    /// When segments have no step: the loops take the first one without asking.
    pub(super) fn new(starts: &'w [(usize, usize)], len: usize, steps: (usize, usize)) -> Self {
        assert!(len > 0, "a segment without a step");
        let highest = starts.iter().fold((0, 0), |(a, b), start| (start.0.max(a), start.1.max(b)));
        let within = len - 1;
        Self { starts, len, steps, reach: (highest.0 + within * steps.0, highest.1 + within * steps.1) }
    }
}

/// `sums[r][c] += sum over steps of left[rows[r] + step] * right[step + c]`.
type Run<T> = unsafe fn(&Walk<'_>, &[usize; ROWS], *const T, *const T, *mut T);

/// A tile's inner loop for one width.
#[derive(Debug, Clone, Copy)]
pub struct Tile<T> {
    /// Columns.
    pub(super) columns: usize,
    run: Run<T>,
}

impl<T: Float> Tile<T> {
    /// Adds to `sums` (8 x columns, row-major) what `walk` walks through, for rows that start at `rows` in `left`.
    ///
    /// # Panics
    /// When a position lies outside its slice.
    #[inline]
    pub(super) fn add(&self, walk: &Walk, rows: &[usize; ROWS], left: &[T], right: &[T], sums: &mut [T]) {
        let last = rows.iter().fold(0, |last, row| last.max(*row));
        assert!(last + walk.reach.0 < left.len(), "left operand of a tile");
        assert!(walk.reach.1 + self.columns <= right.len(), "right operand of a tile");
        assert!(ROWS * self.columns <= sums.len(), "sums of a tile");
        #[expect(unsafe_code, reason = "the inner loop takes pointers, and instructions that the processor must have")]
        // SAFETY: the assertions bound every position that the walk reaches, by construction of `reach`; the constructors
        // of tiles pair `run` with `columns` and check for the instructions.
        unsafe {
            (self.run)(walk, rows, left.as_ptr(), right.as_ptr(), sums.as_mut_ptr());
        }
    }

    /// The plain loops, for all processors and types.
    pub(super) const PORTABLE: Self = Self { columns: 8, run: portable::<T> };
}

#[expect(unsafe_code, reason = "shares its type with the vectorised loops")]
/// The reference.
///
/// # Safety
/// All positions of the walk must lie within the operands.
unsafe fn portable<T: Float>(walk: &Walk, rows: &[usize; ROWS], left: *const T, right: *const T, sums: *mut T) {
    const COLUMNS: usize = 8;
    let mut total = [[T::ZERO; COLUMNS]; ROWS];
    for &(a, b) in walk.starts {
        for step in 0..walk.len {
            // SAFETY: the caller vouches for all positions of the walk.
            let right: &[T; COLUMNS] = unsafe { &*right.add(b + step * walk.steps.1).cast() };
            for (total, row) in total.iter_mut().zip(rows) {
                // SAFETY: as above.
                let left = unsafe { *left.add(row + a + step * walk.steps.0) };
                total.iter_mut().zip(right).for_each(|(total, right)| *total += left * *right);
            }
        }
    }
    // SAFETY: the caller vouches for the length of `sums`.
    let sums = unsafe { std::slice::from_raw_parts_mut(sums, ROWS * COLUMNS) };
    sums.iter_mut().zip(total.iter().flatten()).for_each(|(sum, total)| *sum += *total);
}

impl Tile<f32> {
    /// The fastest loop for products of `columns` columns on this processor.
    pub(super) fn best(columns: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f") && !*x86::WITHOUT_AVX512;
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match columns {
                17.. if avx512 => return x86::AVX512_WIDE,
                9.. if avx512 => return x86::AVX512_NARROW,
                _ if avx2 => return x86::avx2(columns),
                _ => {}
            }
        }
        Self::PORTABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::sample;

    /// The loops that this processor can run.
    fn every() -> Vec<Tile<f32>> {
        let mut tiles = vec![Tile::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                tiles.extend([x86::AVX512_WIDE, x86::AVX512_NARROW]);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                tiles.extend(x86::AVX2.map(|(columns, _, run)| Tile { columns, run }));
            }
        }
        tiles
    }

    #[test]
    fn the_tile_that_is_chosen_has_little_to_fill_up() {
        for columns in 1..400 {
            let width = Tile::<f32>::best(columns).columns;
            assert!(width <= MOST_COLUMNS && columns.next_multiple_of(width) <= columns + 31, "{columns} by {width}");
        }
    }

    #[test]
    fn every_loop_adds_up_what_the_portable_loop_does() {
        let (left, right) = (sample(4000, 1), sample(4000, 2));
        let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
        let starts = [(0, 7), (300, 900), (11, 0)];
        let rows = [0, 5, 100, 101, 220, 3, 3, 77];
        for tile in every() {
            let columns = tile.columns;
            let walk = Walk::new(&starts, 19, (3, 41));
            let mut sums = vec![1.0; ROWS * tile.columns];
            tile.add(&walk, &rows, &narrow(&left), &narrow(&right), &mut sums);
            for (r, sums) in sums.chunks_exact(tile.columns).enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    let products = starts.iter().flat_map(|&(a, b)| (0..19).map(move |i| (a + i * 3, b + i * 41)));
                    let expected: f64 = products.map(|(a, b)| left[rows[r] + a] * right[b + c]).sum();
                    assert!((f64::from(*sum) - 1.0 - expected).abs() < 1e-5, "{columns} columns: {sum} for {expected}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "without a step")]
    fn segments_without_a_step_are_refused() {
        Walk::new(&[(0, 0)], 0, (1, 8));
    }

    #[test]
    #[should_panic(expected = "right operand")]
    fn positions_outside_are_refused() {
        let tile = Tile::<f32>::best(8);
        let mut sums = vec![0.0; ROWS * tile.columns];
        tile.add(&Walk::new(&[(0, 1)], 2, (1, 8)), &[0; ROWS], &[0.0; 2], &[0.0; 16], &mut sums);
    }
}
