//! Least squares with a ridge, by Cholesky in f64.

use faer::Side;
use faer::linalg::solvers::{Llt, Solve};
use faer::{MatMut, MatRef};

use super::super::calibration::moments::{Moments, Normal};

/// Ridges that held-out examples choose from, relative to the mean of the diagonal.
const RIDGES: [f64; 6] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// The ridge where there are too few examples to hold some out.
const DEFAULT_RIDGE: f64 = 1e-2;
/// Most targets that the choice of the ridge looks at.
const JUDGES: usize = 256;

/// A solution of `y ≈ W x + b`.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    /// W, targets x features.
    pub(super) weight: Vec<f64>,
    /// b, 0 where the fit has none.
    pub(super) bias: Vec<f64>,
    /// The ridge, relative to the mean of the diagonal.
    pub(super) ridge: f64,
    /// E[(y - W x - b)²] over E[y²] (or the variance of y, with b), all targets together, on held-out examples where there are some.
    pub(super) residual: f64,
}

/// Fits W, and b where `centred`, with the given `ridge`, or with the one that does best on `held_out`; what is returned is
/// fitted to all examples. `None` where the features are all 0.
pub(super) fn fit(mut moments: Moments, held_out: &Moments, centred: bool, ridge: Option<f64>) -> Option<Solution> {
    let (ridge, residual) = match ridge {
        Some(ridge) if held_out.rows() == 0 => (ridge, None),
        None if held_out.rows() == 0 => (DEFAULT_RIDGE, None),
        given => {
            let best = choose(&moments, held_out, centred, given.as_slice());
            moments.merge(held_out);
            (best.0, Some(best.1))
        }
    };
    let (at_x, at_y) = centre(&moments, centred);
    let normal = moments.about(&at_x, &at_y);
    let (weight, ridge) = solve(&normal, ridge)?;
    let residual = residual.unwrap_or_else(|| relative_error(&normal, &weight));
    let shift = |(row, at): (&[f64], &f64)| at - row.iter().zip(&at_x).map(|(w, x)| w * x).sum::<f64>();
    let bias = weight.chunks_exact(normal.features).zip(&at_y).map(shift).collect();
    Some(Solution { weight, bias, ridge, residual })
}

/// The ridge of `candidates` (or of [`RIDGES`], where there are none) with the least error on `held_out`, and that error.
fn choose(moments: &Moments, held_out: &Moments, centred: bool, candidates: &[f64]) -> (f64, f64) {
    let (at_x, at_y) = centre(moments, centred);
    let step = at_y.len().div_ceil(JUDGES).max(1);
    let fitted = every(moments.about(&at_x, &at_y), step);
    let judged = every(held_out.about(&at_x, &at_y), step);
    let candidates = if candidates.is_empty() { &RIDGES[..] } else { candidates };
    let errors = candidates.iter().filter_map(|ridge| {
        let (weight, _) = solve(&fitted, *ridge)?;
        Some((*ridge, relative_error(&judged, &weight)))
    });
    let best = errors.min_by(|a, b| a.1.total_cmp(&b.1));
    best.unwrap_or((DEFAULT_RIDGE, 1.0))
}

/// The point that moments are taken about: the means, or 0.
fn centre(moments: &Moments, centred: bool) -> (Vec<f64>, Vec<f64>) {
    let (mut x, mut y) = moments.means();
    if !centred {
        x.fill(0.0);
        y.fill(0.0);
    }
    (x, y)
}

/// Every `step`-th target.
fn every(normal: Normal, step: usize) -> Normal {
    let rows = normal.yx.chunks_exact(normal.features.max(1)).step_by(step);
    let yx: Vec<f64> = rows.flatten().copied().collect();
    let yy: Vec<f64> = normal.yy.iter().step_by(step).copied().collect();
    Normal { targets: yy.len(), yx, yy, ..normal }
}

/// W = E[y xᵀ] (E[x xᵀ] + ridge · mean diagonal · I)⁻¹ and the ridge, which grows until the matrix is positive definite.
pub(super) fn solve(normal: &Normal, ridge: f64) -> Option<(Vec<f64>, f64)> {
    let n = normal.features;
    let mean = (0..n).map(|i| normal.xx[i * n + i]).sum::<f64>() / n.max(1) as f64;
    if mean <= 0.0 || !mean.is_finite() {
        return None;
    }
    let mut ridge = ridge;
    while ridge <= 10.0 {
        let mut matrix = normal.xx.clone();
        (0..n).for_each(|i| matrix[i * n + i] += ridge * mean);
        if let Ok(factor) = Llt::new(MatRef::from_column_major_slice(&matrix, n, n), Side::Lower) {
            let mut weight = normal.yx.clone();
            // Rows of W are the columns that faer solves for.
            factor.solve_in_place(MatMut::from_column_major_slice_mut(&mut weight, n, normal.targets));
            return weight.iter().all(|value| value.is_finite()).then_some((weight, ridge));
        }
        ridge = (ridge * 10.0).max(1e-6);
    }
    None
}

/// E[(y - W x)²] over E[y²], all targets together.
fn relative_error(normal: &Normal, weight: &[f64]) -> f64 {
    let n = normal.features;
    let mut product = vec![0.0; weight.len()];
    let rows = crate::kernels::Matrix::new(weight, normal.targets, n);
    let threads = std::num::NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(std::num::NonZeroUsize::MIN);
    crate::kernels::matmul(threads, rows, crate::kernels::Matrix::new(&normal.xx, n, n), &mut product, false);
    let explained: f64 = weight.iter().zip(&normal.yx).zip(&product).map(|((w, c), p)| w * (p - 2.0 * c)).sum();
    let total: f64 = normal.yy.iter().sum();
    if total > 0.0 { ((total + explained) / total).max(0.0) } else { 0.0 }
}
