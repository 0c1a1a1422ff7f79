//! Operands of products as their tiles read them: copies in the order of the steps.

use rayon::prelude::*;

use crate::kernels::tile::{ROWS, Tile};
use crate::kernels::workspace::scratch;
use crate::kernels::{Float, Matrix};

/// A right operand in panels of as many columns as a tile has, each (depth x columns), filled up with zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels<'p, T> {
    pub(super) tile: Tile<T>,
    depth: usize,
    columns: usize,
    data: &'p [T],
}

/// Neighbouring columns, packed for the tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel<'p, T> {
    /// First column, and how many count.
    pub(super) column: usize,
    pub(super) columns: usize,
    pub(super) data: &'p [T],
}

impl<'p, T: Float> Panels<'p, T> {
    /// Elements of the panels of a matrix.
    pub(super) fn len(depth: usize, columns: usize) -> usize {
        let width = T::tile(columns).columns;
        columns.div_ceil(width) * width * depth
    }

    /// Packs a matrix.
    pub(super) fn pack(matrix: Matrix<T>, buffer: &'p mut Vec<T>) -> Self {
        let data = scratch(buffer, Self::len(matrix.rows, matrix.cols));
        Self::pack_into(matrix, data)
    }

    /// Packs a matrix into `data`, of [`Self::len`].
    pub(super) fn pack_into(matrix: Matrix<T>, data: &'p mut [T]) -> Self {
        let tile = T::tile(matrix.cols);
        let width = tile.columns;
        data.par_chunks_mut(width * matrix.rows).enumerate().for_each(|(index, panel)| {
            let column = index * width;
            let columns = width.min(matrix.cols - column);
            let from = &matrix.data[column * matrix.col_stride..];
            if columns < width {
                panel.fill(T::ZERO);
            }
            if matrix.col_stride == 1 {
                for (row, panel) in panel.chunks_exact_mut(width).enumerate() {
                    panel[..columns].copy_from_slice(&from[row * matrix.row_stride..][..columns]);
                }
            } else {
                transpose(from, matrix.col_stride, matrix.row_stride, columns, width, panel);
            }
        });
        Self { tile, depth: matrix.rows, columns: matrix.cols, data }
    }

    /// All panels in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Panel<'p, T>> {
        let (width, columns) = (self.tile.columns, self.columns);
        self.data.chunks_exact(width * self.depth).enumerate().map(move |(index, data)| {
            let column = index * width;
            Panel { column, columns: width.min(columns - column), data }
        })
    }
}

/// Side of the blocks that are turned at once.
const SIDE: usize = 8;

/// Copies the first eight values: a call would take longer.
#[inline]
#[expect(clippy::manual_memcpy, reason = "that would be the call")]
fn copy<T: Float>(from: &[T], to: &mut [T]) {
    let (from, to) = (&from[..SIDE], &mut to[..SIDE]);
    for i in 0..SIDE {
        to[i] = from[i];
    }
}

/// Writes what begins `lines` as the columns of a block whose rows begin `width` apart in `to`.
#[inline]
fn turn<T: Float>(lines: &[&[T]; SIDE], width: usize, to: &mut [T]) {
    let mut block = [[T::ZERO; SIDE]; SIDE];
    for r in 0..SIDE {
        copy(lines[r], &mut block[r]);
    }
    for k in 0..SIDE {
        let to = &mut to[k * width..][..SIDE];
        for r in 0..SIDE {
            to[r] = block[r][k];
        }
    }
}

/// Packs columns that lie apart: a block of 8 columns and 8 steps at a time, the rest one by one.
fn transpose<T: Float>(from: &[T], column: usize, step: usize, columns: usize, width: usize, panel: &mut [T]) {
    let whole = if step == 1 { columns / SIDE * SIDE } else { 0 };
    let mut done = 0;
    for (index, panel) in panel.chunks_exact_mut(SIDE * width).enumerate() {
        for c in (0..whole).step_by(SIDE) {
            let lines: [&[T]; SIDE] = std::array::from_fn(|i| &from[(c + i) * column + index * SIDE..]);
            turn(&lines, width, &mut panel[c..]);
        }
        done = (index + 1) * SIDE;
    }
    for (k, to) in panel.chunks_exact_mut(width).enumerate() {
        let rest = if k < done { whole } else { 0 };
        to[rest..columns].iter_mut().enumerate().for_each(|(c, to)| *to = from[(rest + c) * column + k * step]);
    }
}

/// Packs `rows` rows of `a` from `first` on and `steps` of them, tile by tile: (depth x 8), the last row repeated.
pub(super) fn pack_rows<T: Float>(
    a: &Matrix<T>,
    first: usize,
    rows: usize,
    steps: std::ops::Range<usize>,
    tiles: &mut [T],
) {
    let depth = steps.len();
    let from = &a.data[steps.start * a.col_stride..];
    // Rows that are neighbours in memory are read along it.
    let together = if a.row_stride == 1 { rows / ROWS * ROWS } else { 0 };
    for k in 0..depth {
        let line = &from[first * a.row_stride + k * a.col_stride..];
        for (to, values) in tiles.chunks_exact_mut(depth * ROWS).zip(line[..together].chunks_exact(ROWS)) {
            copy(values, &mut to[k * ROWS..]);
        }
    }
    for (top, tile) in (0..rows).step_by(ROWS).zip(tiles.chunks_exact_mut(depth * ROWS)).skip(together / ROWS) {
        let starts: [usize; ROWS] = std::array::from_fn(|r| (first + (top + r).min(rows - 1)) * a.row_stride);
        let mut done = 0;
        if a.col_stride == 1 {
            let lines = starts.map(|start| &from[start..start + depth]);
            for (k, to) in tile.chunks_exact_mut(SIDE * ROWS).enumerate() {
                turn(&lines.map(|line| &line[k * SIDE..]), ROWS, to);
                done += SIDE;
            }
        }
        for (k, to) in tile.chunks_exact_mut(ROWS).enumerate().skip(done) {
            to.iter_mut().zip(&starts).for_each(|(to, start)| *to = from[start + k * a.col_stride]);
        }
    }
}
