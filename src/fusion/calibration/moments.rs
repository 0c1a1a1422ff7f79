//! First and second moments of features and targets, added up batch by batch.
//!
//! Products are formed in f32 over blocks of [`BLOCK`] rows and added up in f64: a block's rounding error is a few 10⁻⁶ of
//! the diagonal at most, below the smallest ridge that a solution uses, and the sum over blocks adds none.

use crate::exec::statistics::Sums;
use crate::kernels::{Matrix, Triangle, Workspace, add_product};

/// Rows whose products are added up in f32.
const BLOCK: usize = 1024;

/// Sums over rows of features x and targets y.
#[derive(Debug, Clone)]
pub(in crate::fusion) struct Moments {
    features: usize,
    targets: usize,
    rows: usize,
    /// Σ x xᵀ, features x features; what is left of the diagonal has no meaning.
    xx: Vec<f64>,
    /// Σ y xᵀ, targets x features.
    yx: Vec<f64>,
    /// Σ y², by target.
    yy: Vec<f64>,
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Mean products about some point: what a least-squares fit of y by x needs.
#[derive(Debug, Clone)]
pub(in crate::fusion) struct Normal {
    pub(in crate::fusion) features: usize,
    pub(in crate::fusion) targets: usize,
    /// E[x xᵀ].
    pub(in crate::fusion) xx: Vec<f64>,
    /// E[y xᵀ].
    pub(in crate::fusion) yx: Vec<f64>,
    /// E[y²], by target.
    pub(in crate::fusion) yy: Vec<f64>,
}

impl Moments {
    pub(in crate::fusion) fn new(features: usize, targets: usize) -> Self {
        Self {
            features,
            targets,
            rows: 0,
            xx: vec![0.0; features * features],
            yx: vec![0.0; targets * features],
            yy: vec![0.0; targets],
            x: vec![0.0; features],
            y: vec![0.0; targets],
        }
    }

    /// Sums that a device has made.
    pub(in crate::fusion) fn of(sums: Sums) -> Self {
        let Sums { rows, xx, yx, yy, x, y } = sums;
        Self { features: x.len(), targets: y.len(), rows, xx, yx, yy, x, y }
    }

    /// Number of rows.
    pub(in crate::fusion) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds rows: `x` (rows x features), `y` (rows x targets).
    pub(in crate::fusion) fn add(&mut self, x: &[f32], y: &[f32], work: &mut Workspace<f32>) {
        let (features, targets) = (self.features.max(1), self.targets.max(1));
        for (index, x) in x.chunks(BLOCK * features).enumerate() {
            let rows = x.len() / features;
            let y = &y[index * BLOCK * self.targets..][..rows * self.targets];
            let (x_rows, y_rows) = (Matrix::new(x, rows, features), Matrix::new(y, rows, self.targets));
            add_product(work, x_rows, x_rows, Triangle::Upper, &mut self.xx);
            add_product(work, y_rows, x_rows, Triangle::Both, &mut self.yx);
            for row in x.chunks_exact(features) {
                self.x.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            for row in y.chunks_exact(targets) {
                for ((sum, square), value) in self.y.iter_mut().zip(&mut self.yy).zip(row) {
                    let value = f64::from(*value);
                    *sum += value;
                    *square += value * value;
                }
            }
            self.rows += rows;
        }
    }

    /// Adds another sum.
    pub(in crate::fusion) fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.xx, &other.xx),
            (&mut self.yx, &other.yx),
            (&mut self.yy, &other.yy),
            (&mut self.x, &other.x),
            (&mut self.y, &other.y),
        ];
        for (sums, others) in pairs {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        self.rows += other.rows;
    }

    /// Means of x and y.
    pub(in crate::fusion) fn means(&self) -> (Vec<f64>, Vec<f64>) {
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / self.rows.max(1) as f64).collect();
        (mean(&self.x), mean(&self.y))
    }

    /// Mean products about the point (`at_x`, `at_y`).
    pub(in crate::fusion) fn about(&self, at_x: &[f64], at_y: &[f64]) -> Normal {
        let rows = self.rows.max(1) as f64;
        let (x, y) = self.means();
        let shifted = |sums: &[f64], a: &[f64], b: &[f64], at_a: &[f64], at_b: &[f64]| {
            let mut means: Vec<f64> = sums.iter().map(|sum| sum / rows).collect();
            for (i, row) in means.chunks_exact_mut(b.len().max(1)).enumerate() {
                for (j, mean) in row.iter_mut().enumerate() {
                    *mean += at_a[i] * at_b[j] - a[i] * at_b[j] - at_a[i] * b[j];
                }
            }
            means
        };
        let mut xx = shifted(&self.xx, &x, &x, at_x, at_x);
        mirror(&mut xx, self.features);
        let yy = self.yy.iter().zip(y.iter().zip(at_y)).map(|(sum, (y, at))| sum / rows + at * at - 2.0 * at * y);
        Normal {
            features: self.features,
            targets: self.targets,
            xx,
            yx: shifted(&self.yx, &y, &x, at_y, at_x),
            yy: yy.collect(),
        }
    }
}

/// Makes an n x n matrix symmetric, by what is right of its diagonal.
fn mirror(matrix: &mut [f64], n: usize) {
    for i in 1..n {
        let (above, row) = matrix.split_at_mut(i * n);
        row[..i].iter_mut().enumerate().for_each(|(j, value)| *value = above[j * n + i]);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn moments_equal_their_definition() {
        let (features, targets, rows) = (3, 2, 2500);
        let value = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 1000) as f32 / 500.0 - 0.7;
        let x: Vec<f32> = (0..rows * features).map(|i| value(i, 1)).collect();
        let y: Vec<f32> = (0..rows * targets).map(|i| value(i, 2)).collect();
        let work = &mut Workspace::new(NonZeroUsize::MIN);
        let mut moments = Moments::new(features, targets);
        moments.add(&x[..1000 * features], &y[..1000 * targets], work);
        let mut rest = Moments::new(features, targets);
        rest.add(&x[1000 * features..], &y[1000 * targets..], work);
        moments.merge(&rest);
        assert_eq!(moments.rows(), rows);
        let (at_x, at_y) = ([0.3, -0.2, 1.0], [0.5, -1.0]);
        let normal = moments.about(&at_x, &at_y);
        let mean = |f: &dyn Fn(usize) -> f64| (0..rows).map(f).sum::<f64>() / rows as f64;
        let dx = |row: usize, i: usize| f64::from(x[row * features + i]) - at_x[i];
        let dy = |row: usize, i: usize| f64::from(y[row * targets + i]) - at_y[i];
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-5, "{got} for {expected}");
        for i in 0..features {
            for j in 0..features {
                close(normal.xx[i * features + j], mean(&|row| dx(row, i) * dx(row, j)));
            }
            for t in 0..targets {
                close(normal.yx[t * features + i], mean(&|row| dy(row, t) * dx(row, i)));
            }
        }
        for t in 0..targets {
            close(normal.yy[t], mean(&|row| dy(row, t).powi(2)));
        }
    }
}
