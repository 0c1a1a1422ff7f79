//! Sums of squares over rows and columns of weight matrices, in parallel and in one pass, block by block. Blocks have a
//! fixed size, so the sums have the same bits whatever the number of threads.

use rayon::prelude::*;

use crate::tensors::Elements;

/// Elements that one task adds up.
const TASK: usize = 1 << 18;
/// Elements that are added up in f32 before the sum goes on in f64.
const ELEMENT_BLOCK: usize = 1024;
/// Independent sums within a block.
const LANES: usize = 16;
/// Rows whose squares are added up in f32, column by column, before the sums go on in f64.
const ROWS_AT_ONCE: usize = 16;

/// Sum of squares of every row of `matrix`, whose rows have `row_len` elements, over the elements where `mask` is 1
/// (it holds only 0 and 1); over all without a mask.
pub(in crate::fusion) fn of_rows(matrix: &Elements<'_>, row_len: usize, mask: Option<&[f32]>) -> Vec<f64> {
    let row_len = row_len.max(1);
    let rows = matrix.len() / row_len;
    let per_task = (TASK / row_len).max(1);
    let task = |first: usize| {
        let count = per_task.min(rows - first);
        let mut scratch = Vec::new();
        let block = matrix.slice(first * row_len, count * row_len, &mut scratch);
        let rows = block.chunks_exact(row_len);
        match mask {
            None => rows.map(sum_of_squares).collect::<Vec<f64>>(),
            Some(mask) => rows.map(|row| masked_sum_of_squares(row, mask)).collect(),
        }
    };
    (0..rows.div_ceil(per_task)).into_par_iter().flat_map_iter(|block| task(block * per_task)).collect()
}

/// Sum of squares of every column of `matrix` over `rows`.
pub(in crate::fusion) fn of_columns(matrix: &Elements<'_>, row_len: usize, rows: &[usize]) -> Vec<f64> {
    let per_task = (TASK / row_len.max(1)).next_multiple_of(ROWS_AT_ONCE).max(ROWS_AT_ONCE);
    // One sum per stretch of tasks, so that memory does not grow with the number of rows.
    let per_sum = per_task * rows.len().div_ceil(per_task).div_ceil(MOST_SUMS).max(1);
    let sums: Vec<Vec<f64>> = rows
        .par_chunks(per_sum)
        .map(|rows| {
            let mut sums = vec![0.0_f64; row_len];
            let mut block = vec![0.0_f32; row_len];
            rows.chunks(ROWS_AT_ONCE).for_each(|rows| add_columns(&mut sums, &mut block, matrix, rows));
            sums
        })
        .collect();
    sums.into_iter().fold(vec![0.0; row_len], |mut total, part| {
        total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        total
    })
}

/// Most partial sums of columns.
const MOST_SUMS: usize = 64;

/// Adds the squares of a few rows to the columns' sums; in f32 first, in f64 where that overflows.
fn add_columns(sums: &mut [f64], block: &mut [f32], matrix: &Elements<'_>, rows: &[usize]) {
    let row_len = sums.len();
    block.fill(0.0);
    let mut scratch = [const { Vec::<f32>::new() }; 4];
    for four in rows.chunks(4) {
        let mut at = scratch.iter_mut().zip(four).map(|(scratch, row)| matrix.slice(row * row_len, row_len, scratch));
        match (at.next(), at.next(), at.next(), at.next()) {
            (Some(a), Some(b), Some(c), Some(d)) => {
                let rows = a.iter().zip(b).zip(c).zip(d);
                for (sum, (((a, b), c), d)) in block.iter_mut().zip(rows) {
                    *sum += (a * a + b * b) + (c * c + d * d);
                }
            }
            (a, b, c, _) => {
                for row in [a, b, c].into_iter().flatten() {
                    block.iter_mut().zip(row).for_each(|(sum, element)| *sum += element * element);
                }
            }
        }
    }
    if block.iter().all(|sum| sum.is_finite()) {
        sums.iter_mut().zip(&*block).for_each(|(sum, part)| *sum += f64::from(*part));
        return;
    }
    for row in rows {
        let row = matrix.slice(row * row_len, row_len, &mut scratch[0]);
        sums.iter_mut().zip(row).for_each(|(sum, element)| *sum += f64::from(*element).powi(2));
    }
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
        let elements = Elements::Floats((&matrix[..]).into());
        let square = |row: usize, column: usize| f64::from(matrix[row * row_len + column]).powi(2);
        let mask: Vec<f32> = (0..row_len).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 }).collect();
        let rows: Vec<usize> = (0..300).filter(|row| row % 2 == 0).collect();
        for (row, (all, masked)) in
            of_rows(&elements, row_len, None).into_iter().zip(of_rows(&elements, row_len, Some(&mask))).enumerate()
        {
            same(all, (0..row_len).map(|column| square(row, column)).sum());
            let expected: f64 = (0..row_len).filter(|column| column % 3 != 0).map(|column| square(row, column)).sum();
            same(masked, expected);
        }
        for (column, sum) in of_columns(&elements, row_len, &rows).into_iter().enumerate() {
            same(sum, rows.iter().map(|&row| square(row, column)).sum());
        }
    }

    #[test]
    fn squares_beyond_f32_stay_finite() {
        let matrix = Elements::Floats(vec![1e30_f32; 40].into());
        assert!(of_rows(&matrix, 40, None)[0].is_finite());
        assert!(of_rows(&matrix, 40, Some(&[1.0; 40]))[0].is_finite());
        assert!(of_columns(&matrix, 40, &[0])[0].is_finite());
    }
}
