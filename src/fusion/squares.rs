//! Sums of squares over rows and columns of weight matrices, in parallel. Blocks have a fixed size, so the sums have the
//! same bits whatever the number of threads.

use rayon::prelude::*;

/// Rows that one task adds up.
const ROW_BLOCK: usize = 128;
/// Elements that are added up in f32 before the sum goes on in f64.
const ELEMENT_BLOCK: usize = 1024;
/// Independent sums within a block.
const LANES: usize = 16;

/// Sum of squares of every row of `matrix`, whose rows have `row_len` elements, over the elements where `mask` is 1
/// (it holds only 0 and 1); over all without a mask.
pub(super) fn of_rows(matrix: &[f32], row_len: usize, mask: Option<&[f32]>) -> Vec<f64> {
    let rows = matrix.par_chunks_exact(row_len.max(1)).with_min_len(ROW_BLOCK);
    match mask {
        None => rows.map(sum_of_squares).collect(),
        Some(mask) => rows.map(|row| masked_sum_of_squares(row, mask)).collect(),
    }
}

/// Sum of squares of every column of `matrix` over `rows`.
pub(super) fn of_columns(matrix: &[f32], row_len: usize, rows: &[usize]) -> Vec<f64> {
    let blocks: Vec<Vec<f64>> = rows
        .par_chunks(ROW_BLOCK)
        .map(|block| {
            let mut sums = vec![0.0_f64; row_len];
            for &row in block {
                let elements = &matrix[row * row_len..(row + 1) * row_len];
                for (sum, &element) in sums.iter_mut().zip(elements) {
                    let element = f64::from(element);
                    *sum += element * element;
                }
            }
            sums
        })
        .collect();
    blocks.into_iter().fold(vec![0.0; row_len], |mut total, block| {
        total.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
        total
    })
}

/// Sum of squares; in f64 where f32 overflows.
fn sum_of_squares(values: &[f32]) -> f64 {
    let blocks = values.chunks(ELEMENT_BLOCK);
    blocks.map(|block| finite_or(in_lanes(block), || exact(block.iter().copied()))).sum()
}

/// Sum of squares of the elements whose mask is 1.
fn masked_sum_of_squares(values: &[f32], mask: &[f32]) -> f64 {
    let blocks = values.chunks(ELEMENT_BLOCK).zip(mask.chunks(ELEMENT_BLOCK));
    blocks
        .map(|(block, mask)| {
            let masked = || exact(block.iter().zip(mask).map(|(element, mask)| element * mask));
            finite_or(masked_in_lanes(block, mask), masked)
        })
        .sum()
}

/// Sum of squares in f32, in lanes that fit into registers.
fn in_lanes(block: &[f32]) -> f64 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, element)| *sum += element * element);
    }
    sums.into_iter().map(f64::from).sum::<f64>() + exact(rest.iter().copied())
}

/// As [`in_lanes`], elements multiplied by their mask.
fn masked_in_lanes(block: &[f32], mask: &[f32]) -> f64 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let (masks, mask_rest) = mask.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (chunk, mask) in chunks.iter().zip(masks) {
        for (sum, (element, mask)) in sums.iter_mut().zip(chunk.iter().zip(mask)) {
            let element = element * mask;
            *sum += element * element;
        }
    }
    sums.into_iter().map(f64::from).sum::<f64>() + exact(rest.iter().zip(mask_rest).map(|(e, mask)| e * mask))
}

/// Sum of squares in f64.
fn exact(elements: impl Iterator<Item = f32>) -> f64 {
    elements.map(f64::from).map(|element| element * element).sum()
}

/// `sum`, unless it overflowed.
fn finite_or(sum: f64, slow: impl FnOnce() -> f64) -> f64 {
    if sum.is_finite() { sum } else { slow() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6 * expected.abs(), "expected {expected}, got {got}");
    }

    #[test]
    fn rows_and_columns_add_up() {
        let row_len = 37;
        let matrix: Vec<f32> = (0..row_len * 300).map(|i| (i % 19) as f32 - 9.0).collect();
        let square = |row: usize, column: usize| f64::from(matrix[row * row_len + column]).powi(2);
        let mask: Vec<f32> = (0..row_len).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 }).collect();
        let rows: Vec<usize> = (0..300).filter(|row| row % 2 == 0).collect();
        for (row, (all, masked)) in
            of_rows(&matrix, row_len, None).into_iter().zip(of_rows(&matrix, row_len, Some(&mask))).enumerate()
        {
            same(all, (0..row_len).map(|column| square(row, column)).sum());
            let expected: f64 = (0..row_len).filter(|column| column % 3 != 0).map(|column| square(row, column)).sum();
            same(masked, expected);
        }
        for (column, sum) in of_columns(&matrix, row_len, &rows).into_iter().enumerate() {
            same(sum, rows.iter().map(|&row| square(row, column)).sum());
        }
    }

    #[test]
    fn squares_beyond_f32_stay_finite() {
        let matrix = [1e30_f32; 40];
        assert!(of_rows(&matrix, 40, None)[0].is_finite());
        assert!(of_rows(&matrix, 40, Some(&[1.0; 40]))[0].is_finite());
        assert!(of_columns(&matrix, 40, &[0])[0].is_finite());
    }
}
