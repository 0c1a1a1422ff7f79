//! Tensors in another order than row by row.

use rayon::prelude::*;

use crate::model::header::TensorInfo;

/// Rows and columns that are copied together: as many as keep what they come from in a core's cache.
const TILE: usize = 32;

/// The elements of a tensor whose first one begins at byte `begin` of `bytes`, in row-major order. `strides` count elements
/// between neighbours along each axis; the gate has checked that all elements lie within `bytes`.
pub(super) fn row_major(bytes: &[u8], info: &TensorInfo, begin: usize, strides: &[u64]) -> Vec<u8> {
    let size = info.dtype.size();
    let mut target = vec![0; info.elements() * size];
    if target.is_empty() {
        return target;
    }
    let mut axes: Vec<Axis> =
        info.shape.iter().zip(strides).map(|(len, stride)| Axis { len: *len, step: *stride as usize * size }).collect();
    let columns = axes.pop().unwrap_or(Axis { len: 1, step: size });
    let rows = axes.pop().unwrap_or(Axis { len: 1, step: 0 });
    let source = ByteSource { bytes, begin, outer: &axes, rows, columns };
    match size {
        1 => source.gather::<1>(&mut target),
        2 => source.gather::<2>(&mut target),
        4 => source.gather::<4>(&mut target),
        _ => source.gather::<8>(&mut target),
    }
    target
}

/// Length of an axis, and bytes between neighbours along it.
#[derive(Debug, Clone, Copy)]
struct Axis {
    len: usize,
    step: usize,
}

/// Where elements come from.
#[derive(Debug)]
struct ByteSource<'a> {
    bytes: &'a [u8],
    begin: usize,
    outer: &'a [Axis],
    rows: Axis,
    columns: Axis,
}

impl ByteSource<'_> {
    /// Fills `target` with elements of `SIZE` bytes.
    fn gather<const SIZE: usize>(&self, target: &mut [u8]) {
        let row = self.columns.len * SIZE;
        target.par_chunks_mut(self.rows.len * row).enumerate().for_each(|(matrix, target)| {
            let begin = self.begin_of(matrix);
            target.par_chunks_mut(TILE * row).enumerate().for_each(|(band, target)| {
                self.band::<SIZE>(begin + band * TILE * self.rows.step, target);
            });
        });
    }

    /// The first byte of the matrix with this number.
    fn begin_of(&self, matrix: usize) -> usize {
        let add = |(begin, rest): (usize, usize), axis: &Axis| (begin + rest % axis.len * axis.step, rest / axis.len);
        self.outer.iter().rev().fold((self.begin, matrix), add).0
    }

    /// Fills at most [`TILE`] rows, whose first element begins at `begin`.
    fn band<const SIZE: usize>(&self, begin: usize, target: &mut [u8]) {
        let Axis { len: columns, step } = self.columns;
        let row_bytes = columns * SIZE;
        if step == SIZE {
            for (index, row) in target.chunks_exact_mut(row_bytes).enumerate() {
                let at = begin + index * self.rows.step;
                row.copy_from_slice(&self.bytes[at..at + row.len()]);
            }
            return;
        }
        for first in (0..columns).step_by(TILE) {
            let last = (first + TILE).min(columns);
            for (index, row) in target.chunks_exact_mut(row_bytes).enumerate() {
                let at = begin + index * self.rows.step;
                let (elements, _) = row[first * SIZE..last * SIZE].as_chunks_mut::<SIZE>();
                for (column, element) in (first..last).zip(elements) {
                    let at = at + column * step;
                    element.copy_from_slice(&self.bytes[at..at + SIZE]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::header::Dtype;

    fn rows(shape: &[usize], begin: usize, strides: &[u64]) -> Vec<u8> {
        let info = TensorInfo { name: String::new(), dtype: Dtype::U8, shape: shape.to_vec() };
        row_major(&(0..24).collect::<Vec<u8>>(), &info, begin, strides)
    }

    #[test]
    fn any_order_becomes_row_major() {
        assert_eq!(rows(&[2, 3], 0, &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(rows(&[3, 2], 1, &[1, 3]), [1, 4, 2, 5, 3, 6]);
        assert_eq!(rows(&[2, 2, 2], 0, &[1, 12, 6]), [0, 6, 12, 18, 1, 7, 13, 19]);
        assert_eq!(rows(&[2, 3], 4, &[0, 1]), [4, 5, 6, 4, 5, 6]);
        assert_eq!(rows(&[], 7, &[]), [7]);
        assert!(rows(&[2, 0, 3], 0, &[9, 9, 9]).is_empty());
        assert_eq!(rows(&[2, 2, 1, 3], 1, &[12, 6, 0, 2]), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
    }

    #[test]
    fn large_matrices_are_transposed_in_tiles() {
        for (rows, columns) in [(1, 100), (33, 65), (64, 32), (97, 3)] {
            let source: Vec<u8> = (0..rows * columns).flat_map(|at| (at as f32).to_le_bytes()).collect();
            let info = TensorInfo { name: String::new(), dtype: Dtype::F32, shape: vec![rows, columns] };
            let found = row_major(&source, &info, 0, &[1, rows as u64]);
            let expected = (0..rows * columns).map(|at| at / columns + at % columns * rows);
            assert_eq!(found, expected.flat_map(|at| (at as f32).to_le_bytes()).collect::<Vec<u8>>());
        }
    }
}
